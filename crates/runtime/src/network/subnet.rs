//! Addresses: which network a state directory uses, and which address belongs to which slot.
//!
//! Everything is a function of the subnet and the slot, so that nothing needs to be remembered per server and a
//! server's successor in the same slot has the same address.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use kiln_sys::netlink::link::MacAddress;
use serde::{Deserialize, Serialize};

/// Length of the prefix of a state directory's network in bits.
pub const PREFIX: u8 = 20;

/// Number of slots: as many as a Linux bridge has ports.
pub const SLOTS: u16 = 1023;

/// The slots from here on are for build steps ([`super::Mode::Build`]); those before for servers.
pub const FIRST_BUILD_SLOT: u16 = 1007;

/// Shared address space (RFC 6598), from which networks are chosen. On hosts that use it already (Tailscale), the
/// benchmarking range of RFC 2544.
const POOL: (Ipv4Addr, u8) = (Ipv4Addr::new(100, 64, 0, 0), 10);
const OTHER_POOL: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 0, 0), 15);

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

/// Not a network that servers can be given addresses from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Not of the form `a.b.c.d/n`.
    #[error("`{0}` is not a network; write it like 100.64.16.0/20")]
    Syntax(String),
    /// Too small for every slot, or larger than it can be.
    #[error("/{0} is not between /8 and /{PREFIX}; every one of {SLOTS} servers needs an address")]
    Size(u8),
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl Subnet {
    /// The network that holds `address`.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Result<Self, SubnetError> {
        if !(8..=PREFIX).contains(&prefix) {
            return Err(SubnetError::Size(prefix));
        }
        Ok(Self { network: Ipv4Addr::from(u32::from(address) & mask(prefix)), prefix })
    }

    /// First address: the network itself.
    pub fn network(&self) -> Ipv4Addr {
        self.network
    }

    /// Length of the prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The host's address on the bridge.
    pub fn gateway(&self) -> Ipv4Addr {
        self.host(1)
    }

    /// The address of a slot.
    pub fn address(&self, slot: u16) -> Ipv4Addr {
        self.host(2 + u32::from(slot))
    }

    /// The slot that has this address.
    pub fn slot(&self, address: Ipv4Addr) -> Option<u16> {
        let slot = u32::from(address).checked_sub(u32::from(self.network) + 2)?;
        u16::try_from(slot).ok().filter(|slot| *slot < SLOTS)
    }

    /// The Ethernet address of whoever has an IPv4 address: locally administered, `02:4b`, then the address.
    pub fn mac(address: Ipv4Addr) -> MacAddress {
        let [a, b, c, d] = address.octets();
        [0x02, 0x4b, a, b, c, d]
    }

    /// Whether any address lies in both.
    pub fn overlaps(&self, network: Ipv4Addr, prefix: u8) -> bool {
        let common = mask(self.prefix.min(prefix));
        u32::from(self.network) & common == u32::from(network) & common
    }

    fn host(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + number)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let syntax = || SubnetError::Syntax(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(syntax)?;
        Self::new(address.parse().map_err(|_| syntax())?, prefix.parse().map_err(|_| syntax())?)
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

/// Chooses a network that overlaps none of those in use: the one that `seed` points at in the pool, else the next.
/// Nothing when all are in use.
pub fn choose(seed: u32, in_use: &[(Ipv4Addr, u8)], pool_taken: bool) -> Option<Subnet> {
    let (start, length) = if pool_taken { OTHER_POOL } else { POOL };
    let count = 1u32 << (PREFIX - length);
    (0..count).find_map(|step| {
        let number = (seed.wrapping_add(step)) % count;
        let network = Ipv4Addr::from(u32::from(start) + (number << (32 - PREFIX)));
        let subnet = Subnet { network, prefix: PREFIX };
        let free = !in_use.iter().any(|(used, prefix)| *prefix > 0 && subnet.overlaps(*used, *prefix));
        free.then_some(subnet)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_addresses_are_each_others_inverse() {
        let subnet: Subnet = "100.64.16.0/20".parse().unwrap();
        assert_eq!(subnet.gateway(), Ipv4Addr::new(100, 64, 16, 1));
        for slot in [0, 1, 253, 254, FIRST_BUILD_SLOT, SLOTS - 1] {
            assert_eq!(subnet.slot(subnet.address(slot)), Some(slot));
            assert!(subnet.overlaps(subnet.address(slot), 32));
        }
        assert_eq!(subnet.slot(subnet.gateway()), None);
    }

    #[test]
    fn a_used_network_is_stepped_over() {
        let first = choose(5, &[], false).unwrap();
        let second = choose(5, &[(first.network(), 24)], false).unwrap();
        assert_ne!(first, second);
        assert!(!second.overlaps(first.network(), PREFIX));
        assert_eq!(choose(5, &[(Ipv4Addr::UNSPECIFIED, 0)], false), Some(first), "a default route is not a use");
        assert_eq!(choose(5, &[(Ipv4Addr::new(100, 0, 0, 0), 8)], false), None);
    }

    #[test]
    fn a_host_that_uses_the_shared_range_gets_another() {
        assert_eq!(choose(0, &[], true).unwrap().network(), Ipv4Addr::new(198, 18, 0, 0));
    }

    #[test]
    fn bad_networks_are_refused() {
        assert!("100.64.0.0".parse::<Subnet>().is_err());
        assert_eq!("10.0.0.0/24".parse::<Subnet>(), Err(SubnetError::Size(24)));
    }
}
