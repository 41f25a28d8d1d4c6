//! What is gone with a server: files in paths that are no volumes, and log lines that nobody else has.
//!
//! Whoever can look into a server says what there is ([`Written`]); whether that is too much to be lost is decided here
//! ([`LossPolicy::excess`]), of each server for itself, so that a limit does not depend on how many servers a group has.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    fleet::LossPolicy,
    manifest::{ImageManifest, WritableKind},
};

/// Memory file systems that every server has although no recipe names them (`plan` of the runtime makes them).
pub const SCRATCH: [&str; 3] = ["/run", "/tmp", "/var/tmp"];

/// What a writable path begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlaceKind {
    /// Nothing.
    Tmpfs,
    /// A copy of the image's directory.
    Ephemeral,
    /// Nothing, and every server has it: what is there is meant to go.
    Scratch,
}

impl PlaceKind {
    /// As it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Ephemeral => "ephemeral",
            Self::Scratch => "scratch",
        }
    }
}

/// A path whose content is gone with its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Absolute.
    pub path: String,
    /// What it begins with.
    pub kind: PlaceKind,
}

/// The paths of an image that its recipe declares and whose content is gone with each server.
pub fn declared(manifest: &ImageManifest) -> Vec<Place> {
    let place = |path: &str, kind| Some(Place { path: path.to_owned(), kind });
    let of = |writable: &crate::manifest::Writable| match writable.kind {
        WritableKind::Tmpfs { .. } => place(&writable.path, PlaceKind::Tmpfs),
        WritableKind::Ephemeral { .. } => place(&writable.path, PlaceKind::Ephemeral),
        _ => None,
    };
    manifest.writable.iter().filter_map(of).collect()
}

/// Those, and the scratch of every server.
pub fn all(manifest: &ImageManifest) -> Vec<Place> {
    let scratch = SCRATCH.map(|path| Place { path: path.to_owned(), kind: PlaceKind::Scratch });
    declared(manifest).into_iter().chain(scratch).collect()
}

/// How far somebody looks. A service decides how many files there are, so looking must end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// So many entries of directories in each place.
    pub entries: u64,
    /// So long in all places of a server together.
    pub time: Duration,
    /// So many of the largest files of each place are named.
    pub largest: usize,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// Its path as the server sees it; what is no text in it is replaced, and one that is very long is cut.
    pub path: String,
    /// Bytes that are there: holes do not count.
    pub bytes: u64,
    /// When it was changed last, milliseconds since 1970. The service can say what it likes here.
    pub changed_ms: i64,
}

/// What was found at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Where.
    pub place: Place,
    /// What its memory holds in all, in bytes: files that are deleted and still open, and copies of the image, included.
    pub held: u64,
    /// Files that the image does not have like that.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the first of them was changed last, milliseconds since 1970.
    pub oldest_ms: Option<i64>,
    /// When the last of them was.
    pub newest_ms: Option<i64>,
    /// The largest of them, the largest first.
    pub largest: Vec<WrittenFile>,
    /// Whether somebody looked at all of it. If not there are at least that many files and bytes.
    pub whole: bool,
}

impl Written {
    /// An empty place.
    pub fn nothing(place: Place, held: u64) -> Self {
        let (oldest_ms, newest_ms, largest) = (None, None, Vec::new());
        Self { place, held, files: 0, bytes: 0, oldest_ms, newest_ms, largest, whole: true }
    }

    /// The bytes that count: where nobody saw everything, all that its memory holds.
    pub fn counted(&self) -> u64 {
        if self.whole { self.bytes } else { self.bytes.max(self.held) }
    }
}

/// What would be gone with one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stake {
    /// What is in its places.
    pub written: Vec<Written>,
    /// Lines that its collector has not acknowledged; none where there is no collector that could.
    pub lines: Option<u64>,
    /// Why it is not known what would be lost, where that is so.
    pub unknown: Option<String>,
}

impl Stake {
    fn counting(&self) -> impl Iterator<Item = &Written> {
        self.written.iter().filter(|written| written.place.kind != PlaceKind::Scratch)
    }
    /// Files in declared places.
    pub fn files(&self) -> u64 {
        self.counting().map(|written| written.files).sum()
    }
    /// Bytes in declared places.
    pub fn bytes(&self) -> u64 {
        self.counting().map(Written::counted).sum()
    }
    /// Whether all of it was seen.
    pub fn whole(&self) -> bool {
        self.counting().all(|written| written.whole)
    }
    /// Whether nothing would be lost.
    pub fn is_nothing(&self) -> bool {
        self.files() == 0 && self.bytes() == 0 && self.lines.unwrap_or(0) == 0 && self.unknown.is_none()
    }
}

/// More than may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Excess {
    /// Files outside volumes.
    Data {
        /// How many.
        files: u64,
        /// Their bytes.
        bytes: u64,
        /// Whether all were seen.
        whole: bool,
    },
    /// Log lines.
    Lines(u64),
    /// Nobody could look.
    Unknown(String),
}

impl LossPolicy {
    /// What of it is more than may be lost; nothing where that may go.
    pub fn excess(&self, stake: &Stake) -> Vec<Excess> {
        let (files, bytes, whole) = (stake.files(), stake.bytes(), stake.whole());
        let data = (bytes > self.data.as_bytes()).then_some(Excess::Data { files, bytes, whole });
        let lines = stake.lines.filter(|lines| *lines > self.logs).map(Excess::Lines);
        [data, lines, stake.unknown.clone().map(Excess::Unknown)].into_iter().flatten().collect()
    }
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data { files, bytes, whole } => {
                let least = if *whole { "" } else { "at least " };
                write!(f, "{least}{} with {} outside volumes", counted(*files, "file"), about(*bytes))
            }
            Self::Lines(lines) => write!(f, "{} that no collector has acknowledged", counted(*lines, "log line")),
            Self::Unknown(why) => write!(f, "what it would lose is not known: {why}"),
        }
    }
}

/// `1 file`, `2 files`.
pub fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A number of bytes for people: `512 B`, `38.0 MiB`.
pub fn about(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = UNITS.iter().find(|(_, size)| bytes >= *size);
    unit.map_or_else(|| format!("{bytes} B"), |(name, size)| format!("{:.1} {name}", bytes as f64 / *size as f64))
}

/// What programs say where a file system is read-only (strerror(3) for EROFS), whatever they say around it.
const READ_ONLY: &str = "read-only file system";
/// A longer path is none of a program's own.
const LONGEST_PATH: usize = 200;

/// The directory of a file that a program says it could not write because nothing can be written there.
pub fn refused_directory(line: &str) -> Option<&str> {
    // Bytes keep their place: only ASCII letters change.
    let said = line.to_ascii_lowercase().find(READ_ONLY)?;
    let (before, after) = (&line[..said], &line[said..]);
    let path = paths(before).last().or_else(|| paths(after).next())?;
    let (directory, name) = path.trim_end_matches('/').rsplit_once('/')?;
    let kernels = ["/proc", "/sys", "/dev"].iter().any(|top| Some(*top) == path.get(..top.len()));
    let good = path.len() <= LONGEST_PATH && !name.is_empty() && directory.starts_with('/') && !kernels;
    good.then_some(directory)
}

/// The absolute paths in a text.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let around = |c: char| c.is_whitespace() || c.is_control() || "\"'`‘’“”()[]{}<>,;:=".contains(c);
    text.split(around).filter(|word| word.starts_with('/') && word.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ByteSize;

    fn written(kind: PlaceKind, files: u64, bytes: u64) -> Written {
        let place = Place { path: "/var/lib/app".to_owned(), kind };
        Written { files, bytes, ..Written::nothing(place, bytes) }
    }

    fn stake(written: Vec<Written>) -> Stake {
        Stake { written, ..Stake::default() }
    }

    #[test]
    fn unit_what_is_more_than_may_be_lost_is_said() {
        let policy = LossPolicy::default();
        assert_eq!(policy, LossPolicy { logs: 0, data: ByteSize::mib(64) });
        let most = stake(vec![written(PlaceKind::Tmpfs, 3, 32 << 20), written(PlaceKind::Ephemeral, 1, 32 << 20)]);
        assert_eq!(policy.excess(&most), []);
        let more =
            stake(vec![written(PlaceKind::Tmpfs, 3, 32 << 20), written(PlaceKind::Ephemeral, 1, (32 << 20) + 1)]);
        assert_eq!(policy.excess(&more), [Excess::Data { files: 4, bytes: (64 << 20) + 1, whole: true }]);
        assert_eq!(policy.excess(&more)[0].to_string(), "4 files with 64.0 MiB outside volumes");
        let scratch = stake(vec![written(PlaceKind::Scratch, 9, 1 << 30)]);
        assert!(policy.excess(&scratch).is_empty() && scratch.is_nothing());
    }

    #[test]
    fn unit_what_nobody_saw_in_full_counts_in_full() {
        let part = Written { held: 65 << 20, whole: false, ..written(PlaceKind::Tmpfs, 10, 1000) };
        let excess = LossPolicy::default().excess(&stake(vec![part]));
        assert_eq!(excess, [Excess::Data { files: 10, bytes: 65 << 20, whole: false }]);
        assert_eq!(excess[0].to_string(), "at least 10 files with 65.0 MiB outside volumes");
        // What is deleted and still open goes by itself where everything was seen.
        let whole = Written { held: 65 << 20, ..written(PlaceKind::Tmpfs, 10, 1000) };
        assert!(LossPolicy::default().excess(&stake(vec![whole])).is_empty());
    }

    #[test]
    fn unit_lines_count_only_where_somebody_could_acknowledge_them() {
        let with = |lines| Stake { lines, ..Stake::default() };
        let policy = LossPolicy { logs: 5, ..LossPolicy::default() };
        assert!(policy.excess(&with(None)).is_empty() && policy.excess(&with(Some(5))).is_empty());
        assert_eq!(policy.excess(&with(Some(6))), [Excess::Lines(6)]);
        assert!(with(Some(0)).is_nothing() && !with(Some(1)).is_nothing());
        let unknown = Stake { unknown: Some("it does not answer".to_owned()), ..Stake::default() };
        assert_eq!(policy.excess(&unknown), [Excess::Unknown("it does not answer".to_owned())]);
    }

    #[test]
    fn unit_the_directory_that_could_not_be_written_is_found_in_what_programs_say() {
        let said = [
            ("mkdir() \"/var/lib/nginx/body\" failed (30: Read-only file system)", Some("/var/lib/nginx")),
            ("/bin/sh: can't create /etc/app/x: Read-only file system", Some("/etc/app")),
            ("OSError: [Errno 30] Read-only file system: '/srv/data/one'", Some("/srv/data")),
            ("open /var/cache/app/db: read-only file system", Some("/var/cache/app")),
            ("touch: cannot touch ‘/opt/app/log/é’: Read-only file system", Some("/opt/app/log")),
            ("mkdir: can't create directory '/srv/data/': Read-only file system", Some("/srv")),
            ("Read-only file system", None),
            ("could not write /proc/sys/vm/x: Read-only file system", None),
            ("could not write /file: Read-only file system", None),
            ("could not write /a/b: Permission denied", None),
            ("İ /a/b: Read-only file system", Some("/a")),
        ];
        for (line, directory) in said {
            assert_eq!(refused_directory(line), directory, "{line}");
        }
        assert_eq!(refused_directory(&format!("/{}/x: Read-only file system", "a".repeat(300))), None);
    }

    #[test]
    fn unit_sizes_are_told_with_one_digit() {
        let told = [0, 1023, 1024, 1536, 38 << 20, u64::MAX].map(about);
        assert_eq!(told, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "38.0 MiB", "16777216.0 TiB"]);
    }
}
