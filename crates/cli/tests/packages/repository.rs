//! A repository of somebody else: made by `dpkg-scanpackages`, signed by `gpg`, served by HTTP.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

use crate::world::{APP, Deb, World, run};

/// A directory that is a repository.
pub struct Vendor {
    pub temp: tempfile::TempDir,
    pub address: String,
}

impl Vendor {
    pub fn new() -> Self {
        let temp = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(temp.path().join("pool")).expect("a directory");
        fs::create_dir_all(temp.path().join(INDEX)).expect("a directory");
        let address = serve(temp.path().to_owned());
        Self { temp, address }
    }

    fn home(&self, who: &str) -> PathBuf {
        self.temp.path().join(format!("gpg-{who}"))
    }

    pub fn gpg(&self, who: &str) -> Command {
        let mut gpg = Command::new("gpg");
        gpg.arg("--homedir").arg(self.home(who)).args(["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback"]);
        gpg.args(["--passphrase", ""]);
        gpg
    }

    /// Makes a key and gives its public part, armoured.
    pub fn key(&self, who: &str) -> String {
        fs::create_dir(self.home(who)).expect("a directory");
        let address = format!("{who} <{who}@example.org>");
        run(self.gpg(who).args(["--quick-generate-key", &address, "ed25519", "sign", "never"]));
        run(self.gpg(who).args(["--armor", "--export"]))
    }

    /// Lists what is in the pool.
    pub fn publish(&self, signed_by: Option<&str>) {
        let scan = format!(
            "dpkg-scanpackages --multiversion pool 2>/dev/null >{INDEX}/Packages && cd dists/stable && \
             {{ printf 'Origin: Shop\\nSuite: stable\\nCodename: stable\\nArchitectures: amd64\\nComponents: main\\nDate: %s\\nSHA256:\\n' \
             \"$(date -u '+%a, %d %b %Y %H:%M:%S UTC')\"; \
             printf ' %s %s main/binary-amd64/Packages\\n' $(sha256sum main/binary-amd64/Packages | cut -d' ' -f1) \
             $(stat -c %s main/binary-amd64/Packages); }} >Release; rm -f InRelease"
        );
        run(Command::new("sh").args(["-c", &scan]).current_dir(self.temp.path()));
        if let Some(who) = signed_by {
            let suite = self.temp.path().join("dists/stable");
            let signed = suite.join("InRelease");
            run(self.gpg(who).arg("--clearsign").arg("--output").arg(signed).arg(suite.join("Release")));
        }
    }

    pub fn recipe(&self, world: &World, packages: &str) {
        let text = format!(
            "packages = [{packages}]\n\n[base.repository.shop]\nurl = \"{}\"\nsuite = \"stable\"\ncomponents = [\"main\"]\nkey = \"shop.asc\"\n",
            self.address
        );
        world.recipe("vendor", &text);
    }
}

impl Drop for Vendor {
    /// gpg's agents end when they are told to.
    fn drop(&mut self) {
        for who in ["shop", "stranger"] {
            if self.home(who).exists() {
                let told =
                    Command::new("gpgconf").arg("--homedir").arg(self.home(who)).args(["--kill", "all"]).status();
                println!("gpg's agent of {who} was told to end: {told:?}");
            }
        }
    }
}

const INDEX: &str = "dists/stable/main/binary-amd64";

/// Serves the files of a directory until the test ends.
fn serve(root: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines().map_while(Result::ok);
            let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
            while lines.next().is_some_and(|line| !line.is_empty()) {}
            let (status, body) = match fs::read(root.join(path.trim_start_matches('/'))) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            // A client that has seen enough hangs up.
            drop(stream.write_all(&[head.as_bytes(), &body].concat()));
        }
    });
    address
}

#[test]
fn root_packages_of_a_signed_repository_are_installed_in_any_step() {
    let (world, vendor) = (World::new(), Vendor::new());
    let pool = vendor.temp.path().join("pool");
    let common = ("usr/share/app-common/about", "common\n");
    Deb { file: "app.deb", fields: "Depends: app-common, netbase\n", ..APP }.build(&pool);
    Deb { file: "app-2.deb", version: "2.0", ..APP }.build(&pool);
    Deb { file: "common.deb", name: "app-common", files: &[common], ..APP }.build(&pool);
    world.write("shop.asc", &vendor.key("shop"));
    vendor.publish(Some("shop"));
    vendor.recipe(&world, "\"app=1.0\"");
    let baked = world.good(&["bake"]);
    assert_eq!(world.read(&baked, "/usr/share/app-common/about").as_deref(), Some("common\n"));
    let lock = world.lock();
    assert!(lock.contains("name = \"shop\"\nsuite = \"stable\""), "{lock}");
    assert!(lock.contains("name = \"app\", version = \"1.0\", architecture = \"all\", archive = \"shop\""), "{lock}");
    assert!(lock.contains("name = \"netbase\"") && lock.contains("archive = \"main\""), "{lock}");
    // In a step as well, and the newest where nothing is said. The key may be binary.
    let key = world.directory().join("shop.asc");
    let binary = run_bytes(Command::new("gpg").args(["--dearmor", "--output", "-"]).arg(&key));
    fs::write(&key, binary).expect("written");
    let text = fs::read_to_string(world.directory().join("image.toml")).expect("a recipe");
    world.write("image.toml", &format!("{}\n[[step]]\npackages = [\"app\"]\n", text.replace("\"app=1.0\"", "")));
    let baked = world.good(&["bake"]);
    assert!(world.lock().contains("name = \"app\", version = \"2.0\""), "{}", world.lock());
    assert_eq!(world.read(&baked, "/usr/share/app/about").as_deref(), Some("the first\n"));
    // Without the repository the lock is not the recipe's.
    world.recipe("vendor", "\n[[step]]\npackages = [\"app\"]\n");
    let refused = world.kiln(&["bake", "--locked"]);
    assert_eq!(refused.code, 2, "{}", refused.errors);
}

#[test]
fn root_a_repository_that_is_unsigned_or_signed_by_a_stranger_is_refused() {
    let (world, vendor) = (World::new(), Vendor::new());
    APP.build(&vendor.temp.path().join("pool"));
    world.write("shop.asc", &vendor.key("shop"));
    vendor.key("stranger");
    vendor.recipe(&world, "\"app\"");
    vendor.publish(None);
    let told = world.bad(4);
    assert!(
        told.contains("is not signed: it has neither InRelease nor Release with Release.gpg")
            && told.contains("./app.deb"),
        "{told}"
    );
    vendor.publish(Some("stranger"));
    let told = world.bad(4);
    assert!(told.contains("is not accepted by `key = \"shop.asc\"`"), "{told}");
    assert!(told.contains("only its own `key` counts for a repository"), "{told}");
    let release = vendor.temp.path().join("dists/stable");
    fs::copy(release.join("Release"), release.join("InRelease")).expect("copied");
    assert!(world.bad(4).contains("it is not signed"));
    // What was signed and changed afterwards.
    vendor.publish(Some("shop"));
    replace(&release.join("InRelease"), "Origin: Shop", "Origin: Shup");
    assert!(world.bad(4).contains("does not match its content"));
    vendor.publish(Some("shop"));
    replace(&vendor.temp.path().join(INDEX).join("Packages"), "Version: 1.0", "Version: 9.0");
    assert_ne!(world.kiln(&["bake"]).code, 0, "another index than the signed one was believed");
    world.write("shop.asc", "no key");
    assert!(world.bad(4).contains("cannot use `key = \"shop.asc\"` of the repository `shop`"));
}

pub fn replace(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).expect("readable");
    assert!(text.contains(from), "{text}");
    fs::write(file, text.replace(from, to)).expect("written");
}

fn run_bytes(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}");
    output.stdout
}
