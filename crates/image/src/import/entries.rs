//! A tar archive entry by entry: ustar, GNU and pax, with names of any length, extended attributes and sparse files.

use std::io::{self, BufReader, Read};

use tar_core::{
    EntryType, HEADER_SIZE, PaxExtensions,
    parse::{Limits, ParseEvent, ParsedEntry, Parser},
};

use super::{ImportError, Spent, decode::Unpacked, names};
use crate::layer::Meta;

/// All that describes one entry, bytes: names, links and attributes.
const MAX_METADATA: u32 = 1 << 20;
const MAX_PATH: u32 = 4095;
/// Pieces of one sparse file: their list is read anew from its start with each block of it.
const MAX_PIECES: usize = 10_000;
/// What stands before an entry's content, bytes: names, attributes, and the list of pieces, at most 42 bytes each.
const MAX_HEADER: usize = 2 << 20;
/// Reading so many bytes anew costs as much as keeping one.
const READ_ANEW: u64 = 64;
/// Largest time that Kiln's own layers hold, seconds.
const MAX_TIME: u64 = 0o77_777_777_777;
/// Servers map this many ids, so an image can have no other owners.
const IDS: u64 = 65_536;
const PIECE: usize = 256 << 10;

/// An archive on its way.
pub(super) struct Archive<'s, 'm> {
    stream: BufReader<&'s mut Unpacked<'m>>,
    parser: Parser,
    header: Vec<u8>,
    /// Bytes of the current entry's content that nobody has read, and of the padding behind them.
    left: u64,
    padding: usize,
    buffer: Vec<u8>,
}

/// An entry as it is written.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) meta: Meta,
    pub(super) what: What,
    /// Names of attributes that no image of Kiln holds.
    pub(super) dropped: Vec<String>,
}

#[derive(Debug)]
pub(super) enum What {
    Directory,
    File(Data),
    Symlink(Vec<u8>),
    Hardlink(Vec<u8>),
    Fifo,
    Device,
    Other,
}

/// How a file's content is written.
#[derive(Debug)]
pub(super) enum Data {
    /// So many bytes.
    Whole(u64),
    /// Pieces (offset and length) of a file of this size.
    Sparse { pieces: Vec<(u64, u64)>, size: u64 },
}

impl Entry {
    /// Bytes of names, links, attributes and lists.
    fn words(&self) -> u64 {
        let attributes = self.meta.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let what = match &self.what {
            What::Symlink(target) | What::Hardlink(target) => target.len(),
            What::File(Data::Sparse { pieces, .. }) => size_of_val(&pieces[..]),
            _ => 0,
        };
        (self.path.len() + attributes + what) as u64
    }
}

impl<'s, 'm> Archive<'s, 'm> {
    pub(super) fn new(stream: &'s mut Unpacked<'m>) -> Self {
        let limits = Limits {
            max_metadata_size: MAX_METADATA,
            max_path_len: Some(MAX_PATH),
            max_sparse_entries: MAX_PIECES,
            ..Limits::default()
        };
        Self {
            stream: BufReader::with_capacity(PIECE, stream),
            parser: Parser::new(limits),
            header: Vec::new(),
            left: 0,
            padding: 0,
            buffer: vec![0; PIECE],
        }
    }

    /// The next entry, if there is one. What is left of the content of the one before is passed over.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, ImportError> {
        self.content_left()?;
        let mut need = HEADER_SIZE;
        loop {
            if !self.fill(need)? {
                return Ok(None);
            }
            let (consumed, entry) = match self.parser.parse(&self.header).map_err(malformed)? {
                ParseEvent::NeedData { min_bytes } => {
                    // It may ask for no more than it has, where a line of a list has no end yet.
                    need = min_bytes.max(self.header.len() + 1);
                    self.again()?;
                    continue;
                }
                ParseEvent::End { .. } => return Ok(None),
                ParseEvent::GlobalExtensions { consumed, pax_data } => {
                    only_comments(pax_data)?;
                    (consumed, None)
                }
                ParseEvent::Entry { consumed, entry } => {
                    let size = if has_content(entry.entry_type) { entry.size } else { 0 };
                    (consumed, Some((size, read(&entry, Data::Whole(size))?)))
                }
                ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size } => {
                    let pieces = sparse_map.iter().map(|piece| (piece.offset, piece.length)).collect();
                    let data = sparse(&entry, pieces, real_size)?;
                    (consumed, Some((entry.size, read(&entry, data)?)))
                }
            };
            self.header.drain(..consumed);
            need = HEADER_SIZE;
            if let Some((size, entry)) = entry {
                self.begin(size, &entry)?;
                return Ok(Some(entry));
            }
        }
    }

    /// Headers are read anew from their start when there is more of them.
    fn again(&mut self) -> Result<(), ImportError> {
        if self.header.len() > MAX_HEADER {
            return Err(ImportError::Archive("what describes one entry is longer than 2 MiB".into()));
        }
        self.stream.get_mut().meter.words(self.header.len() as u64 / READ_ANEW)
    }

    /// Counts what an entry cost beside its bytes.
    pub(super) fn spent(&mut self, spent: Spent) -> Result<(), ImportError> {
        self.stream.get_mut().meter.spent(spent)
    }

    fn begin(&mut self, size: u64, entry: &Entry) -> Result<(), ImportError> {
        (self.left, self.padding) =
            (size, ((HEADER_SIZE as u64 - size % HEADER_SIZE as u64) % HEADER_SIZE as u64) as usize);
        let meter = &mut self.stream.get_mut().meter;
        meter.file()?;
        meter.words(entry.words())?;
        // Holes are not in the stream, and are bytes all the same.
        match &entry.what {
            What::File(Data::Sparse { size, .. }) => meter.bytes(*size),
            _ => Ok(()),
        }
    }

    /// Reads so many bytes of the current entry's content.
    pub(super) fn content(
        &mut self,
        length: u64,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), ImportError> {
        let mut todo = length;
        while todo > 0 {
            let piece = todo.min(PIECE as u64) as usize;
            let mut buffer = std::mem::take(&mut self.buffer);
            self.exact(&mut buffer[..piece])?;
            let written = sink(&buffer[..piece]).map_err(ImportError::Write);
            self.buffer = buffer;
            written?;
            todo -= piece as u64;
        }
        self.left = self.left.saturating_sub(length);
        Ok(())
    }

    fn content_left(&mut self) -> Result<(), ImportError> {
        self.content(self.left, &mut |_| Ok(()))?;
        let mut block = [0; HEADER_SIZE];
        let mut todo = std::mem::take(&mut self.padding);
        while todo > 0 {
            match self.stream.read(&mut block[..todo]).map_err(ImportError::of_read)? {
                // umoci leaves the padding of the last file away; there is nothing behind it then.
                0 => return Ok(()),
                count => todo -= count,
            }
        }
        Ok(())
    }

    /// Reads headers until there are so many bytes; false if the archive ends here.
    fn fill(&mut self, need: usize) -> Result<bool, ImportError> {
        let mut block = [0; HEADER_SIZE];
        while self.header.len() < need {
            match self.stream.read(&mut block[..1]).map_err(ImportError::of_read)? {
                0 if self.header.is_empty() => return Ok(false),
                0 => return Err(ImportError::Archive("it ends in the middle of an entry".into())),
                _ => {}
            }
            self.exact(&mut block[1..])?;
            self.header.extend_from_slice(&block);
        }
        Ok(true)
    }

    fn exact(&mut self, buffer: &mut [u8]) -> Result<(), ImportError> {
        self.stream.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ImportError::Archive("it ends in the middle of an entry".into()),
            _ => ImportError::of_read(error),
        })
    }
}

/// Links, directories and the like have no content whatever size they claim: umoci writes hard links with the size of
/// their file, and Go's reader, which every container program has, passes over it.
fn has_content(kind: EntryType) -> bool {
    use EntryType::{Block, Char, Directory, Fifo, Link, Symlink};
    !matches!(kind, Link | Symlink | Char | Block | Directory | Fifo)
}

fn malformed(error: tar_core::parse::ParseError) -> ImportError {
    ImportError::Archive(error.to_string().escape_debug().to_string())
}

/// `git archive` writes its commit into a global header; anything else there would change every entry behind it.
fn only_comments(pax: &[u8]) -> Result<(), ImportError> {
    let comments = PaxExtensions::new(pax).all(|record| record.is_ok_and(|record| record.key_bytes() == b"comment"));
    if comments { Ok(()) } else { Err(ImportError::Archive("it has a global header that changes its entries".into())) }
}

fn sparse(entry: &ParsedEntry<'_>, pieces: Vec<(u64, u64)>, size: u64) -> Result<Data, ImportError> {
    let wrong = || names::refused(&entry.path, "the pieces of the sparse file do not fit its size");
    let (mut end, mut stored) = (0_u64, 0_u64);
    for (offset, length) in &pieces {
        if *offset < end {
            return Err(wrong());
        }
        end = offset.checked_add(*length).filter(|end| *end <= size).ok_or_else(wrong)?;
        stored += length;
    }
    if stored != entry.size { Err(wrong()) } else { Ok(Data::Sparse { pieces, size }) }
}

fn read(entry: &ParsedEntry<'_>, data: Data) -> Result<Entry, ImportError> {
    let link = || entry.link_target.as_deref().unwrap_or_default().to_vec();
    let what = match entry.entry_type {
        // Before POSIX a directory was a file whose name ends with `/`.
        EntryType::Regular | EntryType::Continuous if entry.path.ends_with(b"/") => What::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => What::File(data),
        EntryType::Directory => What::Directory,
        EntryType::Symlink => What::Symlink(link()),
        EntryType::Link => What::Hardlink(link()),
        EntryType::Fifo => What::Fifo,
        EntryType::Char | EntryType::Block => What::Device,
        _ => What::Other,
    };
    let (meta, dropped) = meta(entry)?;
    Ok(Entry { path: entry.path.to_vec(), meta, what, dropped })
}

fn meta(entry: &ParsedEntry<'_>) -> Result<(Meta, Vec<String>), ImportError> {
    if entry.uid >= IDS || entry.gid >= IDS {
        let reason =
            "its owner has an id above 65535, which no server has: change the owner in the image that is the base";
        return Err(names::refused(&entry.path, reason));
    }
    let mut meta = Meta {
        mode: entry.mode & 0o7777,
        uid: entry.uid as u32,
        gid: entry.gid as u32,
        mtime: entry.mtime.min(MAX_TIME) as i64,
        ..Meta::default()
    };
    let mut dropped = Vec::new();
    for (name, value) in &entry.xattrs {
        match kept(name, value) {
            Some(value) => drop(meta.xattrs.insert(name.to_vec(), value)),
            None => dropped.push(names::shown(name)),
        }
    }
    Ok((meta, dropped))
}

/// What is kept of an attribute, by the rule of Kiln's own steps: file capabilities and what users wrote. What overlayfs
/// would read as its own is never kept.
fn kept(name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    if user && name.len() <= 255 && value.len() <= 65_536 {
        return Some(value.to_vec());
    }
    (name == b"security.capability" && matches!(value.len(), 12 | 20 | 24))
        .then(|| crate::layer::scan::capability(value.to_vec()))
}
