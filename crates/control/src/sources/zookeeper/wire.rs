//! ZooKeeper's messages, as far as a reader needs them (zookeeper.jute, `ClientCnxn`): big-endian numbers, texts and buffers behind
//! their length, each message behind its own.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::super::{MAX_BYTES, dial::Stream};

/// Beside a value of [`MAX_BYTES`] a message holds headers, a node's status and a path.
const MAX_MESSAGE: usize = MAX_BYTES + 4096;
/// A longer one is no registry's (a server takes messages of 1 MiB, unless it is told otherwise).
const MAX_SKIPPED: usize = 16 << 20;

/// Kinds of requests (`ZooDefs.OpCode`).
pub(super) mod kind {
    pub const EXISTS: i32 = 3;
    pub const GET_DATA: i32 = 4;
    pub const PING: i32 = 11;
    pub const AUTH: i32 = 100;
    pub const CLOSE: i32 = -11;
}

/// Numbers of messages that belong to no request of their own.
pub(super) mod number {
    pub const NOTIFICATION: i32 = -1;
    pub const PING: i32 = -2;
    pub const AUTH: i32 = -4;
}

/// Errors of an answer (`KeeperException.Code`).
pub(super) mod code {
    pub const OK: i32 = 0;
    pub const NO_NODE: i32 = -101;
    pub const NO_AUTH: i32 = -102;
    pub const SESSION_EXPIRED: i32 = -112;
    pub const AUTH_FAILED: i32 = -115;
}

/// A message being written.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub fn int(mut self, value: i32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }
    pub fn long(mut self, value: i64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }
    pub fn flag(mut self, value: bool) -> Self {
        self.0.push(value.into());
        self
    }
    pub fn bytes(mut self, value: &[u8]) -> Self {
        self = self.int(value.len() as i32);
        self.0.extend_from_slice(value);
        self
    }
    /// The message behind its length.
    pub fn finish(self) -> Vec<u8> {
        Self::default().bytes(&self.0).0
    }
}

/// A message being read.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn int(&mut self) -> io::Result<i32> {
        self.take(4).map(|bytes| i32::from_be_bytes(bytes.try_into().expect("four bytes were taken")))
    }
    pub fn long(&mut self) -> io::Result<i64> {
        self.take(8).map(|bytes| i64::from_be_bytes(bytes.try_into().expect("eight bytes were taken")))
    }
    /// A buffer; a length of -1 stands for none.
    pub fn bytes(&mut self) -> io::Result<&'a [u8]> {
        match self.int()? {
            -1 => Ok(&[]),
            length => self.take(usize::try_from(length).map_err(|_| cut())?),
        }
    }
    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(cut)?;
        self.0 = rest;
        Ok(taken)
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message is shorter than it says: this is not ZooKeeper")
}

/// A message, or the length of one that is too long to be read. It is passed over.
pub(super) enum Message {
    Whole(Vec<u8>),
    TooLong(u64),
}

/// Reads messages from a stream. A read that is given up loses nothing of what had come.
#[derive(Default)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    /// So many bytes are still to be passed over.
    skip: usize,
}

impl Incoming {
    /// The next message.
    pub async fn next(&mut self, stream: &mut (impl AsyncRead + Unpin + ?Sized)) -> io::Result<Message> {
        loop {
            let gone = self.skip.min(self.bytes.len());
            self.bytes.drain(..gone);
            self.skip -= gone;
            if self.skip == 0
                && let Some(message) = self.take()?
            {
                return Ok(message);
            }
            let mut part = [0; 4096];
            match stream.read(&mut part).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.bytes.extend_from_slice(&part[..read]),
            }
        }
    }

    fn take(&mut self) -> io::Result<Option<Message>> {
        let Some(head) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = i32::from_be_bytes(*head);
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        let length = usize::try_from(length).map_err(|_| wrong("a message has a negative length"))?;
        if length > MAX_SKIPPED {
            return Err(wrong("a message is too long: this is not ZooKeeper"));
        }
        if length > MAX_MESSAGE {
            self.skip = 4 + length;
            return Ok(Some(Message::TooLong(length as u64)));
        }
        let Some(body) = self.bytes.get(4..4 + length) else { return Ok(None) };
        let body = body.to_vec();
        self.bytes.drain(..4 + length);
        Ok(Some(Message::Whole(body)))
    }
}

/// Writes a whole message.
pub(super) async fn send(stream: &mut dyn Stream, message: Writer) -> io::Result<()> {
    use tokio::io::AsyncWriteExt as _;
    stream.write_all(&message.finish()).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_messages_are_read_as_they_were_written() {
        let message = Writer::default().int(-4).long(1 << 40).bytes(b"digest").flag(true).finish();
        assert_eq!(message.len(), 4 + 4 + 8 + 10 + 1);
        let mut reader = Reader(&message[4..]);
        assert_eq!((reader.int().unwrap(), reader.long().unwrap()), (-4, 1 << 40));
        assert_eq!(reader.bytes().unwrap(), b"digest");
        assert!(reader.int().is_err(), "one byte is left");
    }

    #[test]
    fn unit_lengths_that_lie_are_refused() {
        assert!(Reader(&[0, 0, 0, 9, 1]).bytes().is_err());
        assert!(Reader(&[0x80, 0, 0, 0]).bytes().is_err());
        assert_eq!(Reader(&[255; 4]).bytes().unwrap(), b"");
    }

    #[tokio::test]
    async fn unit_a_message_that_is_too_long_is_not_read() {
        let incoming = |bytes: &[u8]| Incoming { bytes: bytes.to_vec(), skip: 0 };
        let mut long = incoming(&(2u32 << 20).to_be_bytes());
        assert!(matches!(long.next(&mut &b""[..]).await, Ok(Message::TooLong(bytes)) if bytes == 2 << 20));
        let rest = [vec![7; 2 << 20], vec![0, 0, 0, 1, 9]].concat();
        assert!(
            matches!(long.next(&mut &rest[..]).await, Ok(Message::Whole(body)) if body == [9]),
            "what comes after it is"
        );
        assert!(long.bytes.capacity() < 64 << 10, "it was not kept");
        let mut endless = incoming(&(1u32 << 30).to_be_bytes());
        assert!(endless.next(&mut &b""[..]).await.is_err());
        let mut negative = incoming(&[0xff; 4]);
        assert!(negative.next(&mut &b""[..]).await.is_err());
        let mut cut = incoming(&[0, 0, 0, 8, 1]);
        assert!(cut.next(&mut &b""[..]).await.is_err());
    }
}
