//! Real collectors on loopback, with directories and ports of their own. Shared with the tests of the whole daemon.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use kiln_model::fleet::{LogsPolicy, Transport};
use tempfile::TempDir;
use tokio::time::Instant;

pub const RSYSLOG: &str = "/usr/sbin/rsyslogd";

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Rsyslog,
    SyslogNg,
}

/// One collector's process. What it gets is a line in its file: fields of the header, structured data and text.
pub struct Collector {
    directory: TempDir,
    child: Option<Child>,
    program: Program,
    pub transport: Transport,
    pub port: u16,
}

/// What a collector wrote down of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub host: String,
    pub app: String,
    pub pid: String,
    pub id: String,
    pub priority: String,
    pub data: BTreeMap<String, String>,
    pub text: Vec<u8>,
}

impl Line {
    pub fn seq(&self) -> u64 {
        self.data["seq"].parse().unwrap()
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Collector {
    /// Not started yet.
    pub fn new(program: Program, transport: Transport) -> Self {
        let directory = tempfile::tempdir().unwrap();
        if transport == Transport::Tls {
            certificates::make(directory.path(), "logs");
        }
        Self { directory, child: None, program, transport, port: free_port() }
    }

    pub async fn started(program: Program, transport: Transport) -> Self {
        let mut collector = Self::new(program, transport);
        collector.start().await;
        collector
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub async fn start(&mut self) {
        let output = || fs::OpenOptions::new().create(true).append(true).open(self.path("output")).unwrap();
        let mut command = match self.program {
            Program::Rsyslog => self.rsyslog(),
            Program::SyslogNg => self.syslog_ng(),
        };
        let child = command.stdin(Stdio::null()).stdout(output()).stderr(output()).spawn();
        self.child = Some(child.unwrap());
        let begun = Instant::now();
        while !self.listens() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{}", fs::read_to_string(self.path("output")).unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn listens(&self) -> bool {
        let wanted = format!("0100007F:{:04X}", self.port);
        let table = if self.transport == Transport::Udp { "/proc/net/udp" } else { "/proc/net/tcp" };
        fs::read_to_string(table).unwrap().lines().any(|line| line.split_whitespace().nth(1) == Some(wanted.as_str()))
    }

    fn rsyslog(&self) -> Command {
        let (directory, port) = (self.directory.path().display(), self.port);
        let tls = format!(
            "global(defaultNetstreamDriver=\"ossl\" defaultNetstreamDriverCAFile=\"{directory}/logs-ca.pem\" \
             defaultNetstreamDriverCertFile=\"{directory}/logs.pem\" defaultNetstreamDriverKeyFile=\"{directory}/logs.key\")\n\
             module(load=\"imtcp\" streamDriver.name=\"ossl\" streamDriver.mode=\"1\" streamDriver.authMode=\"x509/certvalid\")\n"
        );
        let module = match self.transport {
            Transport::Udp => "module(load=\"imudp\")\n",
            Transport::Tcp => "module(load=\"imtcp\")\n",
            Transport::Tls => &tls,
            Transport::Relp => "module(load=\"imrelp\")\n",
        };
        let input = match self.transport {
            Transport::Udp => "imudp",
            Transport::Tcp | Transport::Tls => "imtcp",
            Transport::Relp => "imrelp",
        };
        // What is acknowledged is in the file: no queue in memory, nothing buffered.
        let text = format!(
            "global(workDirectory=\"{directory}\" maxMessageSize=\"64k\" net.enableDNS=\"off\")\nmain_queue(queue.type=\"Direct\")\n\
             {module}input(type=\"{input}\" address=\"127.0.0.1\" port=\"{port}\")\n\
             template(name=\"line\" type=\"string\" string=\"%hostname%|%app-name%|%procid%|%msgid%|%syslogfacility-text%.%syslogseverity-text%|%structured-data%|%msg%\\n\")\n\
             action(type=\"omfile\" file=\"{directory}/lines\" template=\"line\" asyncWriting=\"off\" flushOnTXEnd=\"on\")\n"
        );
        fs::write(self.path("rsyslog.conf"), text).unwrap();
        let mut command = Command::new(RSYSLOG);
        command.args(["-n", "-iNONE", "-f"]).arg(self.path("rsyslog.conf"));
        command
    }

    fn syslog_ng(&self) -> Command {
        let (directory, port) = (self.directory.path().display(), self.port);
        let source = match self.transport {
            Transport::Udp => format!("syslog(ip(127.0.0.1) transport(\"udp\") port({port}))"),
            Transport::Tls => format!(
                "syslog(ip(127.0.0.1) transport(\"tls\") port({port}) tls(key-file(\"{directory}/logs.key\") \
                 cert-file(\"{directory}/logs.pem\") ca-file(\"{directory}/logs-ca.pem\") peer-verify(required-trusted)))"
            ),
            _ => format!("syslog(ip(127.0.0.1) transport(\"tcp\") port({port}))"),
        };
        let text = format!(
            "@version: current\noptions {{ keep-hostname(yes); flush-lines(1); log-msg-size(65536); }};\nsource s {{ {source}; }};\n\
             destination d {{ file(\"{directory}/lines\" template(\"$HOST|$PROGRAM|$PID|$MSGID|$FACILITY.$PRIORITY|$SDATA|$MSG\\n\")); }};\n\
             log {{ source(s); destination(d); }};\n"
        );
        fs::write(self.path("syslog-ng.conf"), text).unwrap();
        let tree = syslog_ng_tree();
        let library = tree.join("usr/lib/syslog-ng");
        let modules = library.join("3.38");
        let mut command = Command::new(tree.join("usr/sbin/syslog-ng"));
        command.env("LD_LIBRARY_PATH", format!("{}:{}", tree.join("usr/lib").display(), library.display()));
        command.arg("--foreground").arg("--cfgfile").arg(self.path("syslog-ng.conf"));
        command.arg(format!("--module-path={}", modules.display()));
        for (option, name) in [("persist-file", "persist"), ("pidfile", "pid"), ("control", "control")] {
            command.arg(format!("--{option}={}", self.path(name).display()));
        }
        command.arg("--no-caps");
        command
    }

    /// `kill -9`
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(self.child.as_ref().unwrap())
    }

    pub fn policy(&self) -> LogsPolicy {
        let scheme = match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Relp => "relp",
        };
        let mut policy = LogsPolicy::new(format!("{scheme}://127.0.0.1:{}", self.port).parse().unwrap());
        if self.transport == Transport::Tls {
            let file = |name: &str| self.path(name).display().to_string();
            policy.tls.ca = Some(file("logs-ca.pem"));
            policy.tls.identity = Some((file("logs.pem"), file("logs.key")));
        }
        policy
    }

    /// What it has so far.
    pub fn lines(&self) -> Vec<Line> {
        let bytes = fs::read(self.path("lines")).unwrap_or_default();
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(line).collect()
    }

    /// How many lines that are.
    pub fn count(&self) -> usize {
        fs::read(self.path("lines")).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count()
    }

    /// What it has once that is so much, or after a while.
    pub async fn have(&self, count: usize) -> Vec<Line> {
        let begun = Instant::now();
        loop {
            let lines = self.lines();
            if lines.len() >= count || begun.elapsed() > Duration::from_secs(30) {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where `cargo xtask` unpacks syslog-ng, which cannot be installed beside rsyslog.
fn syslog_ng_tree() -> PathBuf {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/syslog-ng");
    assert!(tree.exists(), "{} is missing: `cargo xtask test` fetches it", tree.display());
    tree.canonicalize().unwrap()
}

fn line(bytes: &[u8]) -> Line {
    let mut fields = bytes.splitn(7, |byte| *byte == b'|');
    let mut field = || String::from_utf8_lossy(fields.next().unwrap()).into_owned();
    let (host, app, pid, id, priority, data) = (field(), field(), field(), field(), field(), field());
    let own = data.split("[kiln@32473 ").nth(1).unwrap_or_else(|| panic!("{data}")).split(']').next().unwrap();
    let parameter =
        |text: &str| text.split_once('=').map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()));
    let data = own.split(' ').filter_map(parameter).collect();
    Line { host, app, pid, id, priority, data, text: fields.next().unwrap().to_vec() }
}

#[path = "../../../tests/sources/certificates.rs"]
#[allow(clippy::duplicate_mod, reason = "test binaries share it")]
mod certificates;
