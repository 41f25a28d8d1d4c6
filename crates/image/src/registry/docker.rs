//! Debian's `docker-registry` on loopback, for tests.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A registry that ends with the value.
pub(crate) struct DockerRegistry {
    process: Child,
    pub(crate) address: String,
    _directory: tempfile::TempDir,
}

/// Further lines of its configuration.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    /// `user:password` pairs as `htpasswd -B` writes them.
    pub(crate) htpasswd: Option<&'a str>,
    /// Certificate and key.
    pub(crate) tls: Option<(&'a Path, &'a Path)>,
}

impl DockerRegistry {
    pub(crate) fn start() -> Self {
        Self::with(Wanted::default())
    }

    pub(crate) fn with(wanted: Wanted<'_>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        // Another process may take the port before the registry does.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
            let address = format!("127.0.0.1:{port}");
            let mut process = run(directory.path(), &address, wanted);
            if answers(&mut process, &address) {
                return Self { process, address, _directory: directory };
            }
            end(&mut process);
        }
        panic!("docker-registry does not start: {}", log(directory.path()));
    }
}

fn log(directory: &Path) -> String {
    fs::read_to_string(directory.join("log")).unwrap_or_default()
}

fn run(directory: &Path, address: &str, wanted: Wanted<'_>) -> Child {
    let mut config = format!(
        "version: 0.1\nlog:\n  level: info\n  accesslog:\n    disabled: false\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n",
        directory.join("data").display()
    );
    if let Some((certificate, key)) = wanted.tls {
        config += &format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display());
    }
    if let Some(users) = wanted.htpasswd {
        fs::write(directory.join("users"), users).expect("written");
        config += &format!("auth:\n  htpasswd:\n    realm: kiln\n    path: {}\n", directory.join("users").display());
    }
    fs::write(directory.join("config.yml"), config).expect("written");
    let log = fs::File::create(directory.join("log")).expect("a log");
    Command::new("docker-registry")
        .arg("serve")
        .arg(directory.join("config.yml"))
        .env("OTEL_TRACES_EXPORTER", "none")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("docker-registry is there: `cargo xtask` says which package has it")
}

fn answers(process: &mut Child, address: &str) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        if TcpStream::connect(address).is_ok() {
            return true;
        }
        if process.try_wait().is_ok_and(|ended| ended.is_some()) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn end(process: &mut Child) {
    if process.kill().is_ok() {
        drop(process.wait());
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// Runs a program to its good end and returns what it printed.
pub(crate) fn tool(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let done = done.unwrap_or_else(|e| panic!("{program}: {e}"));
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{program} {arguments:?}: {out}{err}");
    out.into_owned()
}
