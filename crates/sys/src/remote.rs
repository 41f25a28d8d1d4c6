//! Mounting a file system of another machine: the other machine may be away, and the kernel waits for it in ways that no time limit of
//! a call ends.
//!
//! A small process of its own does it. It hands the mount over, or is killed when the limit is over, also when whoever asked is
//! gone. Who waits never waits longer than the limit, even if the process cannot be killed at once.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
    time::Duration,
};

use crate::{
    error::{Attempt as _, Outcome, Result, SysError},
    fds,
    mount::Attributes,
};

/// What is mounted, and by whom it must be usable.
#[derive(Debug, Clone)]
pub struct Remote {
    /// `nfs4`, `nfs`.
    pub filesystem: CString,
    /// Settings; a flag has no value.
    pub settings: Vec<(CString, Option<CString>)>,
    /// What the mount forbids.
    pub attributes: Attributes,
    /// A user of this host that must be able to read and enter the top directory, and to write there where that is true.
    pub user: (u32, bool),
}

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The kernel was asked for the file system.
    Kind,
    /// The setting of this number was told.
    Setting(usize),
    /// The other machine was asked.
    Connect,
    /// The user tried to use it.
    Use,
}

/// How it ended.
#[derive(Debug)]
pub enum Answer {
    /// A detached mount.
    Mounted(OwnedFd),
    /// It cannot be mounted, or not used.
    Refused {
        /// What was refused.
        step: Step,
        /// Why.
        reason: Reason,
        /// What the kernel says of it, often nothing.
        said: String,
    },
    /// Nothing was answered within the limit.
    Silent,
}

/// Why it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// ENODEV: the kernel does not know it.
    Unknown,
    /// EPROTONOSUPPORT: the kernel, or the other machine, does not speak this version.
    Version,
    /// ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, EHOSTDOWN: nobody answered.
    Unanswered,
    /// ECONNREFUSED: nothing listens there.
    NoService,
    /// EACCES, EPERM.
    NotPermitted,
    /// ENOENT.
    Absent,
    /// EINVAL.
    Invalid,
    /// Any other errno.
    Other(i32),
}

impl Reason {
    fn of(errno: i32) -> Self {
        match errno {
            libc::ENODEV => Self::Unknown,
            libc::EPROTONOSUPPORT => Self::Version,
            libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN => Self::Unanswered,
            libc::ECONNREFUSED => Self::NoService,
            libc::EACCES | libc::EPERM => Self::NotPermitted,
            libc::ENOENT => Self::Absent,
            libc::EINVAL => Self::Invalid,
            other => Self::Other(other),
        }
    }
}

const SET_STRING: u32 = 1;
const SET_FLAG: u32 = 0;
const CREATE: u32 = 6;
const CLOEXEC: u32 = 1;
/// Room for what the kernel says.
const SAID: usize = 256;
const USE: i32 = -1;
const CONNECT: i32 = -2;
const KIND: i32 = -3;

/// What the process says: the step (below zero, or the number of a setting), the errno, and the kernel's words.
#[repr(C)]
struct Told {
    step: i32,
    errno: i32,
    length: u32,
    said: [u8; SAID],
}

/// Mounts it, or says why not, within the limit.
pub fn mount(remote: &Remote, limit: Duration) -> Result<Answer> {
    let (ours, theirs) = fds::message_pair()?;
    // SAFETY: the child makes nothing but raw system calls on memory that was prepared before, and never returns: no lock, no
    // allocation, no destructor of this process runs in it.
    let pid = match unsafe { libc::fork() } {
        0 => work(remote, theirs.as_raw_fd()),
        pid => pid,
    };
    drop(theirs);
    if pid < 0 {
        return Err(std::io::Error::last_os_error()).attempt(|| "start a process".into());
    }
    let answer = match fds::wait_readable(ours.as_fd(), limit) {
        Ok(true) => answer(&ours),
        Ok(false) => Ok(Answer::Silent),
        Err(error) => Err(error),
    };
    end(pid);
    answer
}

fn answer(socket: &OwnedFd) -> Result<Answer> {
    let mut bytes = [0; size_of::<Told>()];
    let (count, mut received) = fds::receive(socket.as_fd(), &mut bytes)?;
    if count < 12 {
        return Err(SysError { action: "mount in a process of its own".into(), outcome: Outcome::Gone });
    }
    if let Some(mount) = received.pop() {
        return Ok(Answer::Mounted(mount));
    }
    let number = |at: usize| i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let step = match number(0) {
        USE => Step::Use,
        CONNECT => Step::Connect,
        KIND => Step::Kind,
        setting => Step::Setting(setting as usize),
    };
    let said = &bytes[12..(12 + number(8).clamp(0, SAID as i32) as usize).min(count)];
    let said = String::from_utf8_lossy(said).trim().to_owned();
    Ok(Answer::Refused { step, reason: Reason::of(number(4)), said })
}

/// Kills the process. One that the kernel does not let go of at once is waited for by a thread.
fn end(pid: i32) {
    // SAFETY: the process is our child and nobody else waits for it; no memory is written.
    let ended = move |flags| unsafe { libc::waitpid(pid, std::ptr::null_mut(), flags) } != 0;
    // SAFETY: as above; it was not waited for yet, so the number is still its own.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    for _ in 0..50 {
        if ended(libc::WNOHANG) {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::spawn(move || ended(0));
}

/// The process.
fn work(remote: &Remote, socket: RawFd) -> ! {
    // SAFETY: raw system calls on numbers, on this stack frame, and on memory of the parent's that was copied with it.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::syscall(libc::SYS_close_range, 0, socket - 1, 0);
        libc::syscall(libc::SYS_close_range, socket + 1, RawFd::MAX, 0);
        let context = libc::syscall(libc::SYS_fsopen, remote.filesystem.as_ptr(), CLOEXEC) as RawFd;
        if context < 0 {
            refuse(socket, -1, KIND)
        }
        for (number, (key, value)) in remote.settings.iter().enumerate() {
            let (command, value) = value.as_ref().map_or((SET_FLAG, std::ptr::null()), |v| (SET_STRING, v.as_ptr()));
            if libc::syscall(libc::SYS_fsconfig, context, command, key.as_ptr(), value, 0) != 0 {
                refuse(socket, context, number as i32)
            }
        }
        let nothing = std::ptr::null::<libc::c_char>();
        if libc::syscall(libc::SYS_fsconfig, context, CREATE, nothing, nothing, 0) != 0 {
            refuse(socket, context, CONNECT)
        }
        let mount = libc::syscall(libc::SYS_fsmount, context, CLOEXEC, remote.attributes.bits()) as RawFd;
        if mount < 0 {
            refuse(socket, context, CONNECT)
        }
        let (user, writes) = remote.user;
        libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>());
        let became = libc::syscall(libc::SYS_setresgid, user, user, user) == 0
            && libc::syscall(libc::SYS_setresuid, user, user, user) == 0;
        let rights = libc::R_OK | libc::X_OK | if writes { libc::W_OK } else { 0 };
        let empty: &CStr = c"";
        let here = libc::AT_EMPTY_PATH;
        if !became || libc::syscall(libc::SYS_faccessat2, mount, empty.as_ptr(), rights, here) != 0 {
            refuse(socket, -1, USE)
        }
        hand_over(socket, mount);
        libc::_exit(0)
    }
}

/// Says why not, in the kernel's words where it has some, and ends.
///
/// # Safety
/// Only in the process that mounts.
unsafe fn refuse(socket: RawFd, context: RawFd, step: i32) -> ! {
    // SAFETY: the place of this thread's errno is always there; the buffer is as long as said.
    unsafe {
        let mut told = Told { step, errno: *libc::__errno_location(), length: 0, said: [0; SAID] };
        let read = libc::read(context, told.said.as_mut_ptr().cast(), SAID);
        told.length = u32::try_from(read).unwrap_or(0);
        libc::send(socket, (&raw const told).cast(), size_of::<Told>(), libc::MSG_NOSIGNAL);
        libc::_exit(1)
    }
}

/// Sends the mount.
///
/// # Safety
/// Only in the process that mounts.
unsafe fn hand_over(socket: RawFd, mount: RawFd) {
    let mut told = Told { step: 0, errno: 0, length: 0, said: [0; SAID] };
    let mut control = [0_u64; 4];
    let mut part = libc::iovec { iov_base: (&raw mut told).cast(), iov_len: size_of::<Told>() };
    // SAFETY: all of it lives on this stack frame, which outlives the call; the control buffer has room for one descriptor.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(mount);
        libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(filesystem: &CStr, settings: &[(&CStr, Option<&CStr>)], user: (u32, bool)) -> Remote {
        Remote {
            filesystem: filesystem.to_owned(),
            settings: settings.iter().map(|(key, value)| ((*key).to_owned(), value.map(CStr::to_owned))).collect(),
            attributes: Attributes::NO_SUID | Attributes::NO_DEVICES,
            user,
        }
    }

    const LIMIT: Duration = Duration::from_secs(5);

    #[test]
    fn root_a_mount_is_handed_over_or_refused_with_the_step() {
        let good = mount(&remote(c"tmpfs", &[(c"mode", Some(c"0755"))], (1000, false)), LIMIT).unwrap();
        let Answer::Mounted(mounted) = good else { panic!("{good:?}") };
        rustix::fs::openat(&mounted, "x", rustix::fs::OFlags::CREATE, rustix::fs::Mode::RUSR).unwrap();
        let unknown = mount(&remote(c"nosuchfs", &[], (0, false)), LIMIT).unwrap();
        assert!(matches!(unknown, Answer::Refused { step: Step::Kind, reason: Reason::Unknown, .. }), "{unknown:?}");
        let setting =
            mount(&remote(c"tmpfs", &[(c"mode", Some(c"0755")), (c"nosuch", None)], (0, false)), LIMIT).unwrap();
        let Answer::Refused { step: Step::Setting(1), reason: Reason::Invalid, said } = setting else {
            panic!("{setting:?}")
        };
        assert!(said.contains("nosuch"), "the kernel's words: {said:?}");
        let writes = mount(&remote(c"tmpfs", &[(c"mode", Some(c"0755"))], (1000, true)), LIMIT).unwrap();
        assert!(matches!(writes, Answer::Refused { step: Step::Use, reason: Reason::NotPermitted, .. }), "{writes:?}");
    }

    #[test]
    fn root_who_does_not_answer_is_not_waited_for_beyond_the_limit() {
        let begun = std::time::Instant::now();
        let silent = mount(&remote(c"tmpfs", &[], (0, false)), Duration::ZERO);
        assert!(matches!(silent, Ok(Answer::Silent | Answer::Mounted(_))), "{silent:?}");
        assert!(begun.elapsed() < LIMIT);
    }
}
