//! Opening a path that stays within a root, whatever symbolic links it holds: `openat2` with `RESOLVE_IN_ROOT`; and one that has
//! none at all: `RESOLVE_BENEATH`.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};

/// Where something on the host was renamed or mounted meanwhile, the kernel cannot tell whether a `..` stays within the root, and
/// wants to be asked again (openat2(2), EAGAIN). A host that is never at rest for so long is an error.
const ATTEMPTS: u32 = 1000;

/// Opens `path` with `root` as its root. The kernel resolves it; magic links are refused.
pub fn open(root: impl AsFd, path: &str, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
    let (flags, resolve) = (flags | OFlags::CLOEXEC, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS);
    patiently(|| openat2(root.as_fd(), path, flags, mode, resolve))
}

/// Opens an entry of a directory, or what lies beneath it on the same file system; over no symbolic link.
pub fn below(directory: impl AsFd, path: &std::ffi::CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let (flags, resolve) = (
        flags | OFlags::CLOEXEC,
        ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    );
    patiently(|| openat2(directory.as_fd(), path, flags, Mode::empty(), resolve))
}

fn patiently(open: impl Fn() -> rustix::io::Result<OwnedFd>) -> rustix::io::Result<OwnedFd> {
    let mut left = ATTEMPTS;
    loop {
        match open() {
            Err(Errno::AGAIN | Errno::INTR) if left > 0 => left -= 1,
            answer => return answer,
        }
    }
}
