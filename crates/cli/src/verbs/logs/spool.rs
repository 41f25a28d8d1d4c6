//! What is new of a server's log.

use std::path::PathBuf;

use kiln_boot::spool::Stream;
use kiln_control::logs::spool::Reader;

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
    path: PathBuf,
    reader: Reader,
}

impl Spool {
    /// The log in these two files; none where a server has no such log.
    pub fn new(files: Vec<String>) -> Option<Self> {
        let files: Vec<PathBuf> = files.into_iter().map(PathBuf::from).collect();
        let files: [PathBuf; 2] = files.try_into().ok()?;
        Some(Self { path: files[0].clone(), reader: Reader::new(files, None) })
    }

    /// What is new, in order. A file that is gone went with its server.
    pub fn read(&mut self) -> Result<Spooled, Failure> {
        let mut new = Spooled::default();
        loop {
            let batch = self.reader.read(|gap, frame| {
                new.lost += gap.map_or(0, |gap| gap.to - gap.from);
                let (service, bytes) = (frame.service.to_owned(), frame.bytes.to_vec());
                let (sequence, nanos, stream) = (frame.sequence, frame.nanos, frame.stream);
                new.lines.push(Line { sequence, nanos, stream, service, bytes });
            });
            match batch {
                Ok(batch) if batch.end => return Ok(new),
                Ok(_) => {}
                Err(source) => return Err(Failure::Read { path: self.path.clone(), source }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_boot::spool::{Frame, MAGIC};

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
        let mut spool =
            Spool::new(vec![path("a").display().to_string(), path("b").display().to_string()]).expect("two files");
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
        std::fs::write(path("b"), [MAGIC.as_slice(), &half[..9]].concat()).expect("written");
        assert!(texts().is_empty());
        std::fs::write(path("b"), [MAGIC.as_slice(), &half].concat()).expect("written");
        assert_eq!(texts(), ["five"]);
    }
}
