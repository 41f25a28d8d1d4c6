//! Writing a layer: file contents to content-addressed objects, the tar stream as a splitstream that refers to them,
//! and the SHA-256 of the whole stream, which names the layer.
//!
//! Two passes run side by side: one reads the files in order for the layer's SHA-256, which cannot be split; the other
//! stores them in parallel. A file of an upper directory is linked into the store, not copied; a file of at most
//! [`INLINE`] bytes stays inside the metadata image and the splitstream.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use composefs::{
    INLINE_CONTENT_MAX_V0 as INLINE,
    repository::{ImportContext, ObjectStoreMethod},
    splitstream::SplitStreamWriter,
};
use kiln_model::Digest;
use openssl::sha::Sha256;
use rayon::prelude::*;

use super::{Content, Kind, Layer, apply::Kept, tar};
use crate::store::{
    error::{Context as _, StoreError, at},
    objects::{self, Batch, Object, Repo},
};

/// Files are read in pieces of this many bytes.
const PIECE: usize = 1 << 18;

/// A layer in the store.
pub(crate) struct Written {
    /// `diff_id` and digest.
    pub(crate) digest: Digest,
    /// Its splitstream.
    pub(crate) object: Object,
    /// Bytes of the tar stream.
    pub(crate) size: u64,
    /// What is at the entries with files, by index.
    pub(crate) contents: Vec<Option<Kept>>,
}

/// Stores a layer; it becomes visible when the batch is published.
pub(crate) fn write(repo: &std::sync::Arc<Repo>, batch: &mut Batch, layer: &Layer) -> Result<Written, StoreError> {
    let (digest, contents) = rayon::join(|| digest(layer), || store(repo, layer));
    let ((digest, size), contents) = (digest?, contents?);
    let files = contents.iter().flatten().filter_map(|kept| match kept {
        Kept::External(object, _) => Some(object.clone()),
        _ => None,
    });
    batch.add(files, size);
    let name = objects::layer_stream(&digest);
    let object = match repo.has_stream(&name).doing(|| format!("look up {name}"))? {
        Some(object) => object,
        None => {
            let writer = repo.create_stream(objects::LAYER_STREAM).doing(|| format!("write {name}"))?;
            let mut sink = StreamSink { writer, contents: &contents };
            tar::emit(layer, &mut sink)?;
            batch.stream(name, sink.writer)?
        }
    };
    Ok(Written { digest, object, size, contents })
}

/// The SHA-256 and the length of a layer's tar stream.
pub(crate) fn digest(layer: &Layer) -> Result<(Digest, u64), StoreError> {
    let mut sink = DigestSink { sha: Sha256::new(), size: 0, buffer: vec![0; PIECE] };
    tar::emit(layer, &mut sink)?;
    Ok((Digest::from_bytes(sink.sha.finish()), sink.size))
}

/// The tar stream of a layer whose contents are all in memory.
#[cfg(test)]
pub(crate) fn plain(layer: &Layer, to: &mut Vec<u8>) -> Result<(), StoreError> {
    struct Plain<'a>(&'a mut Vec<u8>);
    impl tar::Sink for Plain<'_> {
        type Error = StoreError;
        fn bytes(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
        fn content(&mut self, _: usize, content: &Content) -> Result<(), StoreError> {
            match content {
                Content::Bytes(bytes) => self.bytes(bytes),
                Content::Path { path, .. } => self.bytes(&std::fs::read(path).doing(|| at("read", path))?),
            }
        }
    }
    tar::emit(layer, &mut Plain(to))
}

struct DigestSink {
    sha: Sha256,
    size: u64,
    buffer: Vec<u8>,
}

impl tar::Sink for DigestSink {
    type Error = StoreError;
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.sha.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }
    fn content(&mut self, _: usize, content: &Content) -> Result<(), StoreError> {
        let (path, size) = match content {
            Content::Bytes(bytes) => return self.bytes(bytes),
            Content::Path { path, size, .. } => (path, *size),
        };
        let mut file = File::open(path).doing(|| at("read", path))?;
        let before = self.size;
        loop {
            match file.read(&mut self.buffer).doing(|| at("read", path))? {
                0 => break,
                length => {
                    self.sha.update(&self.buffer[..length]);
                    self.size += length as u64;
                }
            }
        }
        same_size(path, size, self.size - before)
    }
}

struct StreamSink<'a> {
    writer: SplitStreamWriter<Object>,
    contents: &'a [Option<Kept>],
}

impl tar::Sink for StreamSink<'_> {
    type Error = StoreError;
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.writer.write_inline(bytes);
        Ok(())
    }
    fn content(&mut self, index: usize, _: &Content) -> Result<(), StoreError> {
        match &self.contents[index] {
            Some(Kept::External(object, size)) => {
                self.writer.add_external_size(*size);
                self.writer.write_reference(object.clone()).doing(|| "write a layer".into())
            }
            Some(Kept::Inline(bytes)) => self.bytes(bytes),
            _ => Err(StoreError::damaged("a layer", "a file of it was not stored")),
        }
    }
}

/// Stores every file of the layer.
fn store(repo: &Repo, layer: &Layer) -> Result<Vec<Option<Kept>>, StoreError> {
    let entries = layer.entries().par_iter().with_min_len(16);
    entries.map_init(ImportContext::default, |context, entry| store_one(repo, context, &entry.kind)).collect()
}

fn store_one(repo: &Repo, context: &mut ImportContext, kind: &Kind) -> Result<Option<Kept>, StoreError> {
    let Kind::File(content) = kind else { return Ok(None) };
    let kept = match content {
        Content::Bytes(bytes) if bytes.len() <= INLINE => Kept::Inline(bytes.as_slice().into()),
        Content::Bytes(bytes) => {
            let object = repo.ensure_object(bytes).doing(|| "store a file".into())?;
            Kept::External(object, bytes.len() as u64)
        }
        Content::Path { path, size, .. } if *size <= INLINE as u64 => {
            let bytes = std::fs::read(path).doing(|| at("read", path))?;
            same_size(path, *size, bytes.len() as u64)?;
            Kept::Inline(bytes.into())
        }
        Content::Path { path, size, take } => {
            let file = File::open(path).doing(|| at("read", path))?;
            let found = file.metadata().doing(|| at("read", path))?;
            same_size(path, *size, found.size())?;
            let object = match take {
                true => take_file(repo, context, &file, *size, path)?,
                false => repo.ensure_object_from_reader(&file, *size).doing(|| at("store", path))?,
            };
            Kept::External(object, *size)
        }
    };
    Ok(Some(kept))
}

/// Links a file of an upper directory into the store. It keeps its inode, so what the step gave it (owner, set-user-id
/// bit) is taken off: those belong to the metadata image.
fn take_file(
    repo: &Repo,
    context: &mut ImportContext,
    file: &File,
    size: u64,
    path: &Path,
) -> Result<Object, StoreError> {
    let doing = || at("store", path);
    let (object, how) = repo.ensure_object_from_file(file, size, context).doing(doing)?;
    if how == ObjectStoreMethod::Hardlinked {
        let root = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
        rustix::fs::fchown(file, Some(root.0), Some(root.1)).doing(doing)?;
        rustix::fs::fchmod(file, rustix::fs::Mode::from_raw_mode(0o444)).doing(doing)?;
    }
    Ok(object)
}

fn same_size(path: &Path, expected: u64, found: u64) -> Result<(), StoreError> {
    match expected == found {
        true => Ok(()),
        false => {
            Err(io::Error::other(format!("it had {expected} bytes and now has {found}"))).doing(|| at("read", path))
        }
    }
}
