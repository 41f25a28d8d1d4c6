//! The image store: one directory, safe for several processes at once.
//!
//! | below the directory | holds |
//! | --- | --- |
//! | `composefs/` | a composefs repository: file contents by fs-verity digest, shared between all images; one EROFS metadata image for each tree; layers as splitstreams; OCI documents byte for byte |
//! | `index/` | names, channels, suites and finished steps as small files ([`index`]) |
//! | `work/` | trees that steps are changing; on the same file system, so that finished files move without a copy |
//! | `unsettled/` | marks of writers whose objects are not durable yet ([`mark`]) |
//! | `lock` | held shared by whoever writes, exclusively by [`Store::gc`] |
//!
//! An image is named by the SHA-256 of its OCI manifest, and everything it consists of follows from that digest. Where
//! the file system has fs-verity the kernel checks every read of a file; elsewhere integrity is checked when a file
//! comes in and by [`Store::verify`] ([`Store::integrity`] says which of the two holds).

pub(crate) mod error;
mod gc;
mod index;
mod inspect;
mod layers;
mod lock;
mod mark;
mod mount;
pub(crate) mod objects;
mod record;
mod reports;
mod verify;
mod work;
mod write;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use composefs::repository::RepositoryConfig;
use kiln_model::{
    ChannelName, ImageDigest, ImageName, Suite, SuiteDigest,
    fleet::{ImageRef, Selector},
};

pub use error::StoreError;
pub use gc::GcOutcome;
pub(crate) use index::{ImageEntry, Index, StepEntry};
pub use inspect::{InstalledPackage, LayerRecord};
pub(crate) use lock::Lock;
pub use record::ImageRecord;
pub use verify::{Damage, Progress, Verification};
pub(crate) use work::Work;
pub use work::WorkError;
pub(crate) use write::Documents;

use self::{
    error::{Context as _, at},
    mount::Source,
    objects::Repo,
};

/// Who checks that a file still is what its digest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integrity {
    /// The kernel, at every read (fs-verity).
    FsVerity,
    /// Kiln, when a file comes in and in [`Store::verify`]: the file system has no fs-verity.
    UserSpace,
}

/// The image store. Clones are handles to the same store.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    repo: Arc<Repo>,
    index: Index,
    /// What is needed to mount a tree again, by the hex name of its metadata image.
    sources: Mutex<HashMap<String, Arc<Source>>>,
    records: Mutex<HashMap<ImageDigest, Arc<record::Documents>>>,
}

impl Store {
    /// Opens the store in this directory, making it (mode 0700) if it is not there.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).doing(|| at("create", dir))?;
        fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).doing(|| at("protect", dir))?;
        for part in ["work", "unsettled"] {
            fs::create_dir_all(dir.join(part)).doing(|| at("create", &dir.join(part)))?;
        }
        let repo = open_repository(&dir.join("composefs"))?;
        let store = Self {
            inner: Arc::new(Inner {
                dir: dir.to_owned(),
                repo: Arc::new(repo),
                index: Index::open(dir.join("index"))?,
                sources: Mutex::default(),
                records: Mutex::default(),
            }),
        };
        store.recover()?;
        Ok(store)
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Who checks the files of this store.
    pub fn integrity(&self) -> Integrity {
        match self.inner.repo.is_insecure() {
            true => Integrity::UserSpace,
            false => Integrity::FsVerity,
        }
    }

    /// All images, newest bake first.
    pub fn images(&self) -> Result<Vec<ImageRecord>, StoreError> {
        self.inner.index.images()?.into_iter().map(|entry| self.record(entry)).collect()
    }

    /// The image with this digest.
    pub fn image(&self, image: &ImageDigest) -> Result<Option<ImageRecord>, StoreError> {
        self.inner.index.image(image)?.map(|entry| self.record(entry)).transpose()
    }

    /// The image that a reference names now.
    pub fn resolve(&self, image: &ImageRef) -> Result<Option<ImageRecord>, StoreError> {
        let digest = match &image.selector {
            Selector::Digest(digest) => *digest,
            Selector::Channel(channel) => match self.channels(&image.name)?.get(channel) {
                Some(digest) => *digest,
                None => return Ok(None),
            },
        };
        Ok(self.image(&digest)?.filter(|record| record.name == image.name))
    }

    /// What the channels of a name point to.
    pub fn channels(&self, name: &ImageName) -> Result<BTreeMap<ChannelName, ImageDigest>, StoreError> {
        Ok(self.inner.index.channels(name)?.into_iter().collect())
    }

    /// Points a channel to an image of the store.
    pub fn set_channel(&self, name: &ImageName, channel: &ChannelName, image: &ImageDigest) -> Result<(), StoreError> {
        let _lock = self.shared_lock()?;
        if self.image(image)?.is_none_or(|record| record.name != *name) {
            return Err(StoreError::NotFound(*image));
        }
        self.inner.index.put_channel(name, channel, image)
    }

    /// The suite with this digest.
    pub fn suite(&self, suite: &SuiteDigest) -> Result<Option<Suite>, StoreError> {
        self.inner.index.suite(suite)
    }

    /// A detached, read-only mount of an image's tree; with `idmap`, ownership is shifted by that user namespace.
    pub fn mount(&self, image: &ImageDigest, idmap: Option<BorrowedFd<'_>>) -> Result<OwnedFd, StoreError> {
        let entry = self.inner.index.image(image)?.ok_or(StoreError::NotFound(*image))?;
        self.mount_tree(&entry.tree, idmap)
    }

    pub(crate) fn repo(&self) -> &Arc<Repo> {
        &self.inner.repo
    }
    pub(crate) fn index(&self) -> &Index {
        &self.inner.index
    }
}

fn open_repository(dir: &Path) -> Result<Repo, StoreError> {
    let cwd = rustix::fs::CWD;
    if let Ok(repo) = Repo::open_path(cwd, dir) {
        return Ok(repo);
    }
    let doing = || at("create the repository", dir);
    // Two processes may come here at once: `init_path` accepts what the other one made.
    let repo = match Repo::init_path(cwd, dir, RepositoryConfig::default()) {
        Ok((repo, _)) => repo,
        Err(_) => Repo::init_path(cwd, dir, RepositoryConfig::default().set_insecure()).doing(doing)?.0,
    };
    let objects = dir.join("objects");
    fs::create_dir_all(&objects).doing(|| at("create", &objects))?;
    Ok(repo)
}
