//! What is new of a server's log.

use std::{fs::File, os::fd::AsRawFd as _, path::PathBuf};

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
    /// Open, so that the last lines of a server can be read when its files are gone.
    _files: Vec<File>,
    reader: Reader,
    /// Whether its server is gone: nothing comes after what is there.
    pub ended: bool,
}

impl Spool {
    /// The log in these two files; none where a server has no such log.
    pub fn new(files: Vec<String>) -> Option<Self> {
        let files: [PathBuf; 2] = files.into_iter().map(PathBuf::from).collect::<Vec<_>>().try_into().ok()?;
        let path = files[0].clone();
        let mut open = Vec::new();
        let files = files.map(|path| match File::open(&path) {
            Ok(file) => {
                let held = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
                open.push(file);
                held
            }
            // The second file begins when the first is full.
            Err(_) => path,
        });
        Some(Self { path, _files: open, reader: Reader::new(files, None), ended: false })
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

    #[test]
    fn host_the_last_lines_of_a_server_are_read_although_its_files_are_gone() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let (a, b) = (temp.path().join("a"), temp.path().join("b"));
        std::fs::write(&a, [MAGIC.to_vec(), frame(1, "one")].concat()).expect("written");
        let mut spool = Spool::new([&a, &b].map(|path| path.display().to_string()).to_vec()).expect("two files");
        assert_eq!(spool.read().expect("readable").lines.len(), 1);
        let mut writer = File::options().append(true).open(&a).expect("the writer's file");
        std::io::Write::write_all(&mut writer, &frame(2, "the last")).expect("written");
        std::fs::remove_file(&a).expect("removed");
        let lines = spool.read().expect("readable").lines;
        assert_eq!(lines.iter().map(|line| line.bytes.as_slice()).collect::<Vec<_>>(), [b"the last"]);
    }
}
