//! Network interfaces: bridges, veth pairs and bridge ports. `include/uapi/linux/if_link.h`.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{
    Connection, NetlinkError, Request,
    message::{Attributes, Message},
};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP: u16 = 0x300;
const IFF_UP: u32 = 1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_UNICAST_FLOOD: u16 = 9;
const IFLA_BRPORT_MCAST_FLOOD: u16 = 27;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const AF_INET6: u16 = 10;
const ETHTOOL_GLINK: u32 = 0x0a;

/// An Ethernet address.
pub type MacAddress = [u8; 6];

/// The fixed part of a link message, `struct ifinfomsg`.
fn header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// No link-local address, no router solicitation, no duplicate address detection.
fn without_ipv6(message: Message) -> Message {
    message.nested(IFLA_AF_SPEC, |families| {
        families.nested(AF_INET6, |inet6| inet6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]))
    })
}

/// Makes a bridge that forwards at once (no spanning tree) and does not look into multicast.
pub fn create_bridge(name: &str, address: MacAddress, mtu: u32) -> Request {
    let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL)
        .body(&header(0, 0, 0))
        .text(IFLA_IFNAME, name)
        .attribute(IFLA_ADDRESS, &address)
        .u32(IFLA_MTU, mtu)
        .nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "bridge")
                .nested(IFLA_INFO_DATA, |data| data.u32(IFLA_BR_STP_STATE, 0).flag(IFLA_BR_MCAST_SNOOPING, false))
        });
    Request::new("create a bridge", message)
}

/// A veth pair: one end a port of a bridge here, the other in another network namespace.
#[derive(Debug)]
pub struct Veth<'a> {
    /// Name of the end that stays here, at most 15 bytes.
    pub name: &'a str,
    /// Interface index of the bridge it becomes a port of.
    pub bridge: u32,
    /// Interface group (matched by nftables as `iifgroup`).
    pub group: u32,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// Ethernet address of the other end.
    pub peer_address: MacAddress,
    /// Namespace of the other end.
    pub peer_namespace: BorrowedFd<'a>,
}

/// Makes both ends of a veth pair where they belong. Both are down: the kernel refuses to switch one end on before the
/// pair is complete.
pub fn create_veth(veth: &Veth<'_>) -> Request {
    let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL)
        .body(&header(0, 0, 0))
        .text(IFLA_IFNAME, veth.name)
        .u32(IFLA_MTU, veth.mtu)
        .u32(IFLA_MASTER, veth.bridge)
        .u32(IFLA_GROUP, veth.group)
        .nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    peer.body(&header(0, 0, 0))
                        .text(IFLA_IFNAME, veth.peer_name)
                        .attribute(IFLA_ADDRESS, &veth.peer_address)
                        .u32(IFLA_MTU, veth.mtu)
                        .u32(IFLA_NET_NS_FD, veth.peer_namespace.as_raw_fd() as u32)
                })
            })
        });
    Request::new("create a veth pair", message)
}

/// Switches a bridge port on. Its one station is entered by hand ([`super::address::add_station`]), so it learns
/// nothing and is not flooded with frames for others.
pub fn enable_port(name: &str) -> Request {
    let message = Message::new(RTM_NEWLINK, 0).body(&header(0, IFF_UP, IFF_UP)).text(IFLA_IFNAME, name);
    let message = without_ipv6(message).nested(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_SLAVE_KIND, "bridge").nested(IFLA_INFO_SLAVE_DATA, |data| {
            data.flag(IFLA_BRPORT_LEARNING, false)
                .flag(IFLA_BRPORT_UNICAST_FLOOD, false)
                .flag(IFLA_BRPORT_MCAST_FLOOD, false)
        })
    });
    Request::new("switch a bridge port on", message)
}

/// Switches an interface on.
pub fn set_up(index: u32) -> Request {
    Request::new("switch an interface on", Message::new(RTM_NEWLINK, 0).body(&header(index, IFF_UP, IFF_UP)))
}

/// Switches an interface on that shall never speak IPv6.
pub fn set_up_without_ipv6(index: u32) -> Request {
    let message = Message::new(RTM_NEWLINK, 0).body(&header(index, IFF_UP, IFF_UP));
    Request::new("switch an interface on", without_ipv6(message))
}

/// Removes an interface; the other end of a veth pair goes with it.
pub fn delete(index: u32) -> Request {
    Request::new("delete an interface", Message::new(RTM_DELLINK, 0).body(&header(index, 0, 0)))
}

/// Removes an interface by its name.
pub fn delete_named(name: &str) -> Request {
    let message = Message::new(RTM_DELLINK, 0).body(&header(0, 0, 0)).text(IFLA_IFNAME, name);
    Request::new("delete an interface", message)
}

/// An interface as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Index of the bridge it is a port of.
    pub bridge: Option<u32>,
    /// Interface group.
    pub group: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// `veth`, `bridge`, …; nothing for hardware and loopback.
    pub kind: Option<String>,
    /// Switched on.
    pub up: bool,
}

fn parse(body: &[u8]) -> Option<Link> {
    let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let flags = u32::from_ne_bytes(body.get(8..12)?.try_into().ok()?);
    let attributes = Attributes::new(body.get(16..)?);
    let kind = attributes.value(IFLA_LINKINFO).and_then(|info| Attributes::new(info).text(IFLA_INFO_KIND));
    Some(Link {
        index,
        name: attributes.text(IFLA_IFNAME)?,
        bridge: attributes.u32(IFLA_MASTER),
        group: attributes.u32(IFLA_GROUP).unwrap_or(0),
        mtu: attributes.u32(IFLA_MTU).unwrap_or(0),
        kind,
        up: flags & IFF_UP != 0,
    })
}

impl Connection {
    /// All interfaces of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let message = Message::new(RTM_GETLINK, NLM_F_DUMP).body(&header(0, 0, 0));
        let mut links = Vec::new();
        self.dump(Request::new("list the interfaces", message), |_, body| links.extend(parse(body)))?;
        Ok(links)
    }

    /// Makes the kernel act now on a change of carrier, which it otherwise does some milliseconds later; until then a
    /// bridge port whose other end has just been switched on drops frames. Returns whether there is a carrier.
    ///
    /// The kernel offers this only as a side effect of ETHTOOL_GLINK (`linkwatch_sync_dev`).
    pub fn settle_carrier(&mut self, name: &str) -> Result<bool, NetlinkError> {
        let mut question = [ETHTOOL_GLINK, 0u32];
        // SAFETY: all-zero is a valid ifreq: an empty name and no data.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (place, byte) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
            *place = byte as libc::c_char;
        }
        request.ifr_ifru.ifru_data = question.as_mut_ptr().cast();
        // SAFETY: for SIOCETHTOOL the kernel reads the ifreq and, for ETHTOOL_GLINK, reads and writes the two words
        // that its data points to; both outlive the call.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
        match result {
            0 => Ok(question[1] != 0),
            _ => Err(NetlinkError::Socket {
                action: "settle the carrier of an interface",
                source: std::io::Error::last_os_error(),
            }),
        }
    }

    /// One interface, or nothing when there is none of that name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let message = Message::new(RTM_GETLINK, 0).body(&header(0, 0, 0)).text(IFLA_IFNAME, name);
        match self.get(Request::new("look an interface up", message)) {
            Ok(body) => Ok(parse(&body)),
            Err(error) if error.not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
