//! Addresses, IPv4 routes and neighbours. `include/uapi/linux/if_addr.h`, `rtnetlink.h`, `neighbour.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Connection, NetlinkError, Request,
    link::MacAddress,
    message::{Attributes, Message},
};

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP: u16 = 0x300;

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NTF_MASTER: u8 = 0x04;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;

/// Gives an interface an address.
pub fn add_address(index: u32, address: Ipv4Addr, prefix: u8) -> Request {
    let mut body = [AF_INET, prefix, 0, 0, 0, 0, 0, 0];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE)
        .body(&body)
        .attribute(IFA_LOCAL, &address.octets())
        .attribute(IFA_ADDRESS, &address.octets());
    Request::new("set an address", message)
}

/// Sends everything without a better route to a gateway.
pub fn add_default_route(index: u32, gateway: Ipv4Addr) -> Request {
    let body = [AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0, 0, 0, 0];
    let message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE)
        .body(&body)
        .attribute(RTA_GATEWAY, &gateway.octets())
        .u32(RTA_OIF, index);
    Request::new("set the default route", message)
}

/// Sends what is for one address to a gateway.
pub fn add_host_route(index: u32, destination: Ipv4Addr, gateway: Ipv4Addr) -> Request {
    let body = [AF_INET, 32, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0, 0, 0, 0];
    let message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE)
        .body(&body)
        .attribute(RTA_DST, &destination.octets())
        .attribute(RTA_GATEWAY, &gateway.octets())
        .u32(RTA_OIF, index);
    Request::new("set the route to an address", message)
}

fn neighbour(family: u8, index: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut body = [0; 12];
    body[0] = family;
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..10].copy_from_slice(&state.to_ne_bytes());
    body[10] = flags;
    body
}

/// Enters the Ethernet address of an IPv4 neighbour for good, so that it is never asked for.
pub fn add_neighbour(index: u32, address: Ipv4Addr, mac: MacAddress) -> Request {
    let message = Message::new(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE)
        .body(&neighbour(AF_INET, index, NUD_PERMANENT, 0))
        .attribute(NDA_DST, &address.octets())
        .attribute(NDA_LLADDR, &mac);
    Request::new("enter a neighbour", message)
}

/// Tells a bridge which station is behind a port.
pub fn add_station(port: u32, mac: MacAddress) -> Request {
    let message = Message::new(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE)
        .body(&neighbour(AF_BRIDGE, port, NUD_NOARP, NTF_MASTER))
        .attribute(NDA_LLADDR, &mac);
    Request::new("enter a station behind a bridge port", message)
}

/// An IPv4 address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Interface index.
    pub index: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// Length of the network prefix in bits.
    pub prefix: u8,
}

/// An IPv4 route of any table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Destination network; `0.0.0.0` with prefix 0 is the default route.
    pub destination: Ipv4Addr,
    /// Length of the network prefix in bits.
    pub prefix: u8,
    /// Interface packets leave through, where the route has one.
    pub index: Option<u32>,
    /// Where packets are handed to next.
    pub gateway: Option<Ipv4Addr>,
    /// Routing table; 254 is the main one.
    pub table: u8,
}

fn parse_address(body: &[u8]) -> Option<Address> {
    let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let attributes = Attributes::new(body.get(8..)?);
    let address = attributes.ipv4(IFA_LOCAL).or_else(|| attributes.ipv4(IFA_ADDRESS))?;
    Some(Address { index, address, prefix: body[1] })
}

/// An address of any family, the interface it is of, and the length of its network prefix.
fn parse_any(body: &[u8]) -> Option<(u32, IpAddr, u8)> {
    if *body.first()? == AF_INET {
        return parse_address(body).map(|found| (found.index, found.address.into(), found.prefix));
    }
    let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let octets: [u8; 16] = Attributes::new(body.get(8..)?).value(IFA_ADDRESS)?.try_into().ok()?;
    Some((index, Ipv6Addr::from(octets).into(), body[1]))
}

fn parse_route(body: &[u8]) -> Option<Route> {
    let attributes = Attributes::new(body.get(12..)?);
    Some(Route {
        destination: attributes.ipv4(RTA_DST).unwrap_or(Ipv4Addr::UNSPECIFIED),
        prefix: body[1],
        index: attributes.u32(RTA_OIF),
        gateway: attributes.ipv4(RTA_GATEWAY),
        table: body[4],
    })
}

impl Connection {
    /// All IPv4 addresses of the namespace.
    pub fn addresses(&mut self) -> Result<Vec<Address>, NetlinkError> {
        let message = Message::new(RTM_GETADDR, NLM_F_DUMP).body(&[AF_INET, 0, 0, 0, 0, 0, 0, 0]);
        let mut addresses = Vec::new();
        self.dump(Request::new("list the addresses", message), |_, body| addresses.extend(parse_address(body)))?;
        Ok(addresses)
    }

    /// All addresses of the namespace, with the index of their interface and the length of their network prefix.
    pub fn all_addresses(&mut self) -> Result<Vec<(u32, IpAddr, u8)>, NetlinkError> {
        let message = Message::new(RTM_GETADDR, NLM_F_DUMP).body(&[0; 8]);
        let mut addresses = Vec::new();
        self.dump(Request::new("list the addresses", message), |_, body| addresses.extend(parse_any(body)))?;
        Ok(addresses)
    }

    /// All IPv4 routes of the namespace, of every table.
    pub fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let message = Message::new(RTM_GETROUTE, NLM_F_DUMP).body(&[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut routes = Vec::new();
        self.dump(Request::new("list the routes", message), |_, body| routes.extend(parse_route(body)))?;
        Ok(routes)
    }
}
