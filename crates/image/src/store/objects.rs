//! Writing to the composefs repository so that a crash at any instant leaves it usable.
//!
//! Order: first every object (file contents, layers, documents), which nothing names yet; then these are made durable,
//! a few one by one and many with one `syncfs` (which waits for whatever else is being written to the file system);
//! then come the names (symbolic links below `streams/` and `images/`); last the index, whose write is itself durable.
//! A name therefore never leads to an object that a power cut could have emptied.
//!
//! Where much is written, a thread asks for it to go to the disk while the rest is still being made, so that little is left to
//! wait for. What it is told of failed writes the kernel tells nobody again: `publish` fails with it.

use std::{io, sync::Arc, thread::JoinHandle};

use composefs::{
    fsverity::{FsVerityHashValue as _, Sha256HashValue},
    repository::Repository,
    splitstream::SplitStreamWriter,
    tree::FileSystem,
};
use kiln_model::Digest;
use rayon::prelude::*;

use super::error::{Context as _, StoreError};

/// Name of a content-addressed object: its fs-verity digest.
pub(crate) type Object = Sha256HashValue;
/// A tree of files whose contents are objects.
pub(crate) type Tree = FileSystem<Object>;
/// The repository.
pub(crate) type Repo = Repository<Object>;

/// Content types of splitstreams, as `composefs-oci` 0.9 writes them (`skopeo.rs`).
pub(crate) const LAYER_STREAM: u64 = u64::from_le_bytes(*b"ocilayer");
pub(crate) const CONFIG_STREAM: u64 = u64::from_le_bytes(*b"ociconfg");
pub(crate) const MANIFEST_STREAM: u64 = u64::from_le_bytes(*b"ocimanif");
pub(crate) const BLOB_STREAM: u64 = u64::from_le_bytes(*b"oci_blob");

pub(crate) fn layer_stream(digest: &Digest) -> String {
    format!("oci-layer-{digest}")
}
pub(crate) fn config_stream(digest: &Digest) -> String {
    format!("oci-config-{digest}")
}
pub(crate) fn manifest_stream(digest: &Digest) -> String {
    format!("oci-manifest-{digest}")
}
pub(crate) fn blob_stream(digest: &Digest) -> String {
    format!("oci-blob-{digest}")
}

/// Up to so many objects are made durable one by one.
const FEW: usize = 32;

/// So many new bytes are worth an early way to the disk.
const MUCH: u64 = 32 << 20;

/// Objects written and not yet named.
pub(crate) struct Batch {
    repo: Arc<Repo>,
    objects: Vec<Object>,
    names: Vec<(String, String)>,
    /// Bytes that nobody has begun to bring to the disk.
    waiting: u64,
    early: Vec<JoinHandle<io::Result<()>>>,
}

impl Batch {
    pub(crate) fn new(repo: &Arc<Repo>) -> Self {
        Self { repo: repo.clone(), objects: Vec::new(), names: Vec::new(), waiting: 0, early: Vec::new() }
    }

    /// Counts objects of so many bytes that were written beside the batch.
    pub(crate) fn add(&mut self, objects: impl IntoIterator<Item = Object>, bytes: u64) {
        self.objects.extend(objects);
        self.waiting += bytes;
        if self.waiting >= MUCH {
            self.waiting = 0;
            let repo = self.repo.clone();
            self.early.push(std::thread::spawn(move || rustix::fs::syncfs(repo.repo_fd()).map_err(io::Error::from)));
        }
    }

    /// Waits for what was begun early.
    fn begun_is_done(&mut self) -> io::Result<()> {
        let ended =
            |early: JoinHandle<_>| early.join().unwrap_or_else(|_| Err(io::Error::other("it ended in the middle")));
        // Every one of them, for each is told of other failures.
        self.early.drain(..).map(ended).fold(Ok(()), io::Result::and)
    }

    /// Writes a document (manifest, configuration, blob) as one object behind a stream that also refers to others.
    pub(crate) fn document(
        &mut self,
        name: String,
        content_type: u64,
        bytes: &[u8],
        refers_to: &[(String, Object)],
    ) -> Result<Object, StoreError> {
        let doing = || format!("write {name}");
        let mut stream = self.repo.create_stream(content_type).doing(doing)?;
        for (name, object) in refers_to {
            stream.add_named_stream_ref(name, object);
        }
        self.objects.push(self.repo.ensure_object(bytes).doing(doing)?);
        stream.write_external(bytes).doing(doing)?;
        self.stream(name, stream)
    }

    /// Writes a finished stream.
    pub(crate) fn stream(&mut self, name: String, stream: SplitStreamWriter<Object>) -> Result<Object, StoreError> {
        let object = stream.done().doing(|| format!("write {name}"))?;
        self.names.push((format!("streams/{name}"), object_path(&object)));
        self.objects.push(object.clone());
        Ok(object)
    }

    /// Writes a tree as a metadata image.
    pub(crate) fn tree(&mut self, tree: &Tree) -> Result<Object, StoreError> {
        let (bytes, _) = tree.compute_image_bytes(self.repo.erofs_version());
        let object = self.repo.ensure_object(&bytes).doing(|| "write a metadata image".into())?;
        self.names.push((format!("images/{}", object.to_hex()), object_path(&object)));
        self.objects.push(object.clone());
        Ok(object)
    }

    /// Gives a stream a further name, below `streams/refs/`.
    pub(crate) fn reference(&mut self, name: String, stream: String) {
        self.names.push((format!("streams/refs/{name}"), format!("streams/{stream}")));
    }

    /// Makes everything durable, then visible; the batch is empty afterwards.
    pub(crate) fn publish(&mut self) -> Result<(), StoreError> {
        let doing = || "make a bake durable".to_owned();
        self.begun_is_done().doing(doing)?;
        match self.objects.len() <= FEW {
            true => self.objects.par_iter().try_for_each(|object| self.make_durable(object))?,
            false => self.repo.sync().doing(doing)?,
        }
        self.objects.clear();
        for (name, target) in self.names.drain(..) {
            self.repo.symlink(&name, &target).doing(|| format!("name {name}"))?;
        }
        Ok(())
    }

    fn make_durable(&self, object: &Object) -> Result<(), StoreError> {
        let doing = || format!("make object {} durable", object.to_hex());
        let file = self.repo.open_object(object).doing(doing)?;
        rustix::fs::fsync(&file).doing(doing)
    }
}

pub(crate) fn object_path(object: &Object) -> String {
    format!("objects/{}", object.to_object_pathname())
}

/// The object with this hex name.
pub(crate) fn parse(hex: &str) -> Result<Object, StoreError> {
    Object::from_hex(hex).map_err(|e| StoreError::damaged(format!("object name `{hex}`"), e))
}

/// Reads the single object behind a stream.
pub(crate) fn read_document(
    repo: &Repo,
    name: &str,
    content_type: u64,
    digest: &Digest,
) -> Result<Option<Vec<u8>>, StoreError> {
    if repo.has_stream(name).doing(|| format!("look up {name}"))?.is_none() {
        return Ok(None);
    }
    let mut stream =
        repo.open_stream(name, None, Some(content_type)).map_err(|e| StoreError::damaged(name, format!("{e:#}")))?;
    let mut objects = Vec::new();
    stream
        .get_object_refs(|object| objects.push(object.clone()))
        .map_err(|e| StoreError::damaged(name, format!("{e:#}")))?;
    let [object] = objects.as_slice() else {
        return Err(StoreError::damaged(name, format!("it has {} objects, not one", objects.len())));
    };
    let bytes = repo.read_object(object).map_err(|e| StoreError::damaged(name, format!("{e:#}")))?;
    match Digest::of(&bytes) == *digest {
        true => Ok(Some(bytes)),
        false => Err(StoreError::damaged(name, "its digest is another")),
    }
}
