//! A command's terminal, joined to ours: ours is raw meanwhile, and as before afterwards.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
};

use kiln_runtime::Session;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::failure::Failure;

/// Rows and columns of our terminal.
pub(super) fn size() -> (u16, u16) {
    tcgetwinsize(std::io::stdin()).map_or((24, 80), |size| (size.ws_row, size.ws_col))
}

/// Our terminal's settings, put back when dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self, Failure> {
        let failed = |error| Failure::host("set up the terminal", error);
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0) {
            tracing::warn!(%error, "the terminal could not be put back; `reset` does");
        }
    }
}

/// Passes bytes both ways until the command ends, and gives its exit code.
pub(super) fn attach(mut session: Session) -> Result<i32, Failure> {
    let failed = |error| Failure::host("join the command's terminal", error);
    let master: File =
        session.terminal.take().map(OwnedFd::into).ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
    let raw = Raw::enter()?;
    let to_command = master.try_clone().map_err(failed)?;
    // Both end with the process: reading our terminal cannot be interrupted otherwise.
    std::thread::spawn(move || pass_input(to_command));
    let output = std::thread::spawn(move || pass_output(master));
    let code = session.wait();
    // What the command wrote last is still on its way.
    if output.join().is_err() {
        tracing::warn!("the end of the output was lost");
    }
    drop(raw);
    code.map_err(|error| Failure::host("wait for the command", error))
}

fn pass_input(mut master: File) {
    let mut buffer = [0; 4096];
    let mut known = size();
    while let Ok(count @ 1..) = std::io::stdin().lock().read(&mut buffer) {
        if size() != known {
            known = size();
            resize(&master);
        }
        if master.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// Follows a change of our window's size.
fn resize(master: &File) {
    if let Ok(size) = tcgetwinsize(std::io::stdin())
        && let Err(error) = tcsetwinsize(master.as_fd(), size)
    {
        tracing::debug!(%error, "the command's terminal keeps its size");
    }
}

/// A master whose other side is closed answers with an error: that is its end of file.
fn pass_output(mut master: File) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = master.read(&mut buffer) {
        let mut out = std::io::stdout().lock();
        if out.write_all(&buffer[..count]).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}
