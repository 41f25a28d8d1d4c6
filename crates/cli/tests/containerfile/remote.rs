//! `ADD` of an address: a file of a server on loopback, by its checksum.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::fs::MetadataExt as _,
    sync::{Arc, Mutex},
};

use kiln_model::Digest;

use super::world::{World, run, text};

/// Answers every request in the same way until the test ends.
#[derive(Clone)]
struct Server {
    address: String,
    answer: Arc<Mutex<(&'static str, Vec<u8>)>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(content: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let answer = Arc::new(Mutex::new(("200 OK", content.to_owned())));
        let server = Self { address, answer, asked: Arc::default() };
        let answering = server.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines().map_while(Result::ok);
                answering.asked.lock().expect("no panic").extend(lines.next());
                while lines.next().is_some_and(|line| !line.is_empty()) {}
                let (status, body) = answering.answer.lock().expect("no panic").clone();
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                // A client that has seen enough hangs up.
                drop(stream.write_all(&[head.as_bytes(), &body].concat()));
            }
        });
        server
    }

    fn set(&self, status: &'static str, content: &[u8]) {
        *self.answer.lock().expect("no panic") = (status, content.to_owned());
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("no panic").len()
    }
}

const CONTENT: &[u8] = b"exactly this\n";

fn add(server: &Server, checksum: &Digest, path: &str, place: &str) -> String {
    format!("FROM oci:base:v1\nADD --checksum={checksum} {}{path} {place}\n", server.address)
}

#[test]
fn root_a_file_is_added_by_its_checksum_and_fetched_once() {
    let (world, server) = (World::new(), Server::start(CONTENT));
    let checksum = Digest::of(CONTENT);
    world.recipe(&add(&server, &checksum, "/files/tool-1.0?token=x", "/opt/"), "", "");
    let baked = world.bake();
    let (root, _) = world.unpacked(&baked);
    let added = root.join("opt/tool-1.0");
    assert_eq!(std::fs::read(&added).expect("added"), CONTENT);
    let stat = std::fs::metadata(&added).expect("added");
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o600, 0, 0));
    assert_eq!(server.asked(), 1);
    let image = format!("app@{}", baked["image"].as_str().expect("a digest"));
    let provenance = text(&world.kiln(&["provenance", &image, "--json"]).stdout);
    let told = format!("{}/files/tool-1.0\"", server.address);
    assert!(provenance.contains(&told) && provenance.contains(&checksum.hex()), "{provenance}");
    // What is known is not fetched again, whatever the server has now; another place is another layer of the same file.
    server.set("200 OK", b"something else\n");
    assert_eq!(world.bake()["image"], baked["image"]);
    let file = add(&server, &checksum, "/files/tool-1.0", "/opt/tool").replace("ADD", "ADD --chown=www --chmod=755");
    world.recipe(&file, "", "");
    let (root, _) = world.unpacked(&world.bake());
    let stat = std::fs::metadata(root.join("opt/tool")).expect("added");
    assert_eq!((stat.mode() & 0o7777, stat.uid()), (0o755, 33));
    assert_eq!(server.asked(), 1);
}

#[test]
fn root_a_file_with_another_checksum_is_refused() {
    let (world, server) = (World::new(), Server::start(b"something else\n"));
    let checksum = Digest::of(CONTENT);
    world.recipe(&add(&server, &checksum, "/tool", "/opt/tool"), "", "");
    let told = world.refused();
    assert!(told.contains("Containerfile:2: `ADD --checksum="), "{told}");
    let found = Digest::of(b"something else\n");
    assert!(told.contains(&format!("it should be {checksum} and is {found}")), "{told}");
    server.set("404 Not Found", b"");
    assert!(world.refused().contains("/tool answered 404"));
    // Nothing of the wrong file is kept, and the right one is taken once it is there.
    server.set("200 OK", CONTENT);
    let baked = world.bake();
    assert_eq!(world.read(&baked, "/opt/tool").as_bytes(), CONTENT);
    // What lies in the cache is checked as well: a damaged file is fetched again.
    let kept = world.beside("state/cache/added").join(checksum.hex());
    std::fs::write(&kept, b"exactly that\n").expect("written");
    let asked = server.asked();
    world.recipe(&add(&server, &checksum, "/tool", "/opt/other"), "", "");
    assert_eq!(world.read(&world.bake(), "/opt/other").as_bytes(), CONTENT);
    assert_eq!(server.asked(), asked + 1);
}

#[test]
fn root_an_archive_of_an_address_is_added_as_it_is() {
    let world = World::new();
    run(std::process::Command::new("tar").args(["-czf", "archive.tar.gz", "base"]).current_dir(world.dir()));
    let archive = std::fs::read(world.dir().join("archive.tar.gz")).expect("an archive");
    let server = Server::start(&archive);
    world.recipe(&add(&server, &Digest::of(&archive), "/archive.tar.gz", "/opt/"), "", "");
    let (root, _) = world.unpacked(&world.bake());
    assert_eq!(std::fs::read(root.join("opt/archive.tar.gz")).expect("added"), archive);
    // A place that ends with `/` needs a name in the address.
    world.recipe(&add(&server, &Digest::of(&archive), "/", "/opt/"), "", "");
    assert!(world.refused().contains("the address ends with no name of a file"));
}
