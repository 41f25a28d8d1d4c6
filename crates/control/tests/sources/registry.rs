//! Registries in the foreground, killed by pid; they die with the test.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kiln_model::config::{ConfigSource, Login, Password, Registry, RegistryTls};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A program that is to die with the test.
pub struct Running {
    child: Option<Child>,
    command: Vec<String>,
    log: PathBuf,
    port: u16,
}

impl Running {
    fn new(command: Vec<String>, log: PathBuf, port: u16) -> Self {
        let mut running = Self { child: None, command, log, port };
        running.start();
        running
    }

    /// Starts it and waits until it accepts connections.
    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .args(&self.command)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < end, "{ended:?} {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn ran(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A server of ZooKeeper.
pub struct ZooKeeper {
    pub process: Running,
    pub directory: TempDir,
    pub port: u16,
    pub secure_port: u16,
}

impl ZooKeeper {
    pub fn new() -> Self {
        Self::with_connections(0)
    }

    /// One that takes so many connections from a host, 0 for any number; 60 is usual.
    pub fn with_connections(limit: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (port, secure_port) = (free_port(), free_port());
        let config = directory.path().join("zoo.cfg");
        let text = format!(
            "tickTime=100\ndataDir={0}/data\nclientPort={port}\nclientPortAddress=127.0.0.1\nmaxClientCnxns={limit}\n\
             admin.enableServer=false\n",
            directory.path().display()
        );
        fs::write(&config, text).unwrap();
        let process = Running::new(java(&config), directory.path().join("log"), port);
        Self { process, directory, port, secure_port }
    }

    /// One that speaks TLS as well, with the certificate `server` in its directory.
    pub fn with_tls() -> Self {
        let directory = tempfile::tempdir().unwrap();
        super::certificates::make(directory.path(), "server");
        let (port, secure_port) = (free_port(), free_port());
        let config = directory.path().join("zoo.cfg");
        let at = directory.path().display();
        let text = format!(
            "tickTime=100\ndataDir={at}/data\nclientPort={port}\nclientPortAddress=127.0.0.1\nmaxClientCnxns=0\n\
             admin.enableServer=false\nsecureClientPort={secure_port}\nsecureClientPortAddress=127.0.0.1\n\
             serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\nssl.clientAuth=none\n\
             ssl.keyStore.location={at}/server.p12\nssl.keyStore.password=changeit\n"
        );
        fs::write(&config, text).unwrap();
        let process = Running::new(java(&config), directory.path().join("log"), port);
        Self { process, directory, port, secure_port }
    }

    /// Runs statements of kazoo: `zk` is a connected client.
    pub fn kazoo(&self, statements: &str) {
        let script = format!(
            "from kazoo.client import KazooClient\nfrom kazoo.security import make_acl, make_digest_acl\n\
             zk = KazooClient(hosts='127.0.0.1:{}')\nzk.start(timeout=30)\n{statements}\nzk.stop()\n",
            self.port
        );
        ran(Command::new("/usr/bin/python3").args(["-c", &script]));
    }

    pub fn source(&self, path: &str) -> ConfigSource {
        ConfigSource::Zookeeper(self.registry(path))
    }

    pub fn registry(&self, path: &str) -> Registry {
        Registry::open(format!("127.0.0.1:{}{path}", self.port).parse().unwrap())
    }
}

fn java(config: &Path) -> Vec<String> {
    let classes =
        format!("{}:/usr/share/java/zookeeper.jar:/usr/share/java/netty-codec.jar", config.parent().unwrap().display());
    let main = "org.apache.zookeeper.server.ZooKeeperServerMain";
    let words = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-Djute.maxbuffer=8388608", "-cp", &classes, main];
    words.map(str::to_owned).into_iter().chain([config.display().to_string()]).collect()
}

/// A server of etcd.
pub struct Etcd {
    pub process: Running,
    pub directory: TempDir,
    pub port: u16,
    secure: bool,
}

impl Etcd {
    pub fn new() -> Self {
        Self::with(tempfile::tempdir().unwrap(), &[], false)
    }

    /// One that speaks only TLS, with the certificate `server` in its directory, and believes clients of the same authority.
    pub fn with_tls() -> Self {
        let directory = tempfile::tempdir().unwrap();
        super::certificates::make(directory.path(), "server");
        let at = |name: &str| directory.path().join(name).display().to_string();
        let more = [
            format!("--cert-file={}", at("server.pem")),
            format!("--key-file={}", at("server.key")),
            format!("--trusted-ca-file={}", at("server-ca.pem")),
            "--client-cert-auth".to_owned(),
        ];
        Self::with(directory, &more, true)
    }

    fn with(directory: TempDir, more: &[String], secure: bool) -> Self {
        let (port, peer) = (free_port(), free_port());
        let scheme = if secure { "https" } else { "http" };
        let fixed = [
            "etcd".to_owned(),
            format!("--data-dir={}", directory.path().join("data").display()),
            format!("--listen-client-urls={scheme}://127.0.0.1:{port}"),
            format!("--advertise-client-urls={scheme}://127.0.0.1:{port}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
            "--max-request-bytes=8388608".to_owned(),
        ];
        let command = fixed.into_iter().chain(more.iter().cloned()).collect();
        let process = Running::new(command, directory.path().join("log"), port);
        Self { process, directory, port, secure }
    }

    /// Runs etcdctl.
    pub fn control(&self, arguments: &[&str]) {
        ran(&mut self.command(arguments));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let scheme = if self.secure { "https" } else { "http" };
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={scheme}://127.0.0.1:{}", self.port));
        if self.secure {
            let at = |name: &str| self.directory.path().join(name);
            command.arg("--cacert").arg(at("server-ca.pem")).arg("--cert").arg(at("server.pem"));
            command.arg("--key").arg(at("server.key"));
        }
        command.args(arguments);
        command
    }

    /// Puts the content of a file.
    pub fn put_file(&self, key: &str, content: &[u8]) {
        let path = self.directory.path().join("put");
        fs::write(&path, content).unwrap();
        let mut command = self.command(&["put", key]);
        let status = command.stdin(File::open(&path).unwrap()).stdout(Stdio::null()).status().unwrap();
        assert!(status.success());
    }

    pub fn source(&self, key: &str) -> ConfigSource {
        ConfigSource::Etcd(self.registry(key))
    }

    pub fn registry(&self, key: &str) -> Registry {
        Registry::open(format!("127.0.0.1:{}{key}", self.port).parse().unwrap())
    }
}

pub fn login(user: &str, password: &str) -> Option<Login> {
    Some(Login { user: user.to_owned(), password: Password::Text(password.to_owned()) })
}

pub fn tls(ca: &str) -> Option<RegistryTls> {
    Some(RegistryTls { ca: Some(ca.to_owned()), identity: None })
}
