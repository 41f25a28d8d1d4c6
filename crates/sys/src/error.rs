//! Errno values as named outcomes.

use std::fmt;

/// What most functions of this crate return.
pub type Result<T> = std::result::Result<T, SysError>;

/// A kernel call that did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("could not {action}")]
pub struct SysError {
    /// What was tried, as the end of "could not …".
    pub action: String,
    /// Why the kernel refused.
    #[source]
    pub outcome: Outcome,
}

/// Why the kernel refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// EPERM, EACCES: the caller lacks the right.
    NotPermitted,
    /// ENOENT, ENOTDIR, ENXIO: nothing is there.
    Absent,
    /// EEXIST, ENOTEMPTY: something is there already.
    Exists,
    /// EBUSY, ETXTBSY: in use.
    Busy,
    /// ESRCH, ECHILD: the process is gone.
    Gone,
    /// ENOSPC, EDQUOT: no space, or a limit of the kernel's tables.
    NoSpace,
    /// ENOMEM, EAGAIN, EMFILE, ENFILE, EUSERS: no memory, processes or descriptors left.
    Exhausted,
    /// ENOSYS, EOPNOTSUPP, ENODEV: this kernel cannot do it.
    Unsupported,
    /// EINVAL, E2BIG: the kernel did not understand the request.
    Invalid,
    /// EROFS: the file system is read-only.
    ReadOnly,
    /// The time limit was over.
    TimedOut,
    /// EPIPE, ECONNRESET, ECONNREFUSED: the other side is not there.
    Disconnected,
    /// Any other errno.
    Errno(i32),
}

impl Outcome {
    /// The name of an errno.
    pub fn from_errno(errno: i32) -> Self {
        match errno {
            libc::EPERM | libc::EACCES => Self::NotPermitted,
            libc::ENOENT | libc::ENOTDIR | libc::ENXIO => Self::Absent,
            libc::EEXIST | libc::ENOTEMPTY => Self::Exists,
            libc::EBUSY | libc::ETXTBSY => Self::Busy,
            libc::ESRCH | libc::ECHILD => Self::Gone,
            libc::ENOSPC | libc::EDQUOT => Self::NoSpace,
            libc::ENOMEM | libc::EAGAIN | libc::EMFILE | libc::ENFILE | libc::EUSERS => Self::Exhausted,
            libc::ENOSYS | libc::EOPNOTSUPP | libc::ENODEV => Self::Unsupported,
            libc::EINVAL | libc::E2BIG => Self::Invalid,
            libc::EROFS => Self::ReadOnly,
            libc::ETIMEDOUT => Self::TimedOut,
            libc::EPIPE | libc::ECONNRESET | libc::ECONNREFUSED => Self::Disconnected,
            other => Self::Errno(other),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPermitted => "permission denied",
            Self::Absent => "nothing is there",
            Self::Exists => "it exists already",
            Self::Busy => "it is in use",
            Self::Gone => "the process is gone",
            Self::NoSpace => "no space is left",
            Self::Exhausted => "the host is out of memory, processes or file descriptors",
            Self::Unsupported => "this kernel cannot do it",
            Self::Invalid => "the kernel did not understand the request",
            Self::ReadOnly => "the file system is read-only",
            Self::TimedOut => "the time limit was over",
            Self::Disconnected => "the other side is not there",
            Self::Errno(errno) => return write!(f, "errno {errno}"),
        })
    }
}
impl std::error::Error for Outcome {}

/// Turns the errno of a call into a [`SysError`] that says what was tried.
pub trait Attempt<T> {
    /// `action` completes "could not …".
    fn attempt(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Attempt<T> for rustix::io::Result<T> {
    fn attempt(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| SysError { action: action(), outcome: Outcome::from_errno(errno.raw_os_error()) })
    }
}

impl<T> Attempt<T> for std::io::Result<T> {
    fn attempt(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| SysError {
            action: action(),
            outcome: error.raw_os_error().map_or(Outcome::Invalid, Outcome::from_errno),
        })
    }
}
