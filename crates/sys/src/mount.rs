//! The mount API of Linux 5.2 and later, on detached mounts.
//!
//! A detached mount is a file descriptor: it is in no mount namespace until [`attach`] puts it somewhere, vanishes when
//! its descriptor is closed, and can be passed to another process. So nothing is ever left mounted on the host.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::error::{Attempt as _, Result};

/// What a mount forbids. Combine with `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes(u64);

impl Attributes {
    /// Nothing is forbidden.
    pub const NONE: Self = Self(0);
    /// Nothing can be written.
    pub const READ_ONLY: Self = Self(libc::MOUNT_ATTR_RDONLY);
    /// Set-user-id bits and file capabilities have no effect.
    pub const NO_SUID: Self = Self(libc::MOUNT_ATTR_NOSUID);
    /// Device nodes cannot be opened.
    pub const NO_DEVICES: Self = Self(libc::MOUNT_ATTR_NODEV);
    /// Nothing can be executed.
    pub const NO_EXECUTE: Self = Self(libc::MOUNT_ATTR_NOEXEC);
}
impl Attributes {
    /// As the kernel takes them.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}
impl std::ops::BitOr for Attributes {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One setting of a new file system.
#[derive(Debug, Clone, Copy)]
pub enum Setting<'a> {
    /// A key alone.
    Flag(&'a str),
    /// A key with a text.
    Text(&'a str, &'a str),
    /// A key with an open file.
    File(&'a str, BorrowedFd<'a>),
}

/// Makes a file system and a detached mount of it.
pub fn create(filesystem: &str, settings: &[Setting<'_>], attributes: Attributes) -> Result<OwnedFd> {
    let action = || format!("make a {filesystem} file system");
    let context = rustix::mount::fsopen(filesystem, FsOpenFlags::FSOPEN_CLOEXEC).attempt(action)?;
    for setting in settings {
        configure(context.as_fd(), *setting).attempt(|| format!("set {setting:?} of a {filesystem} file system"))?;
    }
    rustix::mount::fsconfig_create(context.as_fd()).attempt(action)?;
    let flags = MountAttrFlags::from_bits_retain(attributes.0 as u32);
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags).attempt(action)
}

fn configure(context: BorrowedFd<'_>, setting: Setting<'_>) -> rustix::io::Result<()> {
    match setting {
        Setting::Flag(key) => rustix::mount::fsconfig_set_flag(context, key),
        Setting::Text(key, value) => rustix::mount::fsconfig_set_string(context, key, value),
        Setting::File(key, file) => rustix::mount::fsconfig_set_fd(context, key, file),
    }
}

/// Whether what is mounted below comes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Only the mount itself.
    One,
    /// The mounts below it too.
    Recursive,
}

/// A detached copy of the mount at a path (a bind mount).
pub fn clone_tree(directory: BorrowedFd<'_>, path: &Path, depth: Depth) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if depth == Depth::Recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(directory, path, flags).attempt(|| format!("copy the mount at {}", path.display()))
}

/// Puts a detached mount at a path, in the mount namespace that `directory` belongs to. Symbolic links at the end of
/// the path are not followed.
pub fn attach(mount: BorrowedFd<'_>, directory: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    if path.as_os_str().is_empty() {
        flags |= MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    }
    rustix::mount::move_mount(mount, "", directory, path, flags).attempt(|| format!("mount at {}", path.display()))
}

/// Forbids more on a mount.
pub fn restrict(mount: BorrowedFd<'_>, depth: Depth, attributes: Attributes) -> Result<()> {
    set_attributes(mount, depth, attributes.0, 0, -1).attempt(|| "restrict a mount".into())
}

/// Shifts the owners of a detached mount by the map of a user namespace. The mount must not have been mapped before,
/// and its file system must allow it (EROFS, tmpfs, ext4, XFS, btrfs do; overlayfs does not, but its layers may be
/// mapped).
pub fn map_owners(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> Result<()> {
    set_attributes(mount, Depth::One, libc::MOUNT_ATTR_IDMAP, 0, user_namespace.as_raw_fd())
        .attempt(|| "map the owners of a mount".into())
}

/// Cuts a tree of mounts off from propagation.
pub fn make_private(mount: BorrowedFd<'_>) -> Result<()> {
    set_attributes(mount, Depth::Recursive, 0, libc::MS_PRIVATE, -1).attempt(|| "make a mount private".into())
}

fn set_attributes(
    mount: BorrowedFd<'_>,
    depth: Depth,
    set: u64,
    propagation: u64,
    user_namespace: i32,
) -> rustix::io::Result<()> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: user_namespace as u64 };
    let mut flags = libc::AT_EMPTY_PATH;
    if depth == Depth::Recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the path is a C string, `attr` lives through the call and its size is given; the kernel reads no other
    // memory of ours and changes none.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Makes the mount at `path` the root of this mount namespace and lets go of the old root with all below it.
pub fn pivot(path: &Path) -> Result<()> {
    let action = || format!("make {} the root", path.display());
    rustix::process::chdir(path).attempt(action)?;
    rustix::process::pivot_root(".", ".").attempt(action)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).attempt(action)?;
    rustix::process::chdir("/").attempt(action)
}

/// Takes a mount out of the namespace; it goes when its last user goes.
pub fn detach(path: &Path) -> Result<()> {
    rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .attempt(|| format!("unmount {}", path.display()))
}

/// Opens a path as a mount without copying it, for [`restrict`].
pub fn open(directory: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
    rustix::mount::open_tree(directory, path, OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH)
        .attempt(|| format!("open the mount at {}", path.to_string_lossy()))
}

pub(crate) fn last_errno() -> rustix::io::Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(rustix::io::Errno::IO, rustix::io::Errno::from_raw_os_error)
}
