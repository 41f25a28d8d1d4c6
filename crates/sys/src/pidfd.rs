//! Processes by descriptor: no signal can reach another process that got the same number.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::error::{Attempt as _, Outcome, Result, SysError};

/// Opens a process by number. The caller must know by other means that the number is still its process's, for example
/// because it is an unreaped child, or by comparing [`identity`] with a recorded one.
pub fn open(pid: u32) -> Result<OwnedFd> {
    let action = || format!("open process {pid}");
    let pid = Pid::from_raw(pid as i32).ok_or_else(|| SysError { action: action(), outcome: Outcome::Invalid })?;
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        // Said of a number whose process is gone while its session or group goes on; which of the two depends on the kernel.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {
            Err(SysError { action: action(), outcome: Outcome::Gone })
        }
        other => other.attempt(action),
    }
}

/// A number that no other process of this boot has or will have: the inode of the process's descriptor. Needs Linux 6.9;
/// before that all descriptors share one inode, so start times must be compared too.
pub fn identity(process: BorrowedFd<'_>) -> Result<u64> {
    rustix::fs::fstat(process).map(|stat| stat.st_ino).attempt(|| "look at a process descriptor".into())
}

/// Sends a signal. A process that is gone already is a success.
pub fn signal(process: BorrowedFd<'_>, signal: Signal) -> Result<()> {
    match rustix::process::pidfd_send_signal(process, signal) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        other => other.attempt(|| format!("send {signal:?} to a process")),
    }
}

/// Kills at once.
pub fn kill(process: BorrowedFd<'_>) -> Result<()> {
    signal(process, Signal::KILL)
}

/// Whether the process has ended (it may not have been reaped).
pub fn has_ended(process: BorrowedFd<'_>) -> Result<bool> {
    wait(process, Duration::ZERO)
}

/// Waits for the end of a process, at most `limit`. Answers whether it has ended.
pub fn wait(process: BorrowedFd<'_>, limit: Duration) -> Result<bool> {
    crate::fds::wait_readable(process, limit)
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Exit code.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// Takes the end of a process that is a child of this one; none if it runs yet or is not our child.
pub fn reap(process: BorrowedFd<'_>) -> Result<Option<Exit>> {
    let status = match rustix::process::waitid(WaitId::PidFd(process), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        Ok(status) => status,
        Err(rustix::io::Errno::CHILD) => return Ok(None),
        Err(errno) => return Err(errno).attempt(|| "take the end of a process".into()),
    };
    Ok(status.and_then(|status| match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(Exit::Code(code)),
        (None, Some(signal)) => Some(Exit::Signal(signal)),
        (None, None) => None,
    }))
}

/// The process's number in our pid namespace, from `/proc/self/fdinfo`; none if it has been reaped.
pub fn number(process: &OwnedFd) -> Result<Option<u32>> {
    let path = format!("/proc/self/fdinfo/{}", process.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(&path).attempt(|| format!("read {path}"))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")).and_then(|pid| pid.trim().parse::<i64>().ok());
    Ok(pid.and_then(|pid| u32::try_from(pid).ok()))
}
