//! What a process does to itself between [`crate::spawn`]'s clone and the program it executes by path: its root, its
//! `/proc`, its host name, its system call filter and its capabilities.
//!
//! A server's PID 1 does this for itself; a build step is any program of a tree that may hold nothing else, so there is
//! nobody inside to do it. All of it runs as raw system calls on data prepared before, as everything in
//! [`crate::spawn`] does, and in an order that matters:
//!
//! 1. the death signal first, so that a caller that dies meanwhile leaves nothing;
//! 2. `/proc` while the host's is still in the mount namespace, because the kernel lets a user namespace mount one only
//!    where it sees a whole one already; then the new root, and the old one is let go;
//! 3. the filter while the process may still install one without giving up set-user-id programs;
//! 4. the capabilities last but one, because all before needs them; then the user, whom the kernel takes the rest of them.

use std::{
    ffi::{CStr, c_void},
    os::fd::{AsRawFd, BorrowedFd, RawFd},
};

use rustix::io::Errno;

use crate::mount::last_errno;

/// Version 3 of the capability system calls (linux/capability.h).
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const LAST_CAPABILITY: i32 = 63;

/// How a process confines itself.
#[derive(Debug)]
pub struct Confinement<'a> {
    /// The new root, as a path in the mount namespace it is started in; a mount point.
    pub root: &'a CStr,
    /// Paths below `/proc` that become read-only; those that do not exist are left out.
    pub read_only: &'a [&'a CStr],
    /// Paths that detached mounts are put over; those that do not exist are left out.
    pub covers: &'a [(&'a CStr, BorrowedFd<'a>)],
    /// Host name.
    pub hostname: &'a CStr,
    /// Working directory inside the new root.
    pub working_directory: &'a CStr,
    /// Descriptor 0 is a terminal, which becomes the one that the process's session is controlled by.
    pub terminal: bool,
    /// The program inside the new root.
    pub program: &'a CStr,
    /// Who the process is in the end; root of its namespace where nobody is named. Others than root keep no capability.
    pub user: Option<User<'a>>,
    /// Capabilities to keep, bit n for capability n.
    pub capabilities: u64,
    /// Filters of system calls, installed in order (see [`crate::seccomp::Filter`]).
    pub filters: &'a [Vec<u8>],
}

/// Somebody else than root.
#[derive(Debug, Clone, Copy)]
pub struct User<'a> {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups.
    pub groups: &'a [u32],
}

/// The steps, for messages. [`confine`] answers the index of the one that failed.
pub(crate) const STEPS: [&str; 11] = [
    "ask to be ended with its caller",
    "take the terminal",
    "set the host name",
    "enter the new root",
    "mount /proc",
    "let go of the old root",
    "mask /proc",
    "enter the working directory",
    "install the system call filter",
    "drop capabilities",
    "become the user",
];

type Step = std::result::Result<(), Errno>;

fn check(result: libc::c_long) -> std::result::Result<libc::c_long, Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

/// Confines the calling process for good. Allocates nothing.
pub(crate) fn confine(to: &Confinement<'_>) -> std::result::Result<(), (u32, Errno)> {
    let steps: [&dyn Fn() -> Step; 11] = [
        &die_with_parent,
        &|| take_terminal(to.terminal),
        &|| set_hostname(to.hostname),
        &|| enter(to.root),
        &mount_proc,
        &pivot,
        &|| mask(to),
        &|| change_directory(to.working_directory),
        &|| install_filters(to.filters),
        &|| drop_capabilities(to.capabilities),
        &|| become_user(to.user),
    ];
    for (index, step) in steps.iter().enumerate() {
        step().map_err(|errno| (index as u32, errno))?;
    }
    Ok(())
}

fn die_with_parent() -> Step {
    // SAFETY: takes only integers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }.into()).map(drop)
}

fn take_terminal(wanted: bool) -> Step {
    if !wanted {
        return Ok(());
    }
    // SAFETY: takes only integers.
    check(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }.into()).map(drop)
}

fn set_hostname(name: &CStr) -> Step {
    // SAFETY: the length is that of the string.
    check(unsafe { libc::sethostname(name.as_ptr(), name.to_bytes().len()) }.into()).map(drop)
}

fn change_directory(path: &CStr) -> Step {
    // SAFETY: takes a C string; umask takes an integer.
    unsafe {
        libc::umask(0o022);
        check(libc::chdir(path.as_ptr()).into()).map(drop)
    }
}

/// A mount that was copied into this user namespace's mount namespace is locked and cannot become the root; a copy of
/// it made here is not.
fn enter(root: &CStr) -> Step {
    let flags = libc::OPEN_TREE_CLONE | libc::AT_RECURSIVE as libc::c_uint | libc::OPEN_TREE_CLOEXEC;
    let copy = open_tree(root, flags)?;
    attach(copy, root)?;
    // SAFETY: takes only a descriptor.
    check(unsafe { libc::fchdir(copy) }.into()).map(drop)
}

fn open_tree(path: &CStr, flags: libc::c_uint) -> std::result::Result<RawFd, Errno> {
    // SAFETY: takes a C string and integers.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    Ok(fd as RawFd)
}

fn attach(mount: RawFd, path: &CStr) -> Step {
    // SAFETY: takes C strings and integers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount,
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    check(result).map(drop)
}

fn mount_proc() -> Step {
    let null = std::ptr::null::<c_void>();
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    // SAFETY: C strings, integers and null pointers where the kernel takes none.
    let mount = unsafe {
        let context = check(libc::syscall(libc::SYS_fsopen, c"proc".as_ptr(), libc::FSOPEN_CLOEXEC))?;
        check(libc::syscall(libc::SYS_fsconfig, context, libc::FSCONFIG_CMD_CREATE, null, null, 0))?;
        check(libc::syscall(libc::SYS_fsmount, context, libc::FSMOUNT_CLOEXEC, attributes))?
    };
    attach(mount as RawFd, c"proc")
}

fn pivot() -> Step {
    // SAFETY: takes C strings and integers.
    unsafe {
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into())?;
        check(libc::chdir(c"/".as_ptr()).into()).map(drop)
    }
}

fn mask(to: &Confinement<'_>) -> Step {
    for path in to.read_only {
        present(make_read_only(path))?;
    }
    for (path, mount) in to.covers {
        present(attach(mount.as_raw_fd(), path))?;
    }
    Ok(())
}

fn present(result: Step) -> Step {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn make_read_only(path: &CStr) -> Step {
    let copy = open_tree(path, libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC)?;
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the structure lives through the call and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            copy,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result)?;
    attach(copy, path)
}

fn install_filters(filters: &[Vec<u8>]) -> Step {
    for filter in filters {
        let program = libc::sock_fprog {
            len: (filter.len() / size_of::<libc::sock_filter>()) as u16,
            filter: filter.as_ptr().cast_mut().cast(),
        };
        // SAFETY: the kernel copies `len` instructions of 8 bytes each from the filter, which is that long.
        let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        check(result)?;
    }
    Ok(())
}

/// The bounding set too, so that no program of the tree gives back what is dropped.
fn drop_capabilities(keep: u64) -> Step {
    for capability in 0..=LAST_CAPABILITY {
        if keep & (1 << capability) == 0 {
            // SAFETY: takes only integers.
            match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }.into()) {
                // The kernel has no capability of that number, nor any above it.
                Err(Errno::INVAL) => break,
                other => other?,
            };
        }
    }
    let header = [CAPABILITY_VERSION_3, 0];
    let (low, high) = (keep as u32, (keep >> 32) as u32);
    let data = [low, low, 0, high, high, 0];
    // SAFETY: the header is 8 bytes and the data 24, as version 3 has them; both live through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }).map(drop)
}

/// By system calls, because the C library's functions would tell threads that this process has none of. The kernel takes the
/// capabilities of a process whose user ids all leave 0 (capabilities(7)).
fn become_user(user: Option<User<'_>>) -> Step {
    let Some(User { uid, gid, groups }) = user else { return Ok(()) };
    // SAFETY: the groups are as many as their number says and live through the call; the others take only integers.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid)).map(drop)
    }
}

/// Executes the program; comes back only when that failed.
pub(crate) fn execute(program: &CStr, argv: *const *const libc::c_char, envp: *const *const libc::c_char) -> Errno {
    // SAFETY: the caller passes null-terminated vectors of C strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv, envp) };
    last_errno()
}
