//! An image of a registry as a place that images are read from, with its mirrors.
//!
//! Each mirror is asked first and may fail in any way: the next one, and at last the registry itself, is asked then.
//! Only a tag is believed; everything else is checked against the digest that named it, whoever gave it.

use std::io::{self, Read};

use kiln_model::{
    Digest,
    oci::{OciReference, OciVersion},
};

use super::{Cache, Registries, RegistryError, client::Repository, parallel};
use crate::{
    debian::http::{Expected, Limits},
    oci::{
        foreign::{self, Described, MAX_DOCUMENT},
        source::{LayerBytes, OciError, Origin, Top},
    },
};

/// An image of a registry.
pub(crate) struct Remote {
    reference: OciReference,
    /// Mirrors, then the registry; none where nothing may be downloaded.
    repositories: Vec<Repository>,
    cache: Cache,
}

impl Remote {
    pub(crate) fn new(
        reference: &OciReference,
        registries: &Registries,
        cache: Cache,
        offline: bool,
        limits: Limits,
    ) -> Result<Self, RegistryError> {
        let repositories = match offline {
            true => Vec::new(),
            false => Repository::with_mirrors(reference, registries, limits)?,
        };
        Ok(Self { reference: reference.clone(), repositories, cache })
    }

    /// Brings blobs into the cache, several at a time. `progress` gets the number of new bytes.
    pub(crate) fn prefetch(&self, blobs: &[Expected], progress: &(dyn Fn(u64) + Sync)) -> Result<(), RegistryError> {
        parallel::each(blobs, parallel::TRANSFERS, |blob| self.fetch(*blob, progress))
    }

    fn fetch(&self, blob: Expected, progress: &dyn Fn(u64)) -> Result<(), RegistryError> {
        match self.cache.path(&blob.digest).exists() {
            true => Ok(()),
            false => self.first(&blob.digest.to_string(), |repository| repository.fetch(&self.cache, blob, progress)),
        }
    }

    /// The first answer of the mirrors and the registry.
    pub(crate) fn first<T>(
        &self,
        what: &str,
        ask: impl Fn(&Repository) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let offline = || RegistryError::Offline { what: format!("{what} of {}", self.reference) };
        let (last, mirrors) = self.repositories.split_last().ok_or_else(offline)?;
        for mirror in mirrors {
            match ask(mirror) {
                Ok(answer) => return Ok(answer),
                Err(error) => tracing::warn!(mirror = mirror.endpoint.origin, %error, "the mirror did not help"),
            }
        }
        ask(last)
    }

    /// Lets go of a blob that the store has now.
    pub(crate) fn forget(&self, digest: &Digest) -> Result<(), RegistryError> {
        let failed = |source| RegistryError::Settings { path: self.cache.path(digest), source };
        self.cache.forget(digest).map_err(failed)
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>, RegistryError> {
        if let Some(file) = self.cache.file(digest) {
            let mut bytes = Vec::new();
            if file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).is_ok() && Digest::of(&bytes) == *digest {
                return Ok(bytes);
            }
        }
        let rest = format!("manifests/{digest}");
        let bytes = self.first(&digest.to_string(), |repository| checked(repository, &rest, digest))?;
        self.keep(digest, &bytes)?;
        Ok(bytes)
    }

    fn keep(&self, digest: &Digest, bytes: &[u8]) -> Result<(), RegistryError> {
        let path = self.cache.path(digest);
        self.cache.keep(digest, bytes).map_err(|source| RegistryError::Settings { path, source })
    }
}

/// A document that is what its digest says.
fn checked(repository: &Repository, rest: &str, digest: &Digest) -> Result<Vec<u8>, RegistryError> {
    let bytes = repository.small(rest, &foreign::accepted(), MAX_DOCUMENT)?;
    let actual = Digest::of(&bytes);
    match actual == *digest {
        true => Ok(bytes),
        false => {
            let url = repository.url(rest);
            Err(crate::debian::http::HttpError::WrongHash { url, expected: *digest, actual }.into())
        }
    }
}

impl Origin for Remote {
    fn top(&self, locked: Option<Digest>) -> Result<Top, OciError> {
        let fixed = match &self.reference.version {
            OciVersion::Digest(digest) => Some(*digest),
            OciVersion::Tag(_) => None,
        };
        if let Some(digest) = locked.or(fixed) {
            return Ok(Top::Document(digest, self.manifest(&digest)?));
        }
        let OciVersion::Tag(tag) = &self.reference.version else { unreachable!("a digest was handled above") };
        let rest = format!("manifests/{tag}");
        let bytes = self.first(tag, |repository| repository.small(&rest, &foreign::accepted(), MAX_DOCUMENT))?;
        let digest = Digest::of(&bytes);
        self.keep(&digest, &bytes)?;
        Ok(Top::Document(digest, bytes))
    }

    fn document(&self, what: &'static str, described: &Described) -> Result<Vec<u8>, OciError> {
        if what == "manifest" {
            return Ok(self.manifest(&described.digest)?);
        }
        self.fetch(Expected { size: described.size, digest: described.digest }, &|_| {})?;
        let path = self.cache.path(&described.digest);
        let file = self.cache.file(&described.digest).ok_or_else(|| missing(&path))?;
        crate::oci::source::bounded(what, file, &path)
    }

    /// A mirror may have the image and not what was said of it since: every one is asked until one has something.
    fn referrers(&self, subject: &Digest) -> Result<Vec<Described>, OciError> {
        let listed = |repository: &Repository| match repository.referrers(subject)? {
            nothing if nothing.is_empty() => {
                Err(RegistryError::NotFound { registry: repository.endpoint.account.clone(), what: "referrers".into() })
            }
            found => Ok(found),
        };
        match self.first("what refers to the image", listed) {
            Ok(found) => Ok(found),
            Err(RegistryError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn open(&self, bytes: &LayerBytes) -> Result<Box<dyn Read + Send>, OciError> {
        let LayerBytes::Blob(described) = bytes else {
            return Err(OciError::document("manifest", "a registry has no such layers"));
        };
        self.fetch(Expected { size: described.size, digest: described.digest }, &|_| {})?;
        let path = self.cache.path(&described.digest);
        Ok(Box::new(self.cache.file(&described.digest).ok_or_else(|| missing(&path))?))
    }
}

fn missing(path: &std::path::Path) -> OciError {
    OciError::file(path)(io::Error::from(io::ErrorKind::NotFound))
}
