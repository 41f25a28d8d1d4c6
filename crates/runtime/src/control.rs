//! The runtime's side of PID 1's control socket.

use std::{
    collections::VecDeque,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use kiln_boot::control::{Reply, Request};
use kiln_sys::{Outcome, SysError, fds};

use crate::error::{OnFile as _, Result, RuntimeError};

/// PID 1 answers within this time: it never waits for anything itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// A longer answer is not PID 1's.
const MAX_REPLY: usize = 1 << 20;

/// One connection, for one request.
#[derive(Debug)]
pub(crate) struct Control {
    socket: UnixStream,
    received: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Control {
    pub(crate) fn connect(path: &Path) -> Result<Self> {
        let socket = UnixStream::connect(path).on("connect to", path)?;
        socket.set_read_timeout(Some(PATIENCE)).on("connect to", path)?;
        socket.set_write_timeout(Some(PATIENCE)).on("connect to", path)?;
        Ok(Self { socket, received: Vec::new(), fds: VecDeque::new() })
    }

    /// Asks, and takes the first answer with the descriptor that came with it.
    pub(crate) fn ask(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Option<OwnedFd>)> {
        let mut line = serde_json::to_vec(request).map_err(std::io::Error::from).on("send to", "PID 1")?;
        line.push(b'\n');
        let mut sent = fds::send(self.socket.as_fd(), &line, fds)?;
        while sent < line.len() {
            sent += fds::send(self.socket.as_fd(), &line[sent..], &[])?;
        }
        let reply = self.reply()?;
        Ok((reply, self.fds.pop_front()))
    }

    /// The next answer.
    pub(crate) fn reply(&mut self) -> Result<Reply> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(std::io::Error::from).on("understand", "PID 1");
            }
            let mut buffer = [0; 4096];
            let (count, fds) = fds::receive(self.socket.as_fd(), &mut buffer)?;
            if count == 0 || self.received.len() > MAX_REPLY {
                return Err(SysError { action: "read PID 1's answer".into(), outcome: Outcome::Disconnected }.into());
            }
            self.received.extend(&buffer[..count]);
            self.fds.extend(fds);
        }
    }

    /// From here on answers may take any time.
    pub(crate) fn wait_forever(&self) -> Result<()> {
        self.socket.set_read_timeout(None).on("wait for", "PID 1")
    }

    pub(crate) fn socket(&self) -> &UnixStream {
        &self.socket
    }
}

/// An answer that is not the one hoped for.
pub(crate) fn unexpected(server: &kiln_model::ServerId, reply: Reply) -> RuntimeError {
    let reason = match reply {
        Reply::Refused { reason } => reason,
        other => format!("an unexpected answer: {other:?}"),
    };
    RuntimeError::Refused { server: server.clone(), reason }
}
