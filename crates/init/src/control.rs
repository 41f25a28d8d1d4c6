//! The control socket: connections of the runtime, one request each ([`kiln_boot::control`]).

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use kiln_boot::{
    control::{Exec, MAX_REQUEST, Reply, Request},
    spec::MAX_PACKET,
};
use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        SocketFlags,
    },
    process::Pid,
    pty::OpenptFlags,
    termios::Winsize,
};

use crate::{Failure, Trying as _, child, kernel};

/// Further connections are closed at once.
pub(crate) const MAX_CONNECTIONS: usize = 64;
/// Descriptors in one message.
const MAX_FDS: usize = 64;

/// What came over a connection.
pub(crate) enum Asked {
    /// Not (all of) a request yet.
    Nothing,
    /// The other side is gone.
    Closed,
    Status,
    Stop,
    Signal {
        service: String,
        signal: i32,
    },
    Exec(Exec, Vec<OwnedFd>),
    Refused(String),
}

/// One connection.
pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    received: Vec<u8>,
    fds: Vec<OwnedFd>,
    /// The command that runs for it.
    pub(crate) command: Option<Pid>,
}

impl Connection {
    pub(crate) fn accept(listener: &OwnedFd) -> Result<Self, Errno> {
        let socket = rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        Ok(Self { socket, received: Vec::new(), fds: Vec::new(), command: None })
    }

    /// Takes what has come.
    pub(crate) fn receive(&mut self) -> Asked {
        let mut buffer = [0; 4096];
        match receive(self.socket.as_fd(), &mut buffer) {
            Ok((0, _)) => return Asked::Closed,
            Ok((count, fds)) => {
                self.received.extend(&buffer[..count]);
                self.fds.extend(fds);
            }
            Err(Errno::AGAIN | Errno::INTR) => return Asked::Nothing,
            Err(_) => return Asked::Closed,
        }
        if self.command.is_some() {
            self.received.clear();
            return Asked::Nothing;
        }
        match self.received.iter().position(|byte| *byte == b'\n') {
            Some(end) => self.understand(end),
            None if self.received.len() > MAX_REQUEST => Asked::Refused("the request is too long".into()),
            None => Asked::Nothing,
        }
    }

    fn understand(&mut self, end: usize) -> Asked {
        let request = serde_json::from_slice(&self.received[..end]);
        self.received = Vec::new();
        match request {
            Ok(Request::Status) => Asked::Status,
            Ok(Request::Stop) => Asked::Stop,
            Ok(Request::Signal { service, signal }) => Asked::Signal { service, signal },
            Ok(Request::Exec(exec)) => Asked::Exec(exec, std::mem::take(&mut self.fds)),
            Err(_) => Asked::Refused("this server's PID 1 does not know such a request".into()),
        }
    }

    /// Answers. Whether the other side took it is also whether it is still there.
    pub(crate) fn reply(&mut self, reply: &Reply, fds: &[BorrowedFd<'_>]) -> bool {
        let mut line = serde_json::to_vec(reply).unwrap_or_default();
        line.push(b'\n');
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let sent = rustix::net::sendmsg(&self.socket, &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL);
        sent == Ok(line.len())
    }

    /// Sends a signal to a service.
    pub(crate) fn signal(&mut self, pid: Option<Pid>, signal: i32) {
        let refused = |reason: &str| Reply::Refused { reason: reason.into() };
        let reply = match pid.map(|pid| kernel::send_signal(pid.as_raw_pid(), signal)) {
            None => refused("the service does not run"),
            Some(Err(_)) => refused("the signal could not be sent"),
            Some(Ok(())) => Reply::Done,
        };
        self.reply(&reply, &[]);
    }

    /// Starts a command. Answers whether the connection stays.
    pub(crate) fn exec(&mut self, exec: &Exec, fds: &[OwnedFd]) -> bool {
        match start(exec, fds) {
            Ok((pid, master)) => {
                self.command = Some(pid);
                let master: Vec<_> = master.iter().map(|fd| fd.as_fd()).collect();
                let told = self.reply(&Reply::Started { pid: pid.as_raw_pid() }, &master);
                if !told {
                    self.abandon();
                }
                told
            }
            Err(failure) => {
                let reason = format!("could not {}: {}", failure.action, failure.errno);
                self.reply(&Reply::Refused { reason }, &[]);
                false
            }
        }
    }

    /// Kills what runs for a connection that is gone.
    pub(crate) fn abandon(&mut self) {
        if let Some(pid) = self.command.take() {
            // It may have ended already.
            kernel::send_signal(-pid.as_raw_pid(), libc::SIGKILL).unwrap_or(());
        }
    }
}

fn start(exec: &Exec, fds: &[OwnedFd]) -> Result<(Pid, Option<OwnedFd>), Failure> {
    let user = child::user(&exec.user)?;
    let run = |stdio: [BorrowedFd<'_>; 3], terminal| {
        child::start(&child::Program {
            command: &exec.command,
            user: &user,
            environment: &exec.environment,
            directory: exec.directory.as_deref().unwrap_or("/"),
            stdio,
            terminal,
        })
    };
    if let Some((rows, columns)) = exec.terminal {
        let (master, slave) = terminal(rows, columns, user.uid).trying(|| "make a terminal".into())?;
        let pid = run([slave.as_fd(); 3], true)?;
        return Ok((pid, Some(master)));
    }
    let [input, output, error] = fds else {
        return Err(Errno::BADF).trying(|| "take standard input, output and error".into());
    };
    for fd in [output, error] {
        // Programs open /dev/stdout again, which is allowed to its owner only. What is not of this server (a caller's
        // terminal) cannot be given away, and stays as it is.
        let (uid, gid) = (rustix::fs::Uid::from_raw(user.uid), rustix::fs::Gid::from_raw(user.gid));
        rustix::fs::fchown(fd, Some(uid), Some(gid)).unwrap_or(());
    }
    Ok((run([input.as_fd(), output.as_fd(), error.as_fd()], false)?, None))
}

fn terminal(rows: u16, columns: u16, uid: u32) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    rustix::termios::tcsetwinsize(&slave, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
    rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(uid)), None)?;
    Ok((master, slave))
}

fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fds = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    Ok((message.bytes, fds))
}

/// Bytes, and the descriptors that came with them.
type Message = (Vec<u8>, Vec<OwnedFd>);

/// One packet of the launch socket; none at its end.
pub(crate) fn receive_packet(socket: BorrowedFd<'_>) -> Result<Option<Message>, Errno> {
    let mut nothing = [0_u8; 0];
    let (_, length) = rustix::net::recv(socket, &mut nothing[..], RecvFlags::PEEK | RecvFlags::TRUNC)?;
    if length > MAX_PACKET {
        return Err(Errno::MSGSIZE);
    }
    let mut bytes = vec![0; length];
    let (count, fds) = receive(socket, &mut bytes)?;
    bytes.truncate(count);
    Ok((count > 0).then_some((bytes, fds)))
}
