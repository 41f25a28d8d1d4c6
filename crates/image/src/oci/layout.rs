//! An OCI layout directory (image-spec 1.1 `image-layout.md`).
//!
//! Only files that the digests name are opened, and never through a symbolic link: a layout is somebody else's.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use kiln_model::Digest;
use rustix::fs::{Mode, OFlags};

use super::{
    foreign::Described,
    source::{LayerBytes, OciError, Origin, Top, bounded, document, named, unnamed},
};

/// A layout directory.
pub(crate) struct Layout {
    directory: PathBuf,
    name: Option<String>,
}

impl Layout {
    pub(crate) fn open(directory: &Path, name: Option<String>) -> Result<Self, OciError> {
        let layout = Self { directory: directory.to_owned(), name };
        let marker = layout.read("index", "oci-layout")?;
        match serde_json::from_slice::<serde_json::Value>(&marker) {
            Ok(value) if value["imageLayoutVersion"] == "1.0.0" => Ok(layout),
            _ => Err(OciError::document("index", "`oci-layout` does not say version 1.0.0")),
        }
    }

    fn file(&self, path: &str) -> Result<(File, PathBuf), OciError> {
        let path = self.directory.join(path);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&path, flags, Mode::empty()).map(File::from);
        let file = opened.map_err(|e| OciError::file(&path)(e.into()))?;
        let regular = file.metadata().is_ok_and(|stat| stat.is_file());
        match regular {
            true => Ok((file, path)),
            false => Err(OciError::file(&path)(std::io::Error::other("it is no regular file"))),
        }
    }

    fn read(&self, what: &'static str, path: &str) -> Result<Vec<u8>, OciError> {
        let (file, path) = self.file(path)?;
        bounded(what, file, &path)
    }
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

impl Origin for Layout {
    fn top(&self, locked: Option<Digest>) -> Result<Top, OciError> {
        // What the lock names is taken whatever the index says now.
        if let Some(digest) = locked
            && let Ok(bytes) = self.read("manifest", &blob(&digest))
            && Digest::of(&bytes) == digest
        {
            return Ok(Top::Document(digest, bytes));
        }
        let index = self.read("index", "index.json")?;
        let described = named(&index, self.name.as_deref(), locked, &self.directory)?;
        Ok(Top::Document(described.digest, document(self, "manifest", &described)?))
    }
    fn document(&self, what: &'static str, described: &Described) -> Result<Vec<u8>, OciError> {
        self.read(what, &blob(&described.digest))
    }
    fn referrers(&self, _subject: &Digest) -> Result<Vec<Described>, OciError> {
        unnamed(&self.read("index", "index.json")?)
    }
    fn open(&self, bytes: &LayerBytes) -> Result<Box<dyn Read + Send>, OciError> {
        match bytes {
            LayerBytes::Blob(described) => Ok(Box::new(self.file(&blob(&described.digest))?.0)),
            LayerBytes::Member(_) => Err(OciError::document("manifest", "a layout has no such layers")),
        }
    }
}
