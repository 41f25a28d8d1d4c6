//! Log messages as syslog has them.
//!
//! Programs inside a server write to `/dev/log` in the form of RFC 3164 (what `syslog(3)` and most programs do) or of RFC 5424;
//! [`parse()`] reads both, whatever the bytes are: what is no header is text. [`Line`] is what leaves the host: always RFC 5424.
//!
//! Nothing that a sender says about itself can pass for what Kiln says: the structured data of [`SD_ID`] is Kiln's own, and
//! control characters never leave as such, so that no line can break a collector's file into two.

mod data;
mod legacy;
mod parse;
mod write;

use std::fmt;

pub use self::{
    parse::parse,
    write::{Line, time},
};

/// The element of structured data that says where a line comes from. 32473 is the enterprise number for examples (RFC 5612).
pub const SD_ID: &str = "kiln@32473";

/// How important a message is (RFC 5424, 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Severity {
    /// The system is unusable.
    Emergency,
    /// Somebody must act at once.
    Alert,
    /// Critical.
    Critical,
    /// An error.
    Error,
    /// A warning.
    Warning,
    /// Normal but significant.
    Notice,
    /// For information.
    Info,
    /// For those who look for faults.
    Debug,
}

impl Severity {
    const ALL: [Self; 8] = [
        Self::Emergency,
        Self::Alert,
        Self::Critical,
        Self::Error,
        Self::Warning,
        Self::Notice,
        Self::Info,
        Self::Debug,
    ];

    /// As `logger -p` writes it.
    pub fn word(self) -> &'static str {
        ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"][self as usize]
    }
}

/// The names of facilities, by number (RFC 5424, 6.2.1).
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// Who wrote a message, and how important it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priority {
    facility: u8,
    /// How important it is.
    pub severity: Severity,
}

impl Priority {
    /// What a message without one has: a user's notice.
    pub const USUAL: Self = Self { facility: 1, severity: Severity::Notice };

    /// A daemon's message.
    pub const fn daemon(severity: Severity) -> Self {
        Self { facility: 3, severity }
    }

    /// From the number in angle brackets, 0 to 191.
    pub fn of(number: u8) -> Option<Self> {
        let severity = Severity::ALL[usize::from(number % 8)];
        (number < 192).then_some(Self { facility: number / 8, severity })
    }

    /// The number in angle brackets.
    pub fn number(self) -> u8 {
        self.facility * 8 + self.severity as u8
    }

    /// The facility's name, as `logger -p` writes it.
    pub fn facility(self) -> &'static str {
        FACILITIES[usize::from(self.facility)]
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.facility(), self.severity.word())
    }
}

/// A message of a sender. When it was written is what PID 1 says; the sender's own time and host are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Who and how important.
    pub priority: Priority,
    /// What the sender calls itself.
    pub tag: Option<&'a str>,
    /// The process that it says it is.
    pub pid: Option<&'a str>,
    /// The kind of message (RFC 5424 only).
    pub id: Option<&'a str>,
    /// Elements of structured data, well-formed and without [`SD_ID`], or nothing.
    pub data: &'a str,
    /// The rest.
    pub text: &'a [u8],
}

/// What the fuzz target calls: whatever is sent becomes one line that is read back with the same fields.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    let message = parse(bytes);
    assert!(message.text.len() <= bytes.len());
    let own = [("group", "web"), ("seq", "1")];
    let line = Line {
        priority: message.priority,
        time: "2026-01-02T03:04:05.000006Z",
        host: "web-1",
        app: message.tag.unwrap_or_default(),
        pid: message.pid.unwrap_or_default(),
        id: message.id.unwrap_or_default(),
        own: &own,
        data: message.data,
        text: message.text,
    };
    let mut written = Vec::new();
    line.write(&mut written);
    assert!(!written.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t'), "no line breaks another");
    let again = parse(&written);
    assert_eq!(again.priority, message.priority);
    assert_eq!(again.data, message.data, "what follows Kiln's own element is the sender's");
    assert!(again.tag.is_none_or(|tag| message.tag.is_some_and(|before| before.len() >= tag.len())));
}

#[cfg(test)]
mod tests;
