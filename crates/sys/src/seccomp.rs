//! The filter of system calls that servers live under: built once, installed by PID 1.
//!
//! An allow-list close to Docker's default profile for a process with few capabilities. What it refuses answers EPERM;
//! `clone3` answers ENOSYS, because its flags are behind a pointer that a filter cannot see, and C libraries then fall back
//! to `clone`, whose flags it can.
//!
//! The kernel runs a new filter once for every system call when it is installed, to learn which ones it always allows.
//! A list of comparisons, as common compilers make it, so costs a server's start 1.7 ms; this one is a binary search
//! over ranges of numbers and costs less than a tenth of that.

use std::{collections::BTreeMap, sync::OnceLock};

mod allowed;
mod program;

use program::{Check, Verdict};

/// Namespace flags of `clone`, without CLONE_NEWTIME, which shares its bits with the exit signal there.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// The families servers use. Not VSOCK, which reaches the hypervisor past the network namespace, and not the many
/// others that are attack surface and nothing else.
const SOCKETS: [u32; 4] = [libc::AF_UNIX as u32, libc::AF_INET as u32, libc::AF_INET6 as u32, libc::AF_NETLINK as u32];

/// The personas of Linux (also of 32 bits of address, and of the old short release number), and asking for the current one.
const PERSONAS: [u32; 5] = [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Calls that wait for the disk.
const SYNC: [i64; 5] =
    [libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_sync, libc::SYS_syncfs, libc::SYS_sync_file_range];

/// Putting characters into a terminal as if typed (TIOCSTI, TIOCLINUX).
const TYPING: [u32; 2] = [0x5412, 0x541c];

/// What makes a file run as its owner or its group.
const MARKS: u32 = libc::S_ISUID | libc::S_ISGID;

/// `struct sock_filter` as bytes, each program ready for `seccomp(SECCOMP_SET_MODE_FILTER)`; install in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// 8 bytes per instruction: code (u16), jt (u8), jf (u8), k (u32), all in native order.
    pub programs: Vec<Vec<u8>>,
}

/// The filter for servers.
pub fn server_filter() -> &'static Filter {
    static FILTER: OnceLock<Filter> = OnceLock::new();
    FILTER.get_or_init(|| filter(verdicts()))
}

/// The filter for build steps: that of servers, and `chroot`, which package managers use below their own root. Waiting for
/// the disk is answered with success at once: a tree that a crash cut short is thrown away, and its files are made durable
/// when they enter the store. dpkg alone waits several times for each package.
pub fn build_filter() -> &'static Filter {
    static FILTER: OnceLock<Filter> = OnceLock::new();
    FILTER.get_or_init(|| filter(build_verdicts()))
}

/// A filter to install beside that of servers, where a server writes to a directory that the host sees: nobody inside can make a
/// file that runs as its owner or its group. On a server's own mounts such files mean nothing, on the host they would.
///
/// `openat2` has its mode behind a pointer and answers ENOSYS, on which its users fall back to `openat`.
pub fn marks_filter() -> &'static Filter {
    static FILTER: OnceLock<Filter> = OnceLock::new();
    FILTER.get_or_init(|| Filter { programs: vec![program::bytes(&program::compile(&marks(), Verdict::Allow))] })
}

fn marks() -> BTreeMap<u32, Verdict> {
    let mode = |index| Verdict::Argument { index, check: Check::NoneOfBits(MARKS) };
    let checked = [
        (libc::SYS_chmod, mode(1)),
        (libc::SYS_fchmod, mode(1)),
        (libc::SYS_fchmodat, mode(2)),
        (libc::SYS_fchmodat2, mode(2)),
        (libc::SYS_creat, mode(1)),
        (libc::SYS_mknod, mode(1)),
        (libc::SYS_mknodat, mode(2)),
        (libc::SYS_open, Verdict::Open { flags: 1, mode: 2, bits: MARKS }),
        (libc::SYS_openat, Verdict::Open { flags: 2, mode: 3, bits: MARKS }),
        (libc::SYS_openat2, Verdict::Refuse(libc::ENOSYS as u16)),
    ];
    checked.into_iter().map(|(call, verdict)| (call as u32, verdict)).collect()
}

fn build_verdicts() -> BTreeMap<u32, Verdict> {
    let mut verdicts = verdicts();
    verdicts.insert(libc::SYS_chroot as u32, Verdict::Allow);
    verdicts.extend(SYNC.map(|call| (call as u32, Verdict::Refuse(0))));
    verdicts
}

fn filter(verdicts: BTreeMap<u32, Verdict>) -> Filter {
    Filter { programs: vec![program::bytes(&program::compile(&verdicts, program::REFUSED))] }
}

fn verdicts() -> BTreeMap<u32, Verdict> {
    let mut verdicts: BTreeMap<u32, Verdict> =
        allowed::ALLOWED.iter().map(|call| (*call as u32, Verdict::Allow)).collect();
    let argument = |index, check| Verdict::Argument { index, check };
    let checked = [
        (libc::SYS_clone, argument(0, Check::NoneOfBits(NEW_NAMESPACES))),
        (libc::SYS_clone3, Verdict::Refuse(libc::ENOSYS as u16)),
        (libc::SYS_socket, argument(0, Check::OneOf(&SOCKETS))),
        (libc::SYS_personality, argument(0, Check::OneOf(&PERSONAS))),
        (libc::SYS_ioctl, argument(1, Check::NoneOf(&TYPING))),
    ];
    verdicts.extend(checked.map(|(call, verdict)| (call as u32, verdict)));
    verdicts
}
