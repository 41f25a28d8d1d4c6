//! The kernel calls that no safe library offers; the only unsafe code of this program.

use std::{
    ffi::{CStr, CString, c_char},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::io::Errno;

fn last() -> Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 { Err(last()) } else { Ok(result) }
}

/// The socket that the runtime left at [`kiln_boot::spec::SOCKET`]; none if there is no socket.
pub(crate) fn inherited_socket() -> Option<OwnedFd> {
    let number = kiln_boot::spec::SOCKET;
    // SAFETY: borrowed only for this look; -1 is not used.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::net::sockopt::socket_type(borrowed).ok()?;
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC).ok()?;
    // SAFETY: it is open, and this is the only place in the program that takes it, called once.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Changes what a mount forbids.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, set: u64) -> Result<(), Errno> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is a C string, `attr` lives through the call, and its size is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(|_| ())
}

/// Brings the loopback interface up (netdevice(7)).
pub(crate) fn loopback_up() -> Result<(), Errno> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: all-zero is a valid value of this structure of integers and bytes.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as c_char;
    request.ifr_name[1] = b'o' as c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which lives through the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }.into()).map(|_| ())
}

/// Installs a compiled seccomp program (8 bytes per instruction) for this process and what it starts.
pub(crate) fn install_filter(program: &[u8]) -> Result<(), Errno> {
    let length = u16::try_from(program.len() / 8).map_err(|_| Errno::TOOBIG)?;
    // The kernel copies from any address; the alignment of sock_filter is not asked for.
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `filter` and the instructions it points to live through the call, and the kernel only reads them.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) }).map(|_| ())
}

/// Blocks every signal and makes a descriptor that tells of children's ends.
pub(crate) fn child_signals() -> Result<OwnedFd, Errno> {
    set_mask(u64::MAX)?;
    let children: u64 = 1 << (libc::SIGCHLD - 1);
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the set is 8 bytes, the kernel's size, and lives through the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const children, 8, flags) })?;
    // SAFETY: the call returned a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sets the mask of blocked signals.
fn set_mask(mask: u64) -> Result<(), Errno> {
    // SAFETY: the set is 8 bytes, the kernel's size, and lives through the call; the old one is not asked for.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, std::ptr::null::<u64>(), 8)
    })
    .map(|_| ())
}

/// Signals as a new program expects them: none blocked, none ignored (the Rust runtime ignores SIGPIPE).
pub(crate) fn default_signals() -> Result<(), Errno> {
    // SAFETY: SIG_DFL installs no handler of ours.
    let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    if before == libc::SIG_ERR {
        return Err(last());
    }
    set_mask(0)
}

/// What [`fork`] returns.
pub(crate) enum Forked {
    /// In the new process.
    Child,
    /// In this process: the new one's number.
    Parent(rustix::process::Pid),
}

/// Makes a copy of this process.
pub(crate) fn fork() -> Result<Forked, Errno> {
    // SAFETY: this program has one thread, so the copy is whole: no lock is held by a thread that is not there.
    let pid = check(unsafe { libc::fork() }.into())?;
    Ok(rustix::process::Pid::from_raw(pid as i32).map_or(Forked::Child, Forked::Parent))
}

/// Executes a program; returns only if that failed.
pub(crate) fn execute(path: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    let terminated = |strings: &[CString]| {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<*const c_char>>()
    };
    let (argv, envp) = (terminated(arguments), terminated(environment));
    // SAFETY: both vectors end with a null pointer and point to C strings that live through the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    last()
}

/// Ends this process without running anything registered by the process it is a copy of.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Makes a terminal the controlling one of this session.
pub(crate) fn control_terminal(terminal: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: TIOCSCTTY takes a number and touches no memory.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(|_| ())
}

/// Sends a signal to every process of a group, or, for one that is not known as a safe type, to one process.
pub(crate) fn send_signal(target: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: touches no memory.
    check(unsafe { libc::kill(target, signal) }.into()).map(|_| ())
}
