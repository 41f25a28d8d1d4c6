//! Ephemeral directories: a memory file system that starts as a copy of the image's directory.
//!
//! An overlay would share what is not changed, but the root is an overlay over a file-backed EROFS already, and the
//! kernel stacks no more than two. What images have in such directories is small (an empty data directory and its
//! owner, mostly), and the copy is bounded by the size the recipe gives.

use std::{
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use kiln_sys::mount::{Attributes, Setting};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawDir, Stat, Timespec, Timestamps, Uid};

use crate::error::{OnFile as _, Result, RuntimeError};

/// Deeper trees are refused.
const MAX_DEPTH: usize = 64;

/// Copies `path` of the tree at `root` to a new memory file system of at most `size` bytes. Owners are copied as the
/// host sees them, and so stay what they are inside.
pub(crate) fn copy_of(root: BorrowedFd<'_>, path: &str, size: u64) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let from = kiln_sys::within::open(root, path, flags, Mode::empty()).on("open", path)?;
    let stat = rustix::fs::fstat(&from).on("look at", path)?;
    let text = size.to_string();
    let attributes = Attributes::NO_SUID | Attributes::NO_DEVICES;
    let tree = kiln_sys::mount::create("tmpfs", &[Setting::Text("size", &text)], attributes)?;
    copy_directory(&from, &tree, path, 0)?;
    take_after(tree.as_fd(), ".", &stat).on("copy", path)?;
    Ok(tree)
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, path: &str, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(RuntimeError::Manifest { what: format!("a changeable {path}"), why: "is too deep to be copied" });
    }
    let mut names = Vec::new();
    let mut buffer = Vec::with_capacity(8192);
    let mut entries = RawDir::new(from, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.on("list", path)?;
        let name = entry.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            names.push(name);
        }
    }
    for name in names {
        let stat = rustix::fs::statat(from, &name, AtFlags::SYMLINK_NOFOLLOW).on("look at", path)?;
        let below = format!("{path}/{}", name.to_string_lossy());
        copy_entry(from, to, &name, &stat, &below, depth)?;
    }
    Ok(())
}

fn copy_entry(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &std::ffi::CStr,
    stat: &Stat,
    path: &str,
    depth: usize,
) -> Result<()> {
    let private = Mode::from_raw_mode(0o700);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inner = rustix::fs::openat(from, name, flags, Mode::empty()).on("open", path)?;
            rustix::fs::mkdirat(to, name, private).on("copy", path)?;
            let copy = rustix::fs::openat(to, name, flags, Mode::empty()).on("copy", path)?;
            copy_directory(&inner, &copy, path, depth + 1)?;
        }
        FileType::RegularFile => copy_file(from, to, name).on("copy", path)?,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new()).on("read", path)?;
            rustix::fs::symlinkat(&target, to, name).on("copy", path)?;
        }
        // Sockets and pipes are made by who uses them; devices do not work on these mounts.
        _ => return Ok(()),
    }
    take_after(to.as_fd(), name, stat).on("copy", path)
}

fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &std::ffi::CStr) -> std::io::Result<()> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut source = std::fs::File::from(rustix::fs::openat(from, name, read, Mode::empty())?);
    let mut copy = std::fs::File::from(rustix::fs::openat(to, name, write, Mode::from_raw_mode(0o600))?);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(()),
            count => copy.write_all(&buffer[..count])?,
        }
    }
}

/// Owner first: changing it clears bits of the mode. The time last: everything else changes it.
fn take_after(directory: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        rustix::fs::chmodat(directory, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    let time = Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}
