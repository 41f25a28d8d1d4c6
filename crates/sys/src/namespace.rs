//! Namespaces as descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::error::{Attempt as _, Outcome, Result, SysError};

/// Kinds of namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Mounts.
    Mount,
    /// Users and capabilities.
    User,
    /// Interfaces, addresses, ports.
    Network,
    /// Process numbers.
    Pid,
    /// Host and domain name.
    Uts,
    /// System V IPC and POSIX message queues.
    Ipc,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Self::Mount => "mnt",
            Self::User => "user",
            Self::Network => "net",
            Self::Pid => "pid",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
        }
    }
}

/// A namespace of a process. The descriptor keeps the namespace alive.
pub fn of_process(pid: u32, kind: Kind) -> Result<OwnedFd> {
    open(&format!("/proc/{pid}/ns/{}", kind.file()))
}

/// A namespace of the calling thread.
pub fn of_this_thread(kind: Kind) -> Result<OwnedFd> {
    open(&format!("/proc/thread-self/ns/{}", kind.file()))
}

fn open(path: &str) -> Result<OwnedFd> {
    std::fs::File::open(path).map(OwnedFd::from).attempt(|| format!("open {path}"))
}

/// Runs `inside` on a thread of its own that has entered a network namespace; the rest of the program stays where it
/// is.
pub fn in_network<T: Send>(network: BorrowedFd<'_>, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_own_thread(|| {
        rustix::thread::move_into_link_name_space(network, Some(LinkNameSpaceType::Network))
            .attempt(|| "enter a network namespace".into())?;
        inside()
    })
}

/// Runs `inside` on a thread of its own that has entered a process's network, names and IPC: what the kernel says of itself below
/// `/proc/sys` is then what that process sees.
pub fn in_kernel_view<T: Send>(pid: u32, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let kinds = [
        (Kind::Network, LinkNameSpaceType::Network),
        (Kind::Uts, LinkNameSpaceType::HostNameAndNISDomainName),
        (Kind::Ipc, LinkNameSpaceType::InterProcessCommunication),
    ];
    let mut opened = Vec::new();
    for (kind, wanted) in kinds {
        opened.push((of_process(pid, kind)?, wanted));
    }
    on_own_thread(|| {
        for (namespace, wanted) in opened {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(wanted))
                .attempt(|| "enter a namespace".into())?;
        }
        inside()
    })
}

/// Makes a mount namespace: `inside` runs in a copy of ours, private, on a thread of its own, and shapes it. The
/// descriptor keeps it alive.
pub fn new_mounts(inside: impl FnOnce() -> Result<()> + Send) -> Result<OwnedFd> {
    on_own_thread(|| {
        leave_mounts()?;
        inside()?;
        of_this_thread(Kind::Mount)
    })
}

/// Moves the calling thread into a private copy of our mounts: what it mounts from now on is seen by nobody else.
pub fn leave_mounts() -> Result<()> {
    // SAFETY: no descriptor table is unshared, so no other thread can see a descriptor that is not there.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }
        .attempt(|| "make a mount namespace".into())?;
    let root = std::fs::File::open("/").attempt(|| "open /".into())?;
    crate::mount::make_private(root.as_fd())
}

/// Moves the calling thread into a network namespace with nothing but a loopback interface that is down.
pub fn leave_network() -> Result<()> {
    // SAFETY: only the network namespace is left, which no memory or descriptor table depends on.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.attempt(|| "make a network namespace".into())
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(SysError { action: "work in a namespace".into(), outcome: Outcome::Gone }))
}

/// Makes a network namespace with nothing but a loopback interface that is down. It belongs to our user namespace.
pub fn new_network() -> Result<OwnedFd> {
    on_own_thread(|| {
        leave_network()?;
        of_this_thread(Kind::Network)
    })
}
