//! Listening sockets given at start, over the socket that is standard input.

use std::{
    io::{self, Write as _},
    net::TcpListener,
    os::{fd::AsFd as _, unix::net::UnixStream},
    time::Duration,
};

use crate::{client::Listeners, fds, ports::Sockets};

const PATIENCE: Duration = Duration::from_secs(5);

/// Sends the sockets to a process that is starting.
pub fn give(mut stream: &UnixStream, listeners: &Listeners) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{}\n", listeners.len()).as_bytes())?;
    fds::send(stream, &listeners.0)
}

/// Receives them.
pub fn take() -> io::Result<Sockets> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream.set_read_timeout(Some(PATIENCE))?;
    let count = |line: &[u8]| {
        let text = std::str::from_utf8(line).map_err(io::Error::other)?;
        Ok((text.parse::<usize>().map_err(io::Error::other)?, ()))
    };
    let ((), sockets) = fds::receive_line(&stream, 32, count)?;
    by_port(sockets)
}

/// Sockets by their port.
pub fn by_port(sockets: Vec<TcpListener>) -> io::Result<Sockets> {
    sockets.into_iter().map(|socket| Ok((socket.local_addr()?.port(), socket))).collect()
}
