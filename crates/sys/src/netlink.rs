//! Netlink: one socket, batches of messages, one acknowledgement per message.
//!
//! The kernel handles every message of a batch inside `sendmsg`, so that all answers wait in the socket when the call
//! returns: nothing here blocks, and a missing answer is an error rather than a wait. Messages are written by hand
//! ([`message::Message`]), because only a dozen kinds are needed, rtnetlink and nfnetlink share the same shape, and a
//! dump must never fail on an attribute that a newer kernel has added.
//!
//! A socket belongs to the network namespace it was opened in, for good: [`Connection::open_in`] opens one in another
//! namespace from a thread that ends with it, so that the caller's own namespace is never changed.

use std::os::fd::BorrowedFd;

use netlink_sys::{Socket, SocketAddr, protocols};
use rustix::io::Errno;

use crate::{SysError, namespace};

pub mod address;
pub mod link;
pub mod message;
pub mod sockets;

use message::{Attributes, Message};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
const RECEIVE_BUFFER: usize = 64 * 1024;

/// A netlink conversation that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be made or used.
    #[error("could not {action}")]
    Socket {
        /// What was attempted.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The other network namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] SysError),
    /// The kernel refused a message.
    #[error("the kernel refused to {action}{}", explanation(.detail))]
    Refused {
        /// What the message was to do.
        action: &'static str,
        /// The kernel's own words, where it has any.
        detail: Option<String>,
        /// The kernel's answer.
        #[source]
        errno: Errno,
    },
    /// The kernel did not answer a message, or with something else than netlink messages.
    #[error("the kernel gave no usable answer to a request to {action}")]
    NoAnswer {
        /// What the message was to do.
        action: &'static str,
    },
}

fn explanation(detail: &Option<String>) -> String {
    detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
}

impl NetlinkError {
    fn is(&self, wanted: Errno) -> bool {
        matches!(self, Self::Refused { errno, .. } if *errno == wanted)
    }

    /// The thing to be made exists already.
    pub fn already_exists(&self) -> bool {
        self.is(Errno::EXIST)
    }

    /// The thing to be changed or removed does not exist.
    pub fn not_found(&self) -> bool {
        self.is(Errno::NODEV) || self.is(Errno::NOENT)
    }

    /// A bridge has no free port (a Linux bridge has 1023).
    pub fn bridge_full(&self) -> bool {
        self.is(Errno::XFULL)
    }

    /// The kernel was built without the interface or protocol asked for.
    pub fn not_supported(&self) -> bool {
        self.is(Errno::OPNOTSUPP) || self.is(Errno::PROTONOSUPPORT) || self.is(Errno::AFNOSUPPORT)
    }
}

/// A message and what it is for, in words that complete "could not …".
#[derive(Debug)]
pub struct Request {
    pub(crate) action: &'static str,
    pub(crate) message: Message,
    pub(crate) acknowledged: bool,
}

impl Request {
    pub(crate) fn new(action: &'static str, message: Message) -> Self {
        Self { action, message, acknowledged: true }
    }

    pub(crate) fn unacknowledged(action: &'static str, message: Message) -> Self {
        Self { action, message, acknowledged: false }
    }
}

/// A netlink socket of one network namespace.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Connection {
    /// Opens rtnetlink (links, addresses, routes) in the caller's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Self::open_protocol(protocols::NETLINK_ROUTE)
    }

    /// Opens nfnetlink (nftables) in the caller's network namespace.
    pub fn open_netfilter() -> Result<Self, NetlinkError> {
        Self::open_protocol(protocols::NETLINK_NETFILTER)
    }

    /// Opens rtnetlink in another network namespace; `prepare` runs in that namespace first.
    pub fn open_in(
        namespace: BorrowedFd<'_>,
        prepare: impl FnOnce() -> std::io::Result<()> + Send,
    ) -> Result<Self, NetlinkError> {
        namespace::in_network(namespace, || {
            let failed = |source| NetlinkError::Socket { action: "prepare the network namespace", source };
            Ok(prepare().map_err(failed).and_then(|()| Self::open()))
        })?
    }

    fn open_protocol(protocol: isize) -> Result<Self, NetlinkError> {
        let failed = |source| NetlinkError::Socket { action: "open a netlink socket", source };
        let mut socket = Socket::new(protocol).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        socket.set_cap_ack(true).map_err(failed)?;
        socket.set_ext_ack(true).map_err(failed)?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BUFFER) })
    }

    /// Sends all requests in one batch. The kernel carries each out on its own; the first refusal is returned.
    pub fn execute(&mut self, requests: Vec<Request>) -> Result<(), NetlinkError> {
        let Some(last) = requests.last().map(|request| request.action) else { return Ok(()) };
        let first = self.sequence + 1;
        let mut batch = Vec::new();
        let mut waiting = Vec::with_capacity(requests.len());
        for request in requests {
            self.sequence += 1;
            request.message.finish(self.sequence, request.acknowledged, &mut batch);
            waiting.push((request.action, !request.acknowledged));
        }
        self.send(&batch, last)?;
        while waiting.iter().any(|(_, answered)| !answered) {
            let Some(received) = self.receive(last)? else { break };
            for answer in messages(&received) {
                let index = answer.sequence.wrapping_sub(first) as usize;
                let Some((action, answered)) = waiting.get_mut(index) else { continue };
                answer.refusal(action)?;
                *answered = true;
            }
        }
        match waiting.iter().find(|(_, answered)| !answered) {
            Some((action, _)) => Err(NetlinkError::NoAnswer { action }),
            None => Ok(()),
        }
    }

    /// Asks for one thing and returns the body of the answer.
    pub(crate) fn get(&mut self, request: Request) -> Result<Vec<u8>, NetlinkError> {
        self.sequence += 1;
        let mut bytes = Vec::new();
        request.message.finish(self.sequence, false, &mut bytes);
        self.send(&bytes, request.action)?;
        let received = self.receive(request.action)?.unwrap_or_default();
        let answer = messages(&received).find(|answer| answer.sequence == self.sequence);
        let answer = answer.ok_or(NetlinkError::NoAnswer { action: request.action })?;
        answer.refusal(request.action)?;
        Ok(answer.body.to_vec())
    }

    /// Asks for everything of a kind and passes each answer's message type and body on.
    pub(crate) fn dump(&mut self, request: Request, mut each: impl FnMut(u16, &[u8])) -> Result<(), NetlinkError> {
        let action = request.action;
        self.sequence += 1;
        let mut bytes = Vec::new();
        request.message.finish(self.sequence, false, &mut bytes);
        self.send(&bytes, action)?;
        while let Some(received) = self.receive(action)? {
            for answer in messages(&received).filter(|answer| answer.sequence == self.sequence) {
                answer.refusal(action)?;
                if answer.kind == NLMSG_DONE {
                    return Ok(());
                }
                each(answer.kind, answer.body);
            }
        }
        Err(NetlinkError::NoAnswer { action })
    }

    fn send(&mut self, bytes: &[u8], action: &'static str) -> Result<(), NetlinkError> {
        match self.socket.send(bytes, 0) {
            Ok(_) => Ok(()),
            Err(source) => Err(NetlinkError::Socket { action, source }),
        }
    }

    /// One datagram, or nothing when none waits.
    fn receive(&mut self, action: &'static str) -> Result<Option<Vec<u8>>, NetlinkError> {
        self.buffer.clear();
        self.buffer.reserve(RECEIVE_BUFFER);
        match self.socket.recv(&mut self.buffer, rustix::net::RecvFlags::DONTWAIT.bits() as i32) {
            Ok(_) => Ok(Some(std::mem::take(&mut self.buffer))),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(source) => Err(NetlinkError::Socket { action, source }),
        }
    }
}

struct Answer<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Answer<'_> {
    /// The error this message carries, if it is one: NLMSG_ERROR with a code other than 0, or a dump's end with one.
    fn refusal(&self, action: &'static str) -> Result<(), NetlinkError> {
        if self.kind != NLMSG_ERROR && self.kind != NLMSG_DONE {
            return Ok(());
        }
        let code = self.body.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        if code == 0 {
            return Ok(());
        }
        Err(NetlinkError::Refused { action, detail: self.words(), errno: Errno::from_raw_os_error(-code) })
    }

    /// NLMSGERR_ATTR_MSG (1), which follows the error code and, because of NETLINK_CAP_ACK, only the header of the
    /// refused message.
    fn words(&self) -> Option<String> {
        let attributes = self.body.get(4 + HEADER..)?;
        let text = Attributes::new(attributes).find(|(kind, _)| *kind == 1)?.1;
        let text = String::from_utf8_lossy(text);
        Some(text.trim_end_matches('\0').to_owned())
    }
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let length = u32::from_ne_bytes(*header.first_chunk::<4>()?) as usize;
        let answer = Answer {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            body: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(answer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_datagram_ends_the_iteration() {
        let mut batch = Vec::new();
        Message::new(16, 0).finish(7, true, &mut batch);
        assert_eq!(messages(&batch).count(), 1);
        assert_eq!(messages(&batch[..15]).count(), 0);
        batch[0] = 200;
        assert_eq!(messages(&batch).count(), 0);
    }

    #[test]
    fn an_error_message_becomes_a_refusal_with_its_errno() {
        let body = (-17i32).to_ne_bytes();
        let answer = Answer { kind: NLMSG_ERROR, sequence: 1, body: &body };
        assert!(answer.refusal("create a bridge").unwrap_err().already_exists());
    }
}
