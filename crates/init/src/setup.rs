//! Executes the operations that shape this server ([`kiln_boot::setup`]).

use std::{
    fs::File,
    io::Read as _,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use kiln_boot::{
    setup::{Mount, NEW_ROOT, Operation},
    users::{self, User},
};
use rustix::{
    fs::{CWD, FileType, Mode},
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

use crate::{Failure, Trying as _, kernel};

/// Executes in order; the first failure ends it. Answers with the socket of `/dev/log`, once it is made.
pub(crate) fn execute(operations: &[Operation], fds: &[OwnedFd]) -> Result<Option<OwnedFd>, Failure> {
    let mut log = None;
    for operation in operations {
        match operation {
            Operation::LogSocket { path, via } => log = Some(log_socket(path, via).trying(|| operation.to_string())?),
            other => one(other, fds).trying(|| other.to_string())?,
        }
    }
    Ok(log)
}

/// The name it is made by is removed: what is mounted stays, and only PID 1 could unmount it.
fn log_socket(path: &str, via: &str) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(via)?)?;
    rustix::fs::chmod(via, Mode::from_raw_mode(0o666))?;
    let copy = copy_of(via)?;
    kernel::mount_setattr(copy.as_fd(), u64::from(kiln_boot::setup::READ_ONLY))?;
    attach(copy.as_fd(), path)?;
    rustix::fs::unlink(via)?;
    Ok(socket)
}

fn one(operation: &Operation, fds: &[OwnedFd]) -> Result<(), Errno> {
    match operation {
        // Made by `execute`, which keeps it.
        Operation::LogSocket { .. } => Ok(()),
        Operation::ForbidNamespaces => write("/stage/proc/sys/user/max_user_namespaces", "0"),
        Operation::Loopback => kernel::loopback_up(),
        Operation::Hostname { name } => rustix::system::sethostname(name.as_bytes()),
        Operation::Mount(mount) => new_file_system(mount),
        Operation::Attach { descriptor, path, optional } => {
            let mount = fds.get(*descriptor).ok_or(Errno::BADF)?;
            unless_absent(attach(mount.as_fd(), path), *optional)
        }
        Operation::Move { from, to, optional } => {
            let moved = rustix::mount::move_mount(CWD, from.as_str(), CWD, to.as_str(), MoveMountFlags::empty());
            unless_absent(moved, *optional)
        }
        Operation::ReadOnly { path } => unless_absent(read_only(path), true),
        Operation::Mask { path, null } => unless_absent(mask(path, null), true),
        Operation::Directory { path, mode } => rustix::fs::mkdir(path.as_str(), Mode::from_raw_mode(*mode)),
        Operation::Own { path, owner, mode } => own(path, owner, *mode),
        Operation::Pivot => pivot(),
    }
}

/// ELOOP and EINVAL are what a symbolic link as a mount point gives: the image points elsewhere.
fn unless_absent(result: Result<(), Errno>, optional: bool) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL) if optional => Ok(()),
        other => other,
    }
}

fn write(path: &str, text: &str) -> Result<(), Errno> {
    let file = rustix::fs::open(path, rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text.as_bytes()).map(|_| ())
}

fn attach(mount: BorrowedFd<'_>, path: &str) -> Result<(), Errno> {
    rustix::mount::move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn new_file_system(mount: &Mount) -> Result<(), Errno> {
    let context = rustix::mount::fsopen(mount.filesystem.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in &mount.settings {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(context.as_fd(), key.as_str(), value.as_str())?,
            None => rustix::mount::fsconfig_set_flag(context.as_fd(), key.as_str())?,
        }
    }
    if let Some(owner) = &mount.owner {
        let owner = find_user(owner)?;
        rustix::mount::fsconfig_set_string(context.as_fd(), "uid", owner.uid.to_string())?;
        rustix::mount::fsconfig_set_string(context.as_fd(), "gid", owner.gid.to_string())?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::from_bits_retain(mount.attributes);
    let made = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    unless_absent(attach(made.as_fd(), &mount.path), mount.optional)
}

fn copy_of(path: &str) -> Result<OwnedFd, Errno> {
    rustix::mount::open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
}

fn read_only(path: &str) -> Result<(), Errno> {
    let copy = copy_of(path)?;
    kernel::mount_setattr(copy.as_fd(), u64::from(kiln_boot::setup::READ_ONLY))?;
    attach(copy.as_fd(), path)
}

fn mask(path: &str, null: &str) -> Result<(), Errno> {
    let stat = rustix::fs::lstat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let attributes = kiln_boot::setup::READ_ONLY | kiln_boot::setup::NO_EXECUTE | kiln_boot::setup::NO_DEVICES;
        return new_file_system(&Mount {
            filesystem: "tmpfs".into(),
            settings: vec![("size".into(), Some("4k".into())), ("mode".into(), Some("0555".into()))],
            attributes,
            path: path.into(),
            owner: None,
            optional: true,
        });
    }
    attach(copy_of(null)?.as_fd(), path)
}

fn own(path: &str, owner: &str, mode: u32) -> Result<(), Errno> {
    let user = find_user(owner)?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(user.uid), rustix::fs::Gid::from_raw(user.gid));
    rustix::fs::chown(path, Some(uid), Some(gid))?;
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))
}

/// The old root ends up on top of the new one and is let go of with all that is mounted below it.
fn pivot() -> Result<(), Errno> {
    rustix::process::chdir(NEW_ROOT)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

/// Finds a user of the image.
pub(crate) fn find_user(user: &str) -> Result<User, Errno> {
    let (passwd, group) = (bounded("/etc/passwd"), bounded("/etc/group"));
    users::find(user, &passwd, &group).ok_or(Errno::NOKEY)
}

fn bounded(path: &str) -> String {
    let mut text = Vec::with_capacity(4096);
    // An image without the file has no users but root and numbers.
    if let Ok(file) = File::open(path)
        && file.take(users::MAX_FILE).read_to_end(&mut text).is_err()
    {
        text.clear();
    }
    String::from_utf8_lossy(&text).into_owned()
}
