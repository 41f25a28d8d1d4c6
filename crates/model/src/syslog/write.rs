//! Writing a line for a collector (RFC 5424).

use jiff::Timestamp;

use super::{Priority, SD_ID};

/// One line. Fields that cannot stand as they are are changed so that they can: the line is always well-formed.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// Who and how important.
    pub priority: Priority,
    /// When, as [`time`] writes it.
    pub time: &'a str,
    /// The server.
    pub host: &'a str,
    /// The service, or what the sender calls itself.
    pub app: &'a str,
    /// The process.
    pub pid: &'a str,
    /// The kind of message.
    pub id: &'a str,
    /// What Kiln says of it.
    pub own: &'a [(&'a str, &'a str)],
    /// What the sender says of it: elements of [`super::Message::data`].
    pub data: &'a str,
    /// The text. Control characters but the tab are written `#ooo`, octal, as rsyslog does.
    pub text: &'a [u8],
}

impl Line<'_> {
    /// Appends the line, without anything that separates it from the next.
    pub fn write(&self, to: &mut Vec<u8>) {
        to.push(b'<');
        to.extend_from_slice(self.priority.number().to_string().as_bytes());
        to.extend_from_slice(b">1 ");
        to.extend_from_slice(self.time.as_bytes());
        for (text, longest) in [(self.host, 255), (self.app, 48), (self.pid, 128), (self.id, 32)] {
            to.push(b' ');
            field(to, text, longest);
        }
        to.extend_from_slice(b" [");
        to.extend_from_slice(SD_ID.as_bytes());
        for (name, value) in self.own {
            parameter(to, name, value);
        }
        to.push(b']');
        to.extend_from_slice(self.data.as_bytes());
        to.push(b' ');
        text(to, self.text);
    }
}

fn field(to: &mut Vec<u8>, text: &str, longest: usize) {
    match text.is_empty() {
        true => to.push(b'-'),
        false => to.extend(text.bytes().take(longest).map(|byte| if byte.is_ascii_graphic() { byte } else { b'_' })),
    }
}

fn parameter(to: &mut Vec<u8>, name: &str, value: &str) {
    to.push(b' ');
    to.extend_from_slice(name.as_bytes());
    to.extend_from_slice(b"=\"");
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' | b']' => to.extend_from_slice(&[b'\\', byte]),
            _ if byte.is_ascii_control() => to.push(b'_'),
            _ => to.push(byte),
        }
    }
    to.push(b'"');
}

fn text(to: &mut Vec<u8>, mut bytes: &[u8]) {
    let bad = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    while let Some(at) = bytes.iter().position(bad) {
        to.extend_from_slice(&bytes[..at]);
        let byte = bytes[at];
        to.extend_from_slice(&[b'#', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)]);
        bytes = &bytes[at + 1..];
    }
    to.extend_from_slice(bytes);
}

/// Nanoseconds of Unix time as a line has them: UTC, with microseconds.
pub fn time(nanos: u64) -> String {
    let micros = i64::try_from(nanos / 1000).unwrap_or(i64::MAX);
    let time = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.6}")
}
