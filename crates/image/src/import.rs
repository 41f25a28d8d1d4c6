//! Layers that somebody else wrote, brought into Kiln's own form.
//!
//! The bytes of a layer are bounded and hashed while they stream ([`decode`]), read as a tar archive ([`entries`]) and
//! put together, over the tree below, into a [`Layer`] ([`fold`]): the same form that Kiln's own steps have. Nothing of a
//! layer is ever written under a name that the layer chose: contents go to numbered files of a work directory, names
//! and links stay in memory. So `..`, symbolic links and hard links cannot lead anywhere on the host, whatever they say.
//! Nothing of it is named in the store before both digests, of the packed and of the unpacked bytes, were as expected.

mod decode;
mod entries;
mod error;
mod fold;
mod gzip;
mod names;
mod spool;

#[cfg(test)]
pub(crate) mod tests;

use std::{io::Read, path::Path};

use kiln_model::{Digest, recipe::ImportLimits};

pub(crate) use decode::Packed;
pub use error::ImportError;

use crate::{layer::Layer, store::objects::Tree};

/// How much of the limits of one image is used up.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    limits: ImportLimits,
    bytes: u64,
    files: u64,
    words: u64,
}

/// Bytes of names, links and attributes that an image may have for each entry of `max_files`, on average.
const WORDS_OF_ENTRY: u64 = 256;
/// Where few entries are allowed, so many bytes are all the same.
const WORDS_AT_LEAST: u64 = 16 << 20;

/// What an entry costs beside its bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    /// Directories that nothing names and that were made.
    directories: u64,
    /// Bytes of names and links that were kept or followed.
    words: u64,
}

impl Meter {
    pub(crate) fn new(limits: ImportLimits) -> Self {
        Self { limits, bytes: 0, files: 0, words: 0 }
    }
    fn bytes(&mut self, more: u64) -> Result<(), ImportError> {
        self.bytes = self.bytes.saturating_add(more);
        match self.bytes <= self.limits.size.as_bytes() {
            true => Ok(()),
            false => Err(ImportError::TooLarge { limit: self.limits.size }),
        }
    }
    fn file(&mut self) -> Result<(), ImportError> {
        self.files += 1;
        match self.files <= self.limits.files {
            true => Ok(()),
            false => Err(ImportError::TooMany { limit: self.limits.files }),
        }
    }
    /// Names, links and attributes stay in memory, and links are followed again and again.
    fn words(&mut self, more: u64) -> Result<(), ImportError> {
        self.words = self.words.saturating_add(more);
        let limit = self.limits.files.saturating_mul(WORDS_OF_ENTRY).max(WORDS_AT_LEAST);
        if self.words <= limit { Ok(()) } else { Err(ImportError::TooWordy { limit }) }
    }
    fn spent(&mut self, spent: Spent) -> Result<(), ImportError> {
        (0..spent.directories).try_for_each(|_| self.file())?;
        self.words(spent.words)
    }
}

/// Where a layer goes to.
pub(crate) struct Ground<'a> {
    /// The tree below it.
    pub(crate) below: &'a Tree,
    /// The directory of the store's objects, for contents that the tree below has already.
    pub(crate) objects: &'a Path,
    /// An empty directory for contents.
    pub(crate) work: &'a Path,
    /// The time of directories that the layer names no times for, seconds.
    pub(crate) epoch: i64,
}

/// A layer in Kiln's form.
#[derive(Debug)]
pub(crate) struct Imported {
    pub(crate) layer: Layer,
    /// What was left out, in words.
    pub(crate) warnings: Vec<String>,
}

/// Reads a layer whose unpacked bytes have this digest.
pub(crate) fn layer<R: Read + Send>(
    packed: Packed<R>,
    diff_id: Digest,
    meter: &mut Meter,
    ground: &Ground<'_>,
) -> Result<Imported, ImportError> {
    std::thread::scope(|scope| {
        let mut stream = decode::Unpacked::new(packed, meter, scope);
        let imported = read(&mut stream, ground)?;
        stream.finish(diff_id)?;
        Ok(imported)
    })
}

fn read(stream: &mut decode::Unpacked<'_>, ground: &Ground<'_>) -> Result<Imported, ImportError> {
    let mut fold = fold::Fold::new(ground);
    let mut spool = spool::Spool::new(ground.work);
    let mut archive = entries::Archive::new(stream);
    while let Some(entry) = archive.next()? {
        fold.add(entry, &mut archive, &mut spool)?;
    }
    Ok(fold.finish())
}

/// Reads a layer, or any archive, whatever its digest is.
pub(crate) fn unchecked<R: Read + Send>(
    packed: Packed<R>,
    meter: &mut Meter,
    ground: &Ground<'_>,
) -> Result<Imported, ImportError> {
    std::thread::scope(|scope| read(&mut decode::Unpacked::new(packed, meter, scope), ground))
}
