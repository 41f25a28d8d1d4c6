//! The tree of devices that every server sees at `/dev`: one file system for all, read-only.

use std::os::fd::{AsFd as _, OwnedFd};

use kiln_sys::mount::{Attributes, Depth, restrict};
use rustix::fs::{AtFlags, FileType, Mode, makedev};

use crate::error::{OnFile as _, Result};

/// Character devices that are safe for everybody: name, major, minor (devices.txt).
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Mount points for file systems that each server has for itself.
const DIRECTORIES: [&str; 3] = ["pts", "shm", "mqueue"];

pub(super) fn tree() -> Result<OwnedFd> {
    let tree = super::tmpfs("64k", "0755", Attributes::NO_SUID | Attributes::NO_EXECUTE)?;
    let mode = Mode::from_raw_mode(0o666);
    for (name, major, minor) in NODES {
        rustix::fs::mknodat(&tree, name, FileType::CharacterDevice, mode, makedev(major, minor))
            .on("make the device", name)?;
        // mknod is subject to the caller's umask.
        rustix::fs::chmodat(&tree, name, mode, AtFlags::empty()).on("open to all the device", name)?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &tree, name).on("make the link", name)?;
    }
    // Where each server's own socket is mounted.
    rustix::fs::mknodat(&tree, "log", FileType::RegularFile, Mode::from_raw_mode(0o444), 0).on("make", "log")?;
    for name in DIRECTORIES {
        rustix::fs::mkdirat(&tree, name, Mode::from_raw_mode(0o755)).on("make the directory", name)?;
    }
    restrict(tree.as_fd(), Depth::One, Attributes::READ_ONLY)?;
    Ok(tree)
}
