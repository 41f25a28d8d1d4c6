//! Blobs and documents by digest: fetched once, kept, and checked before anybody sees them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use kiln_model::Digest;
use rustix::fs::{FlockOperation, flock};
use ureq::http::HeaderMap;

use super::{
    RegistryError,
    client::{Ask, Repository},
};
use crate::debian::http::{self, Expected, HttpError, Transfer};

/// Where blobs are kept.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// Below the directory of downloads.
    pub(crate) fn open(downloads: &Path) -> Result<Self, RegistryError> {
        let directory = downloads.join("oci/blobs/sha256");
        let made = fs::create_dir_all(&directory);
        made.map_err(|source| RegistryError::Settings { path: directory.clone(), source })?;
        Ok(Self { directory })
    }
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.hex())
    }
    /// A blob that is there.
    pub(crate) fn file(&self, digest: &Digest) -> Option<File> {
        File::open(self.path(digest)).ok()
    }
    /// Lets go of a blob that is kept elsewhere from now on.
    pub(crate) fn forget(&self, digest: &Digest) -> io::Result<()> {
        match fs::remove_file(self.path(digest)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
    /// Keeps a small document.
    pub(crate) fn keep(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        file.write_all(bytes)?;
        file.persist(self.path(digest))?;
        Ok(())
    }
}

impl Repository {
    /// Brings a blob into the cache. An unfinished earlier transfer is gone on with; two processes that want the same blob
    /// wait for each other. `progress` gets the number of new bytes.
    pub(crate) fn fetch(&self, cache: &Cache, blob: Expected, progress: &dyn Fn(u64)) -> Result<(), RegistryError> {
        let path = cache.path(&blob.digest);
        let part = path.with_extension("part");
        let failed = |source| HttpError::Write { path: part.clone(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&part);
        let mut file = file.map_err(failed)?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
        if path.exists() {
            return Ok(fs::remove_file(&part).map_err(failed)?);
        }
        let resumed = file.metadata().map_err(failed)?.len() > 0;
        let mut outcome = self.fill_again(&part, &mut file, blob, progress);
        if resumed && matches!(outcome, Err(RegistryError::Http(HttpError::WrongHash { .. }))) {
            outcome = self.fill_again(&part, &mut file, blob, progress);
        }
        match outcome {
            Ok(()) => Ok(fs::rename(&part, &path).map_err(failed)?),
            Err(RegistryError::Http(error)) => {
                http::discard_unless_resumable(&part, &error).map_err(failed)?;
                Err(error.into())
            }
            Err(error) => {
                fs::remove_file(&part).map_err(failed)?;
                Err(error)
            }
        }
    }

    /// A transfer that breaks off is gone on with.
    fn fill_again(
        &self,
        part: &Path,
        file: &mut File,
        blob: Expected,
        progress: &dyn Fn(u64),
    ) -> Result<(), RegistryError> {
        let mut pause = self.limits.backoff;
        for _ in 1..self.limits.attempts {
            match self.fill(part, file, blob, progress) {
                Err(RegistryError::Http(error)) if error.is_away() => tracing::debug!(%error, "going on"),
                done => return done,
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        self.fill(part, file, blob, progress)
    }

    fn fill(&self, part: &Path, file: &mut File, blob: Expected, progress: &dyn Fn(u64)) -> Result<(), RegistryError> {
        let url = self.url(&format!("blobs/{}", blob.digest));
        http::Filling { url: &url, part, expected: blob, limits: self.limits }.fill(file, progress, |have| {
            let ask = Ask::get(&url);
            self.ask(&if have > 0 { ask.header("range", format!("bytes={have}-")) } else { ask })
        })
    }

    /// A document, whole, by tag or digest path (`manifests/latest`).
    pub(crate) fn small(&self, rest: &str, accept: &str, limit: u64) -> Result<Vec<u8>, RegistryError> {
        self.whole(&self.url(rest), accept, limit).map(|(bytes, _)| bytes)
    }

    /// A document, whole, with the head of the answer.
    pub(super) fn whole(&self, url: &str, accept: &str, limit: u64) -> Result<(Vec<u8>, HeaderMap), RegistryError> {
        let answer = self.ask(&Ask::get(url).header("accept", accept))?;
        http::accept(url, &answer)?;
        let (head, body) = answer.into_parts();
        let mut bytes = Vec::new();
        let mut transfer = Transfer { url, limits: self.limits, received: 0, expected: limit };
        transfer.copy(body, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok((bytes, head.headers))
    }
}
