//! A line as it leaves: what is known of it, in the fields of RFC 5424.

use kiln_boot::spool::Stream;
use kiln_model::{
    GroupName, ServerId,
    syslog::{self, Priority, Severity},
};

use super::lines::Line;

/// What all lines of a server have in common.
#[derive(Debug)]
pub(super) struct Sender {
    pub group: GroupName,
    pub server: ServerId,
    /// The release, as it is shown everywhere.
    pub release: String,
    /// The time written last: frames have many lines.
    time: (u64, String),
}

impl Sender {
    pub fn new(group: GroupName, server: ServerId, release: String) -> Self {
        Self { group, server, release, time: (0, syslog::time(0)) }
    }

    /// The whole line.
    pub fn message(&mut self, line: &Line<'_>) -> Vec<u8> {
        if self.time.0 != line.nanos {
            self.time = (line.nanos, syslog::time(line.nanos));
        }
        let sent = (line.stream == Stream::Syslog).then(|| syslog::parse(line.bytes));
        let (seq, part) = (line.seq.to_string(), line.part.to_string());
        let own = [
            ("group", self.group.as_str()),
            ("server", self.server.as_str()),
            ("release", self.release.as_str()),
            ("service", line.service),
            ("seq", &seq),
            ("part", &part),
        ];
        // Most lines are whole, and messages are of no service.
        let own: &[_] = if line.part == 0 { &own[..5] } else { &own };
        let (usual, word) = kind(line.stream);
        let message = syslog::Line {
            priority: sent.map_or(usual, |sent| sent.priority),
            time: &self.time.1,
            host: self.server.as_str(),
            app: sent.map_or(line.service, |sent| sent.tag.unwrap_or_default()),
            pid: sent.and_then(|sent| sent.pid).unwrap_or_default(),
            id: sent.map_or(word, |sent| sent.id.unwrap_or_default()),
            own,
            data: sent.map_or("", |sent| sent.data),
            text: sent.map_or(line.bytes, |sent| sent.text),
        };
        let mut written = Vec::with_capacity(line.bytes.len() + 256);
        message.write(&mut written);
        written
    }
}

fn kind(stream: Stream) -> (Priority, &'static str) {
    match stream {
        Stream::Stdout => (Priority::daemon(Severity::Info), "stdout"),
        Stream::Stderr => (Priority::daemon(Severity::Error), "stderr"),
        Stream::Init => (Priority::daemon(Severity::Notice), "init"),
        Stream::Syslog => (Priority::USUAL, ""),
    }
}
