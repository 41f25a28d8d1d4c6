//! A server's log: two files of frames, written by turns; the one that is written next is emptied first.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use kiln_boot::spool::{MAGIC, Parsed, Stream, parse};

use crate::failure::Failure;

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Counts up in a server.
    pub sequence: u64,
    /// Nanoseconds of Unix time.
    pub nanos: u64,
    /// Where it came from.
    pub stream: Stream,
    /// Which service.
    pub service: String,
    /// What was written.
    pub bytes: Vec<u8>,
}

/// What is new of a server's log.
#[derive(Debug, Default)]
pub(super) struct Spooled {
    /// In order.
    pub lines: Vec<Line>,
    /// Lines that were overwritten between two readings.
    pub lost: u64,
}

/// The log of one server, read as far as it was shown.
#[derive(Debug)]
pub(super) struct Spool {
    files: Vec<(PathBuf, u64)>,
    /// The number that comes next; 0 before the first reading.
    next: u64,
}

impl Spool {
    /// The log in these files.
    pub fn new(files: Vec<String>) -> Self {
        Self { files: files.into_iter().map(|path| (path.into(), 0)).collect(), next: 0 }
    }

    /// What is new, in order. A file that is gone went with its server.
    pub fn read(&mut self) -> Result<Spooled, Failure> {
        let mut found = Vec::new();
        for (path, offset) in &mut self.files {
            match read_file(path, offset, &mut found) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Failure::Read { path: path.clone(), source: error });
                }
                Ok(()) | Err(_) => {}
            }
        }
        found.retain(|line| line.sequence >= self.next);
        found.sort_by_key(|line| line.sequence);
        let mut lost = 0;
        for line in &found {
            // Before the first reading nobody knows what was there.
            lost += if self.next == 0 { 0 } else { line.sequence.saturating_sub(self.next) };
            self.next = line.sequence + kiln_boot::spool::lines(line.stream, &line.bytes);
        }
        Ok(Spooled { lines: found, lost })
    }
}

/// Reads from `offset` on, or from the start where the file was emptied since.
fn read_file(path: &PathBuf, offset: &mut u64, found: &mut Vec<Line>) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() < *offset {
        *offset = 0;
    }
    file.seek(SeekFrom::Start(*offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut rest = &bytes[..];
    if *offset == 0 {
        let Some(frames) = rest.strip_prefix(MAGIC) else { return Ok(()) };
        rest = frames;
    }
    while let Parsed::Frame(frame, size) = parse(rest) {
        let (service, bytes) = (frame.service.to_owned(), frame.bytes.to_vec());
        found.push(Line { sequence: frame.sequence, nanos: frame.nanos, stream: frame.stream, service, bytes });
        rest = &rest[size..];
    }
    *offset += (bytes.len() - rest.len()) as u64;
    Ok(())
}

#[cfg(test)]
mod tests {
    use kiln_boot::spool::Frame;

    use super::*;

    fn frame(sequence: u64, text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let frame = Frame { sequence, nanos: sequence, stream: Stream::Stdout, service: "web", bytes: text.as_bytes() };
        frame.write(&mut bytes);
        bytes
    }

    #[test]
    fn host_what_is_new_is_read_once_also_when_a_file_starts_again() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| temp.path().join(name);
        let write = |name: &str, frames: &[Vec<u8>]| {
            std::fs::write(path(name), [&[MAGIC.to_vec()], frames].concat().concat()).expect("the file is written");
        };
        write("a", &[frame(1, "one"), frame(2, "two")]);
        let mut spool = Spool::new(vec![path("a").display().to_string(), path("b").display().to_string()]);
        let mut texts = || -> Vec<String> {
            let spooled = spool.read().expect("the files are readable");
            assert_eq!(spooled.lost, 0);
            spooled.lines.into_iter().map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect()
        };
        assert_eq!(texts(), ["one", "two"]);
        assert!(texts().is_empty());
        write("b", &[frame(3, "three")]);
        assert_eq!(texts(), ["three"]);
        write("a", &[frame(4, "four")]);
        assert_eq!(texts(), ["four"]);
        let half = frame(5, "five");
        std::fs::write(path("b"), [MAGIC.as_slice(), &frame(3, "three"), &half[..9]].concat()).expect("written");
        assert!(texts().is_empty());
        std::fs::write(path("b"), [MAGIC.as_slice(), &frame(3, "three"), &half].concat()).expect("written");
        assert_eq!(texts(), ["five"]);
    }
}
