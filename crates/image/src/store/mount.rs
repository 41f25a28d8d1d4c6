//! Mounting a tree: an EROFS metadata image as the lower layer of an overlay whose data layer is the objects directory.
//!
//! The metadata image is mounted once per process and image and kept (detached); a further mount of the same image
//! clones it, which also lets all servers of an image share its inodes and directory entries. A server's own user
//! namespace is put on that clone, since an overlay itself cannot be idmapped but its layers can.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use composefs::mount::{MountOptions, VerityRequirement, composefs_fsmount};

use super::{
    Integrity, Store,
    error::{Context as _, StoreError},
    objects,
};

/// What is kept to mount a tree again.
#[derive(Debug)]
pub(super) struct Source {
    image: OwnedFd,
}

impl Store {
    /// Mounts the tree with this metadata image.
    pub(crate) fn mount_tree(&self, tree: &str, idmap: Option<BorrowedFd<'_>>) -> Result<OwnedFd, StoreError> {
        let doing = || format!("mount tree {tree}");
        let source = self.source(tree)?;
        let mut options = MountOptions::default();
        if let Some(userns) = idmap {
            options.set_idmap(userns.try_clone_to_owned().doing(doing)?);
        }
        let verity = match self.integrity() {
            Integrity::FsVerity => VerityRequirement::Required,
            Integrity::UserSpace => VerityRequirement::Disabled,
        };
        let objects = self.inner.repo.objects_dir().doing(doing)?;
        let image = source.image.try_clone().doing(doing)?;
        composefs_fsmount(image, tree, &[objects.as_fd()], verity, &options).doing(doing)
    }

    /// Lets go of the trees that are not to be kept.
    pub(super) fn forget_sources(&self, keep: impl Fn(&str) -> bool) {
        self.inner.sources.lock().expect("no holder panics").retain(|tree, _| keep(tree));
    }

    fn source(&self, tree: &str) -> Result<Arc<Source>, StoreError> {
        let mut sources = self.inner.sources.lock().expect("no holder panics");
        if let Some(source) = sources.get(tree) {
            return Ok(source.clone());
        }
        let object = objects::parse(tree)?;
        let image = self.inner.repo.open_object(&object).doing(|| format!("open tree {tree}"))?;
        let source = Arc::new(Source { image });
        sources.insert(tree.to_owned(), source.clone());
        Ok(source)
    }
}
