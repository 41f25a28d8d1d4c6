//! Following the two files of a server's spool ([`kiln_boot::spool`]) from outside, while PID 1 writes them.
//!
//! Frames are given in the order of their numbers, each once. Where numbers are missing, the writer was faster than the reader and
//! has emptied what was not read: that is a gap, and it is told. Nothing here trusts a file: what is no frame is waited on
//! or passed over, and a frame counts only if its number is the next.

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use kiln_boot::spool::{Frame, MAGIC, MAX_PAYLOAD, Parsed, parse};

/// Bytes read at once; longer than any frame.
const PIECE: usize = 2 * MAX_PAYLOAD;
/// Files are looked for so often in one reading: the writer may be faster once, not always.
const ROUNDS: usize = 4;

/// Lines that are gone: from this number to before that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first that is gone.
    pub from: u64,
    /// The first that is there again.
    pub to: u64,
}

/// What a reading gave, beside frames.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// What is gone before the frames.
    pub gap: Option<Gap>,
    /// Whether that was all for now.
    pub end: bool,
}

/// Where a reader is.
#[derive(Debug)]
pub struct Reader {
    paths: [PathBuf; 2],
    at: Option<At>,
    /// The number of the next frame; none before the first.
    next: Option<u64>,
    buffer: Vec<u8>,
}

/// No open file: hundreds of servers may be followed.
#[derive(Debug, Clone, Copy)]
struct At {
    which: usize,
    offset: u64,
}

impl Reader {
    /// From a number on, or from whatever is there first.
    pub fn new(paths: [PathBuf; 2], next: Option<u64>) -> Self {
        Self { paths, at: None, next, buffer: Vec::new() }
    }

    /// The number of the next frame.
    pub fn next(&self) -> Option<u64> {
        self.next
    }

    /// Gives the frames that come next, some at a time. A gap comes before them.
    pub fn read(&mut self, give: impl FnMut(Option<Gap>, &Frame<'_>)) -> std::io::Result<Batch> {
        let batch = self.read_on(give);
        if batch.as_ref().is_ok_and(|batch| batch.end) {
            self.buffer = Vec::new();
        }
        batch
    }

    fn read_on(&mut self, mut give: impl FnMut(Option<Gap>, &Frame<'_>)) -> std::io::Result<Batch> {
        let mut batch = Batch::default();
        for _ in 0..ROUNDS {
            if self.at.is_none() {
                let before = self.next;
                if !self.locate()? {
                    return Ok(Batch { end: true, ..batch });
                }
                let gap = before.zip(self.next).filter(|(from, to)| from < to).map(|(from, to)| Gap { from, to });
                batch.gap = batch.gap.or(gap);
            }
            if self.piece(batch.gap, &mut give)? {
                return Ok(batch);
            }
            if !self.goes_on_elsewhere()? {
                return Ok(Batch { end: true, ..batch });
            }
        }
        Ok(Batch { end: true, ..batch })
    }

    /// Whether there was a frame.
    fn piece(&mut self, gap: Option<Gap>, give: &mut impl FnMut(Option<Gap>, &Frame<'_>)) -> std::io::Result<bool> {
        let (Some(at), Some(next)) = (&mut self.at, &mut self.next) else { return Ok(false) };
        let Some(file) = open(&self.paths[at.which])? else { return Ok(false) };
        self.buffer.resize(PIECE, 0);
        let read = file.read_at(&mut self.buffer, at.offset)?;
        let (mut rest, mut any) = (&self.buffer[..read], false);
        while let Parsed::Frame(frame, size) = parse(rest) {
            if frame.sequence != *next {
                break;
            }
            give(if any { None } else { gap }, &frame);
            any = true;
            *next += frame.lines();
            at.offset += size as u64;
            rest = &rest[size..];
        }
        Ok(any)
    }

    /// After nothing was found where the reader is: whether it is worth looking for another place.
    fn goes_on_elsewhere(&mut self) -> std::io::Result<bool> {
        let (Some(at), Some(next)) = (self.at, self.next) else { return Ok(false) };
        let Some(file) = open(&self.paths[at.which])? else { return Ok(false) };
        let length = file.metadata()?.len();
        let other = first(&self.paths[1 - at.which])?;
        let emptied = length < at.offset;
        // What stands here and is not the next frame: the file was emptied and has grown again, or was damaged.
        let strange = length > at.offset && {
            let read = file.read_at(&mut self.buffer, at.offset)?;
            match parse(&self.buffer[..read]) {
                Parsed::Frame(..) => true,
                Parsed::Damaged => {
                    other.is_some_and(|first| first >= next) || first(&self.paths[at.which])? > Some(next)
                }
                Parsed::Partial => false,
            }
        };
        let elsewhere = emptied || strange || other.is_some_and(|first| first >= next);
        if elsewhere {
            self.at = None;
        }
        Ok(elsewhere)
    }

    /// Finds the next frame, or the first one after it. False if there is none yet.
    fn locate(&mut self) -> std::io::Result<bool> {
        let mut files = Vec::new();
        for which in 0..2 {
            files.extend(first(&self.paths[which])?.map(|first| (first, which)));
        }
        files.sort_unstable();
        let Some((oldest, _)) = files.first().copied() else { return Ok(false) };
        let next = self.next.unwrap_or(oldest);
        for (index, (_, which)) in files.iter().enumerate() {
            // The next file begins with what is wanted or before: this one has nothing for us.
            if files.get(index + 1).is_some_and(|(later, _)| *later <= next) {
                continue;
            }
            if self.scan(*which, next)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks through a file for a frame with this number or a greater one. At the end of the newest it waits.
    fn scan(&mut self, which: usize, next: u64) -> std::io::Result<bool> {
        let Some(mut file) = open(&self.paths[which])? else { return Ok(false) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let Some(mut rest) = bytes.strip_prefix(MAGIC) else { return Ok(false) };
        while let Parsed::Frame(frame, size) = parse(rest) {
            if frame.sequence >= next {
                self.next = Some(frame.sequence);
                let offset = (bytes.len() - rest.len()) as u64;
                self.at = Some(At { which, offset });
                return Ok(true);
            }
            rest = &rest[size..];
        }
        if first(&self.paths[1 - which])?.is_none_or(|other| other < next) {
            let offset = (bytes.len() - rest.len()) as u64;
            self.next = Some(next);
            self.at = Some(At { which, offset });
        }
        Ok(false)
    }
}

/// The number of a file's first frame; none if it has none (yet).
fn first(path: &Path) -> std::io::Result<Option<u64>> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut head = [0; 20];
    let read = file.read_at(&mut head, 0)?;
    let sequence = head.last_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    Ok(sequence.filter(|_| read == head.len() && head.starts_with(MAGIC)))
}

/// None where there is no such file (any more).
fn open(path: &Path) -> std::io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests;
