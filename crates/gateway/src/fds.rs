//! Listening sockets between processes: `SCM_RIGHTS` over a Unix stream (unix(7)).
//!
//! A message can carry 253 descriptors; they are sent in smaller batches, each with one byte, because a stream
//! needs a byte to hang them on.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

/// Descriptors in one message.
pub const BATCH: usize = 64;
const SPACE: usize = rustix::cmsg_space!(ScmRights(BATCH));
const BYTE: &[u8] = b"F";

/// Sends the sockets. The stream must be in blocking mode.
pub fn send(stream: &UnixStream, listeners: &[TcpListener]) -> io::Result<()> {
    for batch in listeners.chunks(BATCH) {
        let fds: Vec<BorrowedFd<'_>> = batch.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        rustix::net::sendmsg(stream, &[IoSlice::new(BYTE)], &mut ancillary, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Receives a line of at most `limit` bytes and the sockets after it; `count` reads their number from the line.
/// The stream must be in blocking mode, with a read time-out.
pub fn receive_line<T>(
    stream: &UnixStream,
    limit: usize,
    count: impl Fn(&[u8]) -> io::Result<(usize, T)>,
) -> io::Result<(T, Vec<TcpListener>)> {
    let mut bytes = Vec::new();
    let mut listeners = Vec::new();
    let mut wanted: Option<(usize, T)> = None;
    loop {
        if let Some((number, value)) = wanted.take_if(|(number, _)| listeners.len() >= *number) {
            debug_assert_eq!(number, listeners.len());
            return Ok((value, listeners));
        }
        receive_some(stream, &mut bytes, &mut listeners)?;
        if bytes.len() > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
        }
        if wanted.is_none()
            && let Some(end) = bytes.iter().position(|b| *b == b'\n')
        {
            wanted = Some(count(&bytes[..end])?);
        }
    }
}

fn receive_some(stream: &UnixStream, bytes: &mut Vec<u8>, listeners: &mut Vec<TcpListener>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut chunk = [0; 16 << 10];
    let message =
        rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut chunk)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = part {
            listeners.extend(fds.map(|fd: OwnedFd| TcpListener::from(fd)));
        }
    }
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    bytes.extend_from_slice(&chunk[..message.bytes]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, time::Duration};

    use super::*;

    #[test]
    fn host_sockets_arrive_in_order_and_listen() {
        let (mut here, there) = UnixStream::pair().unwrap();
        there.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let listeners: Vec<_> = (0..BATCH + 3).map(|_| crate::listen::open(0).unwrap()).collect();
        here.write_all(b"line\n").unwrap();
        send(&here, &listeners).unwrap();
        let (text, received) =
            receive_line(&there, 100, |line| Ok((BATCH + 3, String::from_utf8_lossy(line).into_owned()))).unwrap();
        assert_eq!(text, "line");
        let ports = |l: &[TcpListener]| l.iter().map(|l| l.local_addr().unwrap().port()).collect::<Vec<_>>();
        assert_eq!(ports(&received), ports(&listeners));
    }

    #[test]
    fn host_a_closed_stream_is_an_error() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(b"line\n").unwrap();
        drop(here);
        assert!(receive_line(&there, 100, |_| Ok((1, ()))).is_err());
    }
}
