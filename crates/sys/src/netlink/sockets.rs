//! Sockets of a network namespace. `man 7 sock_diag`, `include/uapi/linux/inet_diag.h`.
//!
//! `/proc/net/tcp` says the same, but looks through the table of connections for it, whose size follows the machine's memory:
//! milliseconds for each look, with nothing in the table.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::BorrowedFd,
};

use netlink_sys::protocols;

use super::{Connection, NetlinkError, Request, message::Message};
use crate::namespace;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_DUMP: u16 = 0x300;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// A set of one: the state TCP_LISTEN.
const LISTEN: u32 = 1 << 10;
/// What a socket is known by (`struct inet_diag_sockid`), bytes: in a question, all of it zero.
const ID: usize = 48;

impl Connection {
    /// Opens the diagnosis of sockets in another network namespace.
    pub fn open_sockets_in(namespace: BorrowedFd<'_>) -> Result<Self, NetlinkError> {
        namespace::in_network(namespace, || Ok(Self::open_protocol(protocols::NETLINK_SOCK_DIAG)))?
    }

    /// Where TCP is listened to, over IPv4 and IPv6. A kernel built without `INET_DIAG` refuses
    /// ([`NetlinkError::not_found`]).
    pub fn tcp_listeners(&mut self) -> Result<Vec<SocketAddr>, NetlinkError> {
        let mut found = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let [a, b, c, d] = LISTEN.to_ne_bytes();
            let body = [&[family, IPPROTO_TCP, 0, 0, a, b, c, d][..], &[0; ID]].concat();
            let message = Message::new(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP).body(&body);
            self.dump(Request::new("list listening sockets", message), |kind, body| {
                if kind == SOCK_DIAG_BY_FAMILY {
                    found.extend(local(body));
                }
            })?;
        }
        Ok(found)
    }
}

/// The local address of a `struct inet_diag_msg`: family, state, two timers, then port and address in network byte order.
fn local(body: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(*body.get(4..)?.first_chunk()?);
    let address = body.get(8..)?;
    let address = match *body.first()? {
        AF_INET => IpAddr::from(Ipv4Addr::from(*address.first_chunk::<4>()?)),
        AF_INET6 => IpAddr::from(Ipv6Addr::from(*address.first_chunk::<16>()?)),
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::namespace::Kind;

    #[test]
    fn unit_a_truncated_answer_is_no_address() {
        let whole = [&[AF_INET, 10, 0, 0, 0x1f, 0x90, 0, 0, 127, 0, 0, 1][..], &[0; 60]].concat();
        assert_eq!(local(&whole), Some("127.0.0.1:8080".parse().expect("an address")));
        (0..12).for_each(|length| assert_eq!(local(&whole[..length]), None, "{length}"));
    }

    #[test]
    fn root_listeners_are_found_with_their_addresses() {
        let four = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it has one");
        let held = TcpListener::bind("[::1]:0").expect("a port");
        let own = namespace::of_process(std::process::id(), Kind::Network).expect("this process has one");
        let mut connection = Connection::open_sockets_in(std::os::fd::AsFd::as_fd(&own)).expect("a connection");
        let found = connection.tcp_listeners().expect("the kernel answers");
        assert!(found.contains(&held.local_addr().expect("it has one")), "{found:?}");
        assert!(!found.contains(&four), "its socket is closed");
    }
}
