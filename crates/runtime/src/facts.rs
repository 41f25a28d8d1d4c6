//! What a program inside a server would see, seen from the host: links, file systems, kernel parameters, interfaces, and sockets of
//! the server's network. Nothing inside takes part, and nothing of the server is run.

use std::{
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
};

use kiln_sys::{
    namespace::{self, Kind},
    netlink,
};
use rustix::{
    fs::{FileType, OFlags},
    net::{AddressFamily, SocketFlags, SocketType},
};

use crate::{
    error::{OnFile as _, Result, RuntimeError},
    inside::{self, FileStatus},
    server::Server,
};

/// So much of a kernel parameter is read, in bytes.
const MAX_PARAMETER: u64 = 64 << 10;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Its addresses with the length of their network prefix.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A kind of socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Socket {
    /// A stream.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Status of a path and, where it is a symbolic link, what it says.
pub(crate) fn link(server: &Server, first_id: u32, path: &str) -> Result<Option<(FileStatus, Option<String>)>> {
    let Some(found) = inside::find(server, path, OFlags::NOFOLLOW)? else { return Ok(None) };
    let stat = rustix::fs::fstat(&found).on("look at", path)?;
    let target = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&found, "", Vec::new()).on("read the link", path)?;
            Some(target.to_string_lossy().into_owned())
        }
        _ => None,
    };
    Ok(Some((inside::status(&stat, first_id), target)))
}

/// Hundredths of the blocks that are used, as `statfs` counts them.
pub(crate) fn usage(server: &Server, path: &str) -> Result<Option<u32>> {
    let Some(found) = inside::find(server, path, OFlags::empty())? else { return Ok(None) };
    let stat = rustix::fs::fstatfs(&found).on("look at the file system of", path)?;
    if stat.f_blocks == 0 {
        return Ok(Some(0));
    }
    let free = stat.f_bfree as f64 / stat.f_blocks as f64;
    Ok(Some(((1.0 - free) * 100.0).round() as u32))
}

/// The value below `/proc/sys`, without the white space around it. A `.` in a name is a `/` there, so that no name leads out of it.
pub(crate) fn kernel_parameter(server: &Server, name: &str) -> Result<Option<String>> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let pid = server.record.pid;
    server.running()?;
    let read = namespace::in_kernel_view(pid, || {
        let file = std::fs::File::open(&path);
        Ok(file.and_then(|file| {
            let mut text = Vec::new();
            std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_PARAMETER), &mut text)?;
            Ok(String::from_utf8_lossy(&text).trim().to_owned())
        }))
    });
    let read = read.map_err(|error| entered(server, error))?;
    server.running()?;
    match read {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::IsADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error).on("read", path),
    }
}

fn entered(server: &Server, error: kiln_sys::SysError) -> RuntimeError {
    RuntimeError::Init {
        action: format!("look into the namespaces of {}: {error}", server.record.server),
        source: error.outcome,
    }
}

/// The server's network, and that it is the server's: while PID 1 was alive the number was its own.
pub(crate) fn network(server: &Server) -> Result<OwnedFd> {
    let network = namespace::of_process(server.record.pid, Kind::Network);
    server.running()?;
    network.map_err(|error| entered(server, error))
}

pub(crate) fn interfaces(server: &Server) -> Result<Vec<Interface>> {
    let network = network(server)?;
    let failed = |error: netlink::NetlinkError| std::io::Error::other(error.to_string());
    let mut connection =
        netlink::Connection::open_in(network.as_fd(), || Ok(())).map_err(failed).on("ask", "the server's network")?;
    let links = connection.links().map_err(failed).on("list the interfaces of", "the server's network")?;
    let all = connection.all_addresses().map_err(failed).on("list the addresses of", "the server's network")?;
    let of =
        |index| all.iter().filter(move |(owner, ..)| *owner == index).map(|(_, address, prefix)| (*address, *prefix));
    let interface =
        |link: netlink::link::Link| Interface { addresses: of(link.index).collect(), mtu: link.mtu, name: link.name };
    Ok(links.into_iter().map(interface).collect())
}

pub(crate) fn socket(server: &Server, family: IpAddr, kind: Socket) -> Result<OwnedFd> {
    let network = network(server)?;
    let family = if family.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match kind {
        Socket::Tcp => SocketType::STREAM,
        Socket::Udp => SocketType::DGRAM,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let made = namespace::in_network(network.as_fd(), || Ok(rustix::net::socket_with(family, kind, flags, None)));
    made.map_err(|error| entered(server, error))?.on("make", "a socket")
}
