//! A registry on loopback, an image of real files in it, and a relay that counts what goes over.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{Outcome, command::output};

/// Bytes of each layer's files: 200 MB in all.
pub const LAYERS: [u64; 3] = [110 << 20, 60 << 20, 30 << 20];
/// How images are packed; the first is what umoci writes.
pub const PACKINGS: [&str; 2] = ["gzip", "zstd"];
/// Where the files come from: what any Debian host has.
const SOURCES: [&str; 2] = ["/usr/lib", "/usr/share"];
/// One file would be a layer of its own.
const LARGEST: u64 = 8 << 20;

/// Debian's `docker-registry`, which ends with the value.
pub struct Registry {
    process: Child,
    pub address: String,
}

impl Registry {
    pub fn start(directory: &Path) -> Outcome<Self> {
        fs::create_dir_all(directory)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            directory.join("data").display()
        );
        fs::write(directory.join("config.yml"), config)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(directory.join("config.yml")).env("OTEL_TRACES_EXPORTER", "none");
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let registry = Self { process, address };
        let begun = Instant::now();
        while TcpStream::connect(&registry.address).is_err() {
            if begun.elapsed() > Duration::from_secs(20) {
                return Err("docker-registry does not answer within 20 s".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait().map(drop)) {
            eprintln!("docker-registry could not be ended: {error}");
        }
    }
}

/// An image of 200 MB as an OCI layout of umoci's, named `t`; skopeo packs it anew where it is not to be gzip.
pub fn sample(directory: &Path, packing: &str) -> Outcome<PathBuf> {
    let layout = directory.join(format!("layout-{packing}"));
    if packing != PACKINGS[0] {
        let from = sample(directory, PACKINGS[0])?;
        let mut copy = Command::new("skopeo");
        copy.args(["copy", "--quiet", "--insecure-policy", "--dest-compress-format", packing]);
        output(copy.arg(format!("oci:{}:t", from.display())).arg(format!("oci:{}:t", layout.display())))?;
        return Ok(layout);
    }
    if layout.exists() {
        return Ok(layout);
    }
    let mut files = Vec::new();
    SOURCES.iter().try_for_each(|source| walk(Path::new(source), &mut files))?;
    let mut files = files.into_iter();
    let making = directory.join("making");
    output(Command::new("umoci").arg("init").arg("--layout").arg(&making))?;
    let image = format!("{}:t", making.display());
    output(Command::new("umoci").args(["new", "--image", &image]))?;
    for (at, size) in LAYERS.iter().enumerate() {
        let tree = directory.join(format!("tree{at}"));
        fill(&tree, *size, &mut files)?;
        output(Command::new("umoci").args(["insert", "--image", &image]).arg(&tree).arg("/"))?;
        fs::remove_dir_all(&tree)?;
    }
    fs::rename(&making, &layout)?;
    Ok(layout)
}

/// Regular files in the order of their names.
fn walk(directory: &Path, files: &mut Vec<(PathBuf, u64)>) -> Outcome {
    let mut entries: Vec<_> = fs::read_dir(directory)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push((entry.path(), entry.metadata()?.len()));
        }
    }
    Ok(())
}

fn fill(tree: &Path, size: u64, files: &mut impl Iterator<Item = (PathBuf, u64)>) -> Outcome {
    let mut left = size;
    for (file, length) in files.filter(|(_, length)| *length <= LARGEST) {
        if length > left {
            return Ok(());
        }
        left -= length;
        let to = tree.join(file.strip_prefix("/")?);
        fs::create_dir_all(to.parent().unwrap_or(tree))?;
        fs::copy(&file, &to)?;
    }
    Err(format!("{} have not enough files for an image of 200 MB", SOURCES.join(", ")).into())
}

/// Passes connections on to a registry and counts the bytes of both directions.
pub struct Relay {
    pub address: String,
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
}

impl Relay {
    /// Ends with the process.
    pub fn start(to: &str) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let relay = Self { address: listener.local_addr()?.to_string(), up: Arc::default(), down: Arc::default() };
        let (to, up, down) = (to.to_owned(), relay.up.clone(), relay.down.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&to) else { continue };
                let (Ok(from), Ok(back)) = (client.try_clone(), server.try_clone()) else { continue };
                let (up, down) = (up.clone(), down.clone());
                std::thread::spawn(move || pass(from, server, &up));
                std::thread::spawn(move || pass(back, client, &down));
            }
        });
        Ok(relay)
    }

    /// Bytes to the registry and back, heads included, since the last time.
    pub fn counted(&self) -> (f64, f64) {
        (self.up.swap(0, Ordering::Relaxed) as f64, self.down.swap(0, Ordering::Relaxed) as f64)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length) = from.read(&mut buffer)
        && length > 0
    {
        count.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // The other side may have gone already.
    drop(to.shutdown(Shutdown::Write));
}
