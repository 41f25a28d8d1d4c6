//! Mounting a tree: an EROFS metadata image as the lower layer of an overlay whose data layer is the objects directory.
//!
//! A metadata image is mounted once per process, where nobody sees it, and kept; each further mount of it copies that one,
//! so that all servers of an image share its inodes and directory entries and a launch pays only for the overlay. A
//! server's user namespace is put on its copy: an overlay cannot shift owners, its layers can.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use composefs::mount::erofs_mount;
use kiln_sys::{
    mount::map_owners,
    shelf::{self, Template},
};

use super::{
    Integrity, Store,
    error::{Context as _, StoreError},
    objects,
};

/// `ENOTBLK`: the kernel cannot read an EROFS image from a file here, and tried it as a block device.
const NOT_A_BLOCK_DEVICE: i32 = rustix::io::Errno::NOTBLK.raw_os_error();

/// A metadata image, mounted where nobody sees it.
#[derive(Debug)]
pub(super) struct Source {
    mount: Template,
}

impl Store {
    /// Mounts the tree with this metadata image.
    pub(crate) fn mount_tree(&self, tree: &str, idmap: Option<BorrowedFd<'_>>) -> Result<OwnedFd, StoreError> {
        let doing = || format!("mount tree {tree}");
        let source = self.source(tree)?;
        let metadata = source.mount.copy(Path::new("")).doing(doing)?;
        if let Some(users) = idmap {
            map_owners(metadata.as_fd(), users).doing(doing)?;
        }
        let objects = self.inner.repo.objects_dir().map_err(std::io::Error::from).doing(doing)?;
        shelf::overlay(metadata, objects.as_fd(), &self.settings(tree)).doing(doing)
    }

    fn settings(&self, tree: &str) -> Vec<(&'static str, String)> {
        // What leads from an inode of the metadata image to its content.
        let mut settings =
            vec![("source", format!("composefs:{tree}")), ("metacopy", "on".into()), ("redirect_dir", "on".into())];
        if self.integrity() == Integrity::FsVerity {
            settings.push(("verity", "require".into()));
        }
        settings
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
        let doing = || format!("open tree {tree}");
        let image = self.inner.repo.open_object(&objects::parse(tree)?).doing(doing)?;
        let mount = match erofs_mount(image) {
            Err(e) if e.raw_os_error() == Some(NOT_A_BLOCK_DEVICE) => return Err(StoreError::FileSystem),
            mount => mount.doing(doing)?,
        };
        let source = Arc::new(Source { mount: Template::new(mount).doing(doing)? });
        sources.insert(tree.to_owned(), source.clone());
        Ok(source)
    }
}
