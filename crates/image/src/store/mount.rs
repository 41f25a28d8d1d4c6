//! Mounting a tree: an EROFS metadata image as the lower layer of an overlay whose data layer is the objects directory.
//!
//! A metadata image is mounted once per process, detached, and kept; each further mount of it clones that one, so that
//! all servers of an image share its inodes and directory entries and a launch pays only for the overlay. A server's
//! user namespace is put on its clone: an overlay cannot shift owners, its layers can. Needs Linux 6.15, since which
//! detached mounts can be cloned and be layers.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use composefs::{
    mount::{FsHandle, erofs_mount},
    mountcompat::overlayfs_set_lower_and_data_fds,
};
use composefs_ioctls::mount::mount_setattr_idmap;
use rustix::mount::{
    FsMountFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount, open_tree,
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
    mount: OwnedFd,
}

impl Store {
    /// Mounts the tree with this metadata image.
    pub(crate) fn mount_tree(&self, tree: &str, idmap: Option<BorrowedFd<'_>>) -> Result<OwnedFd, StoreError> {
        let doing = || format!("mount tree {tree}");
        let source = self.source(tree)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let metadata = open_tree(&source.mount, "", flags).doing(doing)?;
        if let Some(userns) = idmap {
            mount_setattr_idmap(&metadata, userns).doing(doing)?;
        }
        self.overlay(tree, &metadata).doing(doing)
    }

    fn overlay(&self, tree: &str, metadata: &OwnedFd) -> std::io::Result<OwnedFd> {
        let overlay = FsHandle::open("overlay")?;
        let set = |name: &str, value: &str| fsconfig_set_string(overlay.as_fd(), name, value);
        set("source", &format!("composefs:{tree}"))?;
        // What leads from an inode of the metadata image to its content.
        set("metacopy", "on")?;
        set("redirect_dir", "on")?;
        if self.integrity() == Integrity::FsVerity {
            set("verity", "require")?;
        }
        let objects = self.inner.repo.objects_dir()?;
        overlayfs_set_lower_and_data_fds(&overlay, metadata, &[objects.as_fd()])?;
        fsconfig_create(overlay.as_fd())?;
        Ok(fsmount(overlay.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)?)
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
        let source = Arc::new(Source { mount });
        sources.insert(tree.to_owned(), source.clone());
        Ok(source)
    }
}
