//! A terminal for an interactive command: one of the sandbox's own, so that the command never holds the caller's and
//! programs inside find it below `/dev/pts`. What is typed goes in, what is shown comes out, and the size follows.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize},
};

use super::{SandboxError, failed};

/// The outer end of a terminal made inside, and the caller's terminal that it is joined to.
#[derive(Debug)]
pub(super) struct Terminal {
    master: OwnedFd,
    /// How the caller's terminal was set before; nothing when standard input is not a terminal.
    before: Option<Termios>,
    input_open: bool,
}

fn problem(errno: rustix::io::Errno) -> SandboxError {
    failed("use", Path::new("the terminal"))(errno.into())
}

impl Terminal {
    /// Joins a fresh terminal to the caller's, and answers the end for the command.
    pub(super) fn join(master: OwnedFd) -> Result<(Self, OwnedFd), SandboxError> {
        unlockpt(&master).map_err(problem)?;
        let inside = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
        let inside = inside.map_err(problem)?;
        let mut terminal = Self { master, before: None, input_open: true };
        let input = io::stdin();
        if isatty(&input) {
            terminal.follow_size();
            let before = tcgetattr(&input).map_err(problem)?;
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(&input, OptionalActions::Now, &raw).map_err(problem)?;
            terminal.before = Some(before);
        }
        Ok((terminal, inside))
    }

    /// The command's terminal becomes as large as the caller's.
    fn follow_size(&self) {
        let size = tcgetwinsize(io::stdin());
        if let Err(error) = size.and_then(|size| tcsetwinsize(&self.master, size)) {
            tracing::debug!(%error, "the size of the terminal is not known");
        }
    }

    /// Passes on what is typed and shown until the command has ended, or for a while. Returns whether it has ended.
    pub(super) fn step(&mut self, process: BorrowedFd<'_>, wait: Timespec) -> Result<bool, SandboxError> {
        let input = io::stdin();
        let mut fds = vec![PollFd::from_borrowed_fd(process, PollFlags::IN), PollFd::new(&self.master, PollFlags::IN)];
        if self.input_open {
            fds.push(PollFd::new(&input, PollFlags::IN));
        }
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(problem(errno)),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready.get(2) == Some(&true) {
            self.input_open = self.copy(input.as_fd(), self.master.as_fd())?;
        }
        if self.before.is_some() {
            self.follow_size();
        }
        // A terminal that nobody has open any more answers at once; then only the command's end is waited for.
        if ready[1] && !self.copy(self.master.as_fd(), io::stdout().as_fd())? && !ready[0] {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(ready[0])
    }

    /// Copies one piece. Returns whether there may be more.
    fn copy(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<bool, SandboxError> {
        let mut buffer = [0; 4096];
        let length = match rustix::io::read(from, &mut buffer) {
            // EIO: no process has the other end open.
            Ok(0) | Err(rustix::io::Errno::IO) => return Ok(false),
            Ok(length) => length,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(true),
            Err(errno) => return Err(problem(errno)),
        };
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(to, rest)).map_err(problem)?;
            rest = &rest[written..];
        }
        Ok(true)
    }

    /// What the command showed last.
    pub(super) fn drain(&mut self) -> Result<(), SandboxError> {
        while self.shows_more() && self.copy(self.master.as_fd(), io::stdout().as_fd())? {}
        Ok(())
    }

    fn shows_more(&self) -> bool {
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::IN)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = tcsetattr(io::stdin(), OptionalActions::Now, before)
        {
            tracing::warn!(%error, "the terminal could not be set back; `reset` does it");
        }
    }
}
