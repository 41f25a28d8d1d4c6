//! Listening sockets: one per port, for every IPv4 and IPv6 address of the host.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::OwnedFd,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt},
};

use crate::{holder, proto::Refusal};

/// Connections that the kernel keeps for us between two `accept`s (it caps this at `net.core.somaxconn`).
const BACKLOG: i32 = 4_096;

/// Opens a port (0: any free one) on all addresses.
pub fn open(port: u16) -> Result<TcpListener, Refusal> {
    let both = bind(AddressFamily::INET6, (Ipv6Addr::UNSPECIFIED, port).into());
    let bound = match both {
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
            bind(AddressFamily::INET, (Ipv4Addr::UNSPECIFIED, port).into())
        }
        other => other,
    };
    bound.map(TcpListener::from).map_err(|errno| refusal(port, errno))
}

fn bind(family: AddressFamily, address: SocketAddr) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if family == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn refusal(port: u16, errno: Errno) -> Refusal {
    match errno {
        Errno::ADDRINUSE => Refusal::PortTaken { port, holder: holder::of_port(port) },
        other => Refusal::PortFailed { port, message: io::Error::from(other).to_string() },
    }
}

/// Stops listening in every process that has the socket: who keeps a duplicate must not keep clients waiting.
pub fn close_everywhere(listener: &TcpListener) -> io::Result<()> {
    Ok(rustix::net::shutdown(listener, rustix::net::Shutdown::Both)?)
}

/// Whether the socket still listens (a duplicate may outlive [`close_everywhere`]).
pub fn is_listening(listener: &TcpListener) -> bool {
    sockopt::socket_acceptconn(listener).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn host_is_reached_by_both_families_and_names_the_holder() {
        let listener = open(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        match open(port) {
            Err(Refusal::PortTaken { port: taken, holder: Some(holder) }) => {
                assert_eq!((taken, holder.pid), (port, std::process::id()));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn host_closing_reaches_duplicates() {
        let listener = open(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        let duplicate = listener.try_clone().unwrap();
        close_everywhere(&listener).unwrap();
        assert!(!is_listening(&duplicate));
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        open(port).expect("the port is free for another");
    }
}
