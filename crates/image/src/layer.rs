//! Layers: what one step changed, as a deterministic tar archive.
//!
//! A [`Layer`] is a sorted list of entries. It comes from an overlay's upper directory ([`scan`]) or is made in memory
//! (`copy`, `remove`), is written to the store as an OCI layer ([`write`], [`tar`]) and put over the parent's tree
//! ([`apply`]). The same entries always give the same bytes: sorted by path, whole-second times clamped to
//! `SOURCE_DATE_EPOCH`, numeric owners, pax records only where a plain header cannot hold a value.

pub(crate) mod apply;
pub(crate) mod noise;
pub(crate) mod scan;
mod tar;
pub(crate) mod write;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf};

/// Changing how layers are made changes this number, which is part of every step's key.
pub(crate) const FORMAT: u32 = 1;

/// What one step changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layer {
    entries: Vec<Entry>,
}

/// One path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Without a leading `/`; never empty, never with `.` or `..`.
    pub(crate) path: Vec<u8>,
    pub(crate) meta: Meta,
    pub(crate) kind: Kind,
}

/// Everything of an inode that is kept beside its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Permission bits, 0 to 07777.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) mtime: i64,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory {
        /// What the parent's directory held is gone.
        opaque: bool,
    },
    File(Content),
    Symlink(Vec<u8>),
    /// The same inode as this path of the same layer, which sorts before.
    Hardlink(Vec<u8>),
    Fifo,
    /// What the parent held here is gone.
    Whiteout,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Bytes(Vec<u8>),
    /// A file of the host, which may be moved into the store if `take` is set.
    Path {
        path: PathBuf,
        size: u64,
        take: bool,
    },
}

impl Content {
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Path { size, .. } => *size,
        }
    }
}

impl Layer {
    /// Sorts the entries: parents before what they hold. Of two entries for one path the later one counts.
    pub(crate) fn new(mut entries: Vec<Entry>) -> Self {
        entries.reverse();
        entries.sort_by(|a, b| order(&a.path, &b.path));
        entries.dedup_by(|a, b| a.path == b.path);
        Self { entries }
    }
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// Paths by their components, so that `a/b` comes right after `a` and before `a-b`.
pub(crate) fn order(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}

/// The directory part of a path; empty for a path in the root.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|b| *b == b'/').map_or(&[], |at| &path[..at])
}

/// The last part of a path.
pub(crate) fn name(path: &[u8]) -> &[u8] {
    path.iter().rposition(|b| *b == b'/').map_or(path, |at| &path[at + 1..])
}
