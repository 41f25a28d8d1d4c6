//! Freezing a file system (`FIFREEZE`, `FITHAW`; linux/fs.h): everything written is on its device, and nothing more is
//! written until it is thawed.
//!
//! A file system that stays frozen stops everything that writes to it, so it is never frozen by a process that may be killed:
//! a small process of its own does it, and thaws when it is told to, when whoever wants it is gone, or when the limit is
//! over, whatever comes first.

use std::{
    io::Read as _,
    os::{
        fd::{AsRawFd as _, BorrowedFd, RawFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use crate::error::{Attempt as _, Outcome, Result, SysError};

const FIFREEZE: libc::c_ulong = 0xC004_5877;
const FITHAW: libc::c_ulong = 0xC004_5878;
/// What was thawed because the limit was over.
const LATE: i32 = -1;

/// A frozen file system. It is thawed when this is dropped.
#[derive(Debug)]
pub struct Frozen {
    socket: UnixStream,
    pid: i32,
}

impl Frozen {
    /// Freezes the file system that `inside`, an open file or directory, is in, for at most `limit`.
    pub fn new(inside: BorrowedFd<'_>, limit: Duration) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().attempt(|| "make a pair of sockets".into())?;
        let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the child makes nothing but raw system calls on numbers copied before, and never returns: no lock, no
        // allocation, no destructor of this process runs in it.
        let pid = match unsafe { libc::fork() } {
            0 => hold(inside.as_raw_fd(), theirs.as_raw_fd(), millis),
            pid => pid,
        };
        drop(theirs);
        if pid < 0 {
            return Err(std::io::Error::last_os_error()).attempt(|| "start a process".into());
        }
        let mut frozen = Self { socket: ours, pid };
        // Writing everything that waits may take a while.
        frozen.socket.set_read_timeout(Some(limit)).attempt(|| "set up a socket".into())?;
        match frozen.answer()? {
            0 => Ok(frozen),
            errno => Err(SysError { action: "freeze a file system".into(), outcome: Outcome::from_errno(errno) }),
        }
    }

    /// Thaws. Fails if that happened before, because the limit was over: what was done meanwhile was not done to something
    /// at rest.
    pub fn thaw(mut self) -> Result<()> {
        // One that thawed by itself has ended.
        std::io::Write::write_all(&mut self.socket, &[1]).unwrap_or(());
        match self.answer()? {
            0 => Ok(()),
            LATE => Err(SysError { action: "keep a file system frozen".into(), outcome: Outcome::TimedOut }),
            errno => Err(SysError { action: "thaw a file system".into(), outcome: Outcome::from_errno(errno) }),
        }
    }

    fn answer(&mut self) -> Result<i32> {
        let mut answer = [0; 4];
        self.socket.read_exact(&mut answer).map_err(|error| SysError {
            action: "freeze a file system".into(),
            outcome: if error.kind() == std::io::ErrorKind::WouldBlock { Outcome::TimedOut } else { Outcome::Gone },
        })?;
        Ok(i32::from_ne_bytes(answer))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // The closed socket is what tells it to end.
        self.socket.shutdown(std::net::Shutdown::Both).unwrap_or(());
        // SAFETY: the process is our child and nobody else waits for it; no memory is written.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
    }
}

/// Thaws a file system that a process which was killed may have left frozen. One that is not frozen is a success.
pub fn thaw_left(inside: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the request takes no argument that is read.
    let result = unsafe { libc::ioctl(inside.as_raw_fd(), FITHAW as _, 0) };
    match std::io::Error::last_os_error() {
        error if result != 0 && error.raw_os_error() != Some(libc::EINVAL) => {
            Err(error).attempt(|| "thaw a file system".into())
        }
        _ => Ok(()),
    }
}

/// The process that freezes and thaws.
fn hold(inside: RawFd, socket: RawFd, limit: i32) -> ! {
    // SAFETY: raw system calls on numbers and on this stack frame alone, until the process ends.
    unsafe {
        libc::setsid();
        keep_open(inside.min(socket), inside.max(socket));
        let frozen = called(libc::ioctl(inside, FIFREEZE as _, 0));
        tell(socket, frozen);
        if frozen != 0 {
            // What somebody else froze is theirs to thaw.
            libc::_exit(1)
        }
        let mut poll = libc::pollfd { fd: socket, events: libc::POLLIN, revents: 0 };
        let late = libc::poll(&raw mut poll, 1, limit) == 0;
        let thawed = called(libc::ioctl(inside, FITHAW as _, 0));
        tell(socket, if late { LATE } else { thawed });
        libc::_exit(0)
    }
}

/// Closes all but two descriptors: a lock or a socket of the caller must not live on in here.
///
/// # Safety
/// Nothing else in this process may use a descriptor afterwards.
unsafe fn keep_open(low: RawFd, high: RawFd) {
    for (first, last) in [(0, low - 1), (low + 1, high - 1), (high + 1, RawFd::MAX)] {
        if first <= last {
            // SAFETY: as the caller promises.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}

fn called(result: libc::c_int) -> i32 {
    // SAFETY: the place of this thread's errno is always there.
    if result == 0 { 0 } else { unsafe { *libc::__errno_location() } }
}

fn tell(socket: RawFd, answer: i32) {
    let bytes = answer.to_ne_bytes();
    // SAFETY: the bytes live through the call.
    unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        os::fd::{AsFd as _, OwnedFd},
        process::{Command, Stdio},
        time::{Duration, Instant},
    };

    use rustix::fs::{Mode, OFlags, openat};

    use super::{Frozen, thaw_left};
    use crate::{
        loop_device::LoopDevice,
        mount::{self, Attributes, Setting},
    };

    /// A small ext4, mounted nowhere.
    fn small(directory: &std::path::Path) -> OwnedFd {
        let path = directory.join("image");
        let image = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        image.set_len(16 << 20).unwrap();
        let made = Command::new("mke2fs")
            .args(["-q", "-F", "-b", "4096", "-t", "ext4"])
            .arg(&path)
            .stdin(Stdio::null())
            .status();
        assert!(made.unwrap().success());
        let device = LoopDevice::attach(&image).unwrap();
        let source = device.path().display().to_string();
        let mount = mount::create("ext4", &[Setting::Text("source", &source)], Attributes::NONE).unwrap();
        openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    fn write(mount: &OwnedFd) -> Duration {
        let begun = Instant::now();
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(mount, "file", flags, Mode::from_raw_mode(0o644)).unwrap();
        rustix::io::write(file, b"x").unwrap();
        begun.elapsed()
    }

    #[test]
    fn root_a_frozen_file_system_is_thawed_when_told_when_dropped_and_when_the_limit_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let mount = small(directory.path());
        let frozen = Frozen::new(mount.as_fd(), Duration::from_secs(20)).unwrap();
        let busy = Frozen::new(mount.as_fd(), Duration::from_secs(1)).unwrap_err();
        assert_eq!(busy.outcome, crate::Outcome::Busy, "it is frozen already");
        frozen.thaw().unwrap();
        assert!(write(&mount) < Duration::from_secs(1));

        drop(Frozen::new(mount.as_fd(), Duration::from_secs(20)).unwrap());
        assert!(write(&mount) < Duration::from_secs(1));

        let frozen = Frozen::new(mount.as_fd(), Duration::from_millis(300)).unwrap();
        let waited = write(&mount);
        assert!(waited > Duration::from_millis(200), "nothing was written while it was frozen, but after {waited:?}");
        assert_eq!(frozen.thaw().unwrap_err().outcome, crate::Outcome::TimedOut);
        thaw_left(mount.as_fd()).unwrap();
    }

    #[test]
    fn root_it_is_thawed_when_whoever_froze_it_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let mount = small(directory.path());
        // SAFETY: the child freezes and is killed; nothing of it is used here.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let frozen = Frozen::new(mount.as_fd(), Duration::from_secs(60));
            std::mem::forget(frozen);
            // SAFETY: ends this process at once.
            unsafe {
                libc::raise(libc::SIGKILL);
                libc::_exit(1)
            }
        }
        // SAFETY: the process is our child; no memory is written.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        assert!(write(&mount) < Duration::from_secs(5));
    }
}
