//! The host's network as it is found, and the choice of a network that fits into it.

use std::{collections::BTreeSet, net::Ipv4Addr};

use kiln_sys::netlink::{Connection, NetlinkError, address, link};

use super::{
    Names, NetworkError, NetworkOptions, Subnet,
    shared::{record_subnet, recorded_subnet},
    subnet,
};

const USUAL_MTU: u32 = 1500;

/// The host's interfaces, addresses and routes at one moment.
pub(super) struct Surroundings {
    pub(super) links: Vec<link::Link>,
    addresses: Vec<address::Address>,
    routes: Vec<address::Route>,
}

impl Surroundings {
    pub(super) fn read(route: &mut Connection) -> Result<Self, NetlinkError> {
        Ok(Self { links: route.links()?, addresses: route.addresses()?, routes: route.routes()? })
    }

    fn name(&self, index: u32) -> Option<&str> {
        self.links.iter().find(|link| link.index == index).map(|link| link.name.as_str())
    }

    /// Networks that belong to anything but `bridge`.
    fn in_use(&self, bridge: &str) -> Vec<(Ipv4Addr, u8)> {
        let foreign = |index: Option<u32>| index.and_then(|index| self.name(index)) != Some(bridge);
        let addresses = self.addresses.iter().filter(|found| foreign(Some(found.index)));
        let routes = self.routes.iter().filter(|found| foreign(found.index));
        let addresses = addresses.map(|found| (found.address, found.prefix));
        addresses.chain(routes.map(|found| (found.destination, found.prefix))).collect()
    }

    /// Interfaces with a default route.
    pub(super) fn uplinks(&self) -> BTreeSet<String> {
        let defaults = self.routes.iter().filter(|route| route.prefix == 0);
        let names = defaults.filter_map(|route| self.name(route.index?));
        names.filter(|name| *name != "lo").map(str::to_owned).collect()
    }

    pub(super) fn mtu(&self) -> u32 {
        let uplinks = self.uplinks();
        let found = self.links.iter().filter(|link| uplinks.contains(&link.name)).map(|link| link.mtu).min();
        found.unwrap_or(USUAL_MTU).min(USUAL_MTU)
    }

    /// Tailscale drops packets of the shared address space that do not come from its own interface.
    fn shared_space_taken(&self) -> bool {
        self.links.iter().any(|link| link.name.starts_with("tailscale"))
    }
}

/// The recorded network while the bridge with its servers exists, else the one asked for, else a free one.
pub(super) fn settle_subnet(
    names: &Names,
    options: &NetworkOptions,
    host: &Surroundings,
) -> Result<Subnet, NetworkError> {
    let recorded = recorded_subnet(&options.run_dir)?;
    let bridge_exists = host.links.iter().any(|link| link.name == names.bridge);
    if let Some(subnet) = recorded.filter(|_| bridge_exists) {
        return Ok(subnet);
    }
    let in_use = host.in_use(&names.bridge);
    let overlap = |subnet: Subnet| {
        in_use.iter().copied().find(|(network, prefix)| *prefix > 0 && subnet.overlaps(*network, *prefix))
    };
    let subnet = match options.subnet {
        Some(wanted) => match overlap(wanted) {
            Some((network, prefix)) => {
                return Err(NetworkError::SubnetInUse { wanted, used: format!("{network}/{prefix}") });
            }
            None => wanted,
        },
        None => subnet::choose(names.seed(), &in_use, host.shared_space_taken()).ok_or(NetworkError::NoFreeSubnet)?,
    };
    record_subnet(&options.run_dir, subnet)?;
    Ok(subnet)
}
