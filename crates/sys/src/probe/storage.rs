//! The file system of the state directory.

use std::{
    fs::File,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

use super::{Check, State};

const ENOUGH: u64 = 4 << 30;
const TOO_LITTLE: u64 = 512 << 20;
/// `_IOWR('f', 134, struct fsverity_digest)` (linux/fsverity.h).
const FS_IOC_MEASURE_VERITY: libc::c_ulong = 0xc004_6686;

/// The directory, or the nearest above it that exists.
pub(super) fn nearest_existing(directory: &Path) -> PathBuf {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    absolute.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

pub(super) fn checks(directory: &Path) -> Vec<Check> {
    vec![free(directory), writable(directory), verity(directory), reflink(directory), formatting()]
}

/// A file that has no name and is gone with its descriptor.
fn unnamed(directory: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

fn free(directory: &Path) -> Check {
    let name = "free disk";
    let disk = match rustix::fs::statvfs(directory) {
        Ok(disk) => disk,
        Err(errno) => {
            let effect = "nothing can be stored";
            return Check::lacking(name, State::Missing, errno.to_string(), effect, "choose another --state");
        }
    };
    let free = disk.f_bavail * disk.f_frsize;
    let found = format!("{} MiB below {}", free >> 20, directory.display());
    let help = "run `kiln gc`, or choose a --state on a larger disk";
    match free {
        ENOUGH.. => Check::found(name, found),
        TOO_LITTLE.. => Check::lacking(name, State::Degraded, found, "a few bakes will fill the disk", help),
        _ => Check::lacking(name, State::Missing, found, "there is no room for one image", help),
    }
}

fn writable(directory: &Path) -> Check {
    let help = "choose a --state on a local, writable file system (ext4, XFS, btrfs)";
    Check::tried("state directory", unnamed(directory), State::Missing, "nothing can be stored", help)
}

fn verity(directory: &Path) -> Check {
    let name = "fs-verity";
    // SAFETY: the kernel writes at most 4 bytes of header and, with a digest size of 0 given, nothing after.
    let measured = unnamed(directory).map(|file| unsafe {
        let mut digest = [0u16; 2];
        libc::ioctl(file.as_raw_fd(), FS_IOC_MEASURE_VERITY as _, digest.as_mut_ptr());
        std::io::Error::last_os_error().raw_os_error()
    });
    // ENODATA: the file system knows fs-verity, and this file does not use it.
    if measured == Ok(Some(libc::ENODATA)) {
        return Check::found(name, "works");
    }
    let found = format!("not on the file system of {}", directory.display());
    let effect = "images are checked when they come in and by `kiln verify`, not by the kernel at every read";
    Check::lacking(
        name,
        State::Degraded,
        found,
        effect,
        "use ext4 or btrfs with the verity feature, Linux 6.6 or later",
    )
}

fn reflink(directory: &Path) -> Check {
    let tried = unnamed(directory).and_then(|from| {
        let to = unnamed(directory)?;
        rustix::fs::ioctl_ficlone(&to, &from)
    });
    let effect = "copies of large files take their time and their space";
    Check::tried("reflink", tried, State::Degraded, effect, "use XFS or btrfs for the state directory")
}

/// Programs that volumes are made and checked with, and the packages that have them.
fn formatting() -> Check {
    let name = "programs for volumes";
    let there = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        std::env::split_paths(&path).chain(usual).any(|directory| directory.join(program).is_file())
    };
    let missing: Vec<_> =
        ["mke2fs", "e2fsck", "resize2fs", "mkfs.xfs"].into_iter().filter(|program| !there(program)).collect();
    if missing.is_empty() {
        return Check::found(name, "mke2fs, e2fsck, resize2fs, mkfs.xfs");
    }
    let effect =
        "servers with volumes may not be launched: ext4 needs the first three, XFS and a pool of its own the last";
    Check::lacking(
        name,
        State::Degraded,
        format!("no {}", missing.join(", ")),
        effect,
        "install e2fsprogs and xfsprogs",
    )
}
