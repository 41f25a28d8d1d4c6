//! The network of one state directory on this host: a bridge, an address per slot, a packet filter, and the way out.
//!
//! [`Network::open`] makes (or finds again) what all servers share: the bridge `kiln-<id>`, the host's address on it,
//! the nftables tables (see [`rules`]) and forwarding (see [`forwarding`]). [`Network::attach`] then gives one network
//! namespace a veth pair into that bridge; it is a handful of netlink messages and touches nothing shared, so servers
//! start in parallel and in any order. Addresses are a function of the slot (see [`subnet`]).
//!
//! Nothing is kept in memory that the kernel does not know: a restarted daemon opens the same network and finds the
//! ports of running servers still in it. When a server's namespace dies, its port goes with it; [`Network::detach`]
//! only makes sure. [`Network::purge`] removes everything and puts back every setting that was changed.
//!
//! Several state directories stand side by side: every name carries the id, and what must be shared (the choice of a
//! subnet, forwarding of the interfaces that lead out) is settled under a lock in a directory all of them share.

use std::{
    collections::BTreeSet,
    fs, io,
    net::Ipv4Addr,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use kiln_sys::{
    netlink::{Connection, NetlinkError, address, link},
    nftables,
};
use serde::{Deserialize, Serialize};

mod error;
mod findings;
mod forwarding;
mod names;
pub mod resolver;
mod rules;
mod shared;
pub mod subnet;
mod surroundings;

pub use error::NetworkError;
use error::failed;
pub use findings::Finding;
use forwarding::Forwarding;
pub use names::Names;
pub use rules::METADATA;
use shared::{Shared, forget_subnet};
pub use subnet::{FIRST_BUILD_SLOT, SLOTS, Subnet, SubnetError};
use surroundings::{Surroundings, settle_subnet};

const INTERFACE: &str = "eth0";
const LOOPBACK_INDEX: u32 = 1;
/// Deletions per batch, so that the acknowledgements fit the socket's buffer.
const BATCH: usize = 64;

/// What a network namespace may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A server of the fleet: other servers of the fleet, and out.
    Fleet,
    /// A server under test: only the host can talk to it, and it only answers.
    Isolated,
    /// A build step: out, but no server.
    Build,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Fleet, Self::Isolated, Self::Build];

    /// The interface group that the packet filter knows a port's mode by.
    fn group(self) -> u32 {
        match self {
            Self::Fleet => 0x6b69_6c01,
            Self::Isolated => 0x6b69_6c02,
            Self::Build => 0x6b69_6c03,
        }
    }

    fn of_group(group: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.group() == group)
    }
}

/// How to open a network.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// Eight lower-case hexadecimal digits that stand for the state directory.
    pub id: String,
    /// Run directory of this state directory; the chosen subnet is recorded here.
    pub run_dir: PathBuf,
    /// Directory shared by every state directory of this host (`/run/kiln`).
    pub shared_dir: PathBuf,
    /// The network to use, instead of one chosen from the shared address space.
    pub subnet: Option<Subnet>,
    /// TCP ports that the host offers to servers at the bridge's address.
    pub offered_ports: Vec<u16>,
}

/// What a namespace was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The slot.
    pub slot: u16,
    /// Address of `eth0`.
    pub address: Ipv4Addr,
    /// Length of the network prefix in bits.
    pub prefix: u8,
    /// The host's address, and the default route unless isolated.
    pub gateway: Ipv4Addr,
    /// The interface on the host.
    pub port: String,
}

/// A port that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Its slot.
    pub slot: u16,
    /// Its mode; nothing when somebody changed the interface's group.
    pub mode: Option<Mode>,
}

/// The network of one state directory.
#[derive(Debug)]
pub struct Network {
    names: Names,
    options: NetworkOptions,
    subnet: Subnet,
    bridge: u32,
    mtu: u32,
    /// Interfaces that forward only because of Kiln.
    uplinks: Vec<String>,
    offers: Mutex<Offers>,
    route: Mutex<Connection>,
}

/// What of the host's own is offered to servers for as long as somebody is there to offer it.
#[derive(Debug, Default)]
struct Offers {
    metadata: Option<u16>,
    to_tests: BTreeSet<u16>,
}

impl Network {
    /// Makes the network of a state directory, or finds it again. Running servers in it are not disturbed.
    pub fn open(options: NetworkOptions) -> Result<Self, NetworkError> {
        let names = Names::new(&options.id)?;
        fs::create_dir_all(&options.run_dir).map_err(failed("create", &options.run_dir))?;
        let _shared = Shared::lock(&options.shared_dir)?;
        let mut route = Connection::open().map_err(names.kernel("open netlink"))?;
        let surroundings = Surroundings::read(&mut route).map_err(names.kernel("look at the host's network"))?;
        let subnet = settle_subnet(&names, &options, &surroundings)?;
        let mtu = surroundings.mtu();
        let bridge = make_bridge(&mut route, &names, subnet, mtu).map_err(names.kernel("make the bridge"))?;
        let mut network = Self {
            names,
            options,
            subnet,
            bridge,
            mtu,
            uplinks: Vec::new(),
            offers: Mutex::default(),
            route: Mutex::new(route),
        };
        network.filter_and_forward(&surroundings.uplinks())?;
        Ok(network)
    }

    /// The rules are in place before anything is forwarded.
    fn filter_and_forward(&mut self, uplinks: &BTreeSet<String>) -> Result<(), NetworkError> {
        let mut ours = Vec::new();
        for uplink in uplinks {
            if self.forwarding().would_borrow(uplink)? {
                ours.push(uplink.clone());
            }
        }
        self.uplinks = ours;
        self.offer(|_| ())?;
        self.forwarding().switch_on_own(&self.names.bridge)?;
        self.uplinks.iter().try_for_each(|uplink| self.forwarding().borrow(uplink))
    }

    /// Changes what is offered. Under one lock, so that the filter loaded last knows all of it.
    fn offer(&self, change: impl FnOnce(&mut Offers)) -> Result<(), NetworkError> {
        let mut offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut offers);
        self.load_filter(&offers)
    }

    fn load_filter(&self, offers: &Offers) -> Result<(), NetworkError> {
        let input = rules::RuleInput {
            names: &self.names,
            subnet: self.subnet,
            offered: &self.options.offered_ports,
            to_tests: &offers.to_tests,
            metadata: offers.metadata,
            uplinks: &self.uplinks,
        };
        Connection::open_netfilter()
            .and_then(|mut netfilter| nftables::replace(&mut netfilter, &rules::tables(&input)))
            .map_err(self.names.kernel("load the packet filter"))
    }

    /// Leads servers that ask [`METADATA`] to this port of the bridge's address. Until then they get no answer.
    pub fn offer_metadata(&self, port: u16) -> Result<(), NetworkError> {
        self.offer(|offers| offers.metadata = Some(port))
    }

    /// Lets isolated servers, and nobody else but the host itself, connect to this TCP port of the bridge's address.
    pub fn offer_to_tests(&self, port: u16) -> Result<(), NetworkError> {
        self.offer(|offers| {
            offers.to_tests.insert(port);
        })
    }

    /// Takes back what [`Self::offer_to_tests`] gave. Connections that are there go on until their service ends.
    pub fn withdraw_from_tests(&self, port: u16) -> Result<(), NetworkError> {
        self.offer(|offers| {
            offers.to_tests.remove(&port);
        })
    }

    fn forwarding(&self) -> Forwarding<'_> {
        Forwarding { directory: &self.options.shared_dir, user: &self.names.id }
    }

    fn route(&self) -> MutexGuard<'_, Connection> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network in use.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Names of the bridge, its ports and the tables.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Gives a network namespace, fresh and with nothing but a loopback interface, its place in the network. A port
    /// that a dead server left in this slot is replaced. On failure nothing is left.
    pub fn attach(&self, slot: u16, namespace: BorrowedFd<'_>, mode: Mode) -> Result<Attachment, NetworkError> {
        if slot >= SLOTS {
            return Err(NetworkError::Slot(slot));
        }
        let attachment = Attachment {
            slot,
            address: self.subnet.address(slot),
            prefix: self.subnet.prefix(),
            gateway: self.subnet.gateway(),
            port: self.names.port(slot),
        };
        let mut inside = Connection::open_in(namespace, prepare_namespace)
            .map_err(self.names.kernel("enter a server's network namespace"))?;
        self.connect(&attachment, namespace, mode).map_err(self.names.kernel("connect a server"))?;
        let configured = configure(&mut inside, &attachment, mode);
        match configured.and_then(|()| self.settle(&attachment.port)) {
            Ok(()) => Ok(attachment),
            Err(source) => {
                self.detach(slot)?;
                Err(self.names.kernel("configure a server's interface")(source))
            }
        }
    }

    /// The first packet must not be lost: neither at the port, nor at the bridge when this is its first port.
    fn settle(&self, port: &str) -> Result<(), NetlinkError> {
        let mut route = self.route();
        route.settle_carrier(port)?;
        route.settle_carrier(&self.names.bridge).map(drop)
    }

    /// The host's side: the veth pair, its port, and the two tables that would otherwise be learnt by asking.
    fn connect(&self, to: &Attachment, namespace: BorrowedFd<'_>, mode: Mode) -> Result<(), NetlinkError> {
        let mac = Subnet::mac(to.address);
        let veth = link::Veth {
            name: &to.port,
            bridge: self.bridge,
            group: mode.group(),
            mtu: self.mtu,
            peer_name: INTERFACE,
            peer_address: mac,
            peer_namespace: namespace,
        };
        let mut route = self.route();
        match route.execute(vec![link::create_veth(&veth)]) {
            Err(error) if error.already_exists() => {
                route.execute(vec![link::delete_named(&to.port)])?;
                route.execute(vec![link::create_veth(&veth)])?;
            }
            other => other?,
        }
        let outcome = route.link(&to.port).and_then(|port| {
            let port = port.map_or(0, |port| port.index);
            route.execute(vec![
                link::enable_port(&to.port),
                address::add_station(port, mac),
                address::add_neighbour(self.bridge, to.address, mac),
            ])
        });
        if outcome.is_err() {
            route.execute(vec![link::delete_named(&to.port)])?;
        }
        outcome
    }

    /// Makes sure that a slot has no port. Returns whether it had one.
    pub fn detach(&self, slot: u16) -> Result<bool, NetworkError> {
        let deleted = self.route().execute(vec![link::delete_named(&self.names.port(slot))]);
        match deleted {
            Ok(()) => Ok(true),
            Err(error) if error.not_found() => Ok(false),
            Err(error) => Err(self.names.kernel("disconnect a server")(error)),
        }
    }

    /// The ports that exist, by slot.
    pub fn list(&self) -> Result<Vec<Port>, NetworkError> {
        let links = self.route().links().map_err(self.names.kernel("list the ports"))?;
        let port =
            |link: &link::Link| Some(Port { slot: self.names.slot(&link.name)?, mode: Mode::of_group(link.group) });
        let mut ports: Vec<Port> = links.iter().filter_map(port).collect();
        ports.sort_by_key(|port| port.slot);
        Ok(ports)
    }

    /// What on this host stands in the way of servers' traffic, in words.
    pub fn findings(&self) -> Result<Vec<Finding>, NetworkError> {
        findings::look(&self.names)
    }

    /// Removes everything that [`Network::open`] and [`Network::attach`] made, and puts changed settings back.
    pub fn purge(self) -> Result<(), NetworkError> {
        let Self { names, options, .. } = self;
        purge(&names.id, &options.run_dir, &options.shared_dir)
    }
}

/// As [`Network::purge`], for a state directory whose network may be half there or not there at all.
pub fn purge(id: &str, run_dir: &Path, shared_dir: &Path) -> Result<(), NetworkError> {
    let names = Names::new(id)?;
    let shared = Shared::lock(shared_dir)?;
    let mut route = Connection::open().map_err(names.kernel("open netlink"))?;
    remove_links(&mut route, &names).map_err(names.kernel("remove the bridge and its ports"))?;
    Forwarding { directory: shared_dir, user: id }.give_back()?;
    remove_tables(&names).map_err(names.kernel("remove the packet filter"))?;
    forget_subnet(run_dir)?;
    shared.remove()
}

fn remove_links(route: &mut Connection, names: &Names) -> Result<(), NetlinkError> {
    let links = route.links()?;
    let ports: Vec<u32> = links.iter().filter(|link| names.slot(&link.name).is_some()).map(|link| link.index).collect();
    for batch in ports.chunks(BATCH) {
        match route.execute(batch.iter().map(|port| link::delete(*port)).collect()) {
            // A server's namespace died meanwhile and took its port along; the rest of the batch was carried out.
            Err(error) if error.not_found() => {}
            other => other?,
        }
    }
    match route.execute(vec![link::delete_named(&names.bridge)]) {
        Err(error) if error.not_found() => Ok(()),
        other => other,
    }
}

fn remove_tables(names: &Names) -> Result<(), NetlinkError> {
    let mut netfilter = Connection::open_netfilter()?;
    for family in [nftables::Family::Bridge, nftables::Family::Inet] {
        nftables::delete(&mut netfilter, family, &names.table)?;
    }
    Ok(())
}

fn make_bridge(route: &mut Connection, names: &Names, subnet: Subnet, mtu: u32) -> Result<u32, NetlinkError> {
    let gateway = subnet.gateway();
    match route.execute(vec![link::create_bridge(&names.bridge, Subnet::mac(gateway), mtu)]) {
        Err(error) if error.already_exists() => {}
        other => other?,
    }
    let index = route.link(&names.bridge)?.map_or(0, |bridge| bridge.index);
    route.execute(vec![address::add_address(index, gateway, subnet.prefix()), link::set_up_without_ipv6(index)])?;
    Ok(index)
}

/// Settings of a namespace that nothing is in yet. Programs may listen on `::1`, but `eth0`, which does not exist yet,
/// never gets an IPv6 address; and every port is free for every user, because nobody else is there to take it from.
pub(crate) fn prepare_namespace() -> io::Result<()> {
    for (path, value) in
        [("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"), ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")]
    {
        match fs::write(path, value) {
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// The server's side of an attachment.
fn configure(inside: &mut Connection, to: &Attachment, mode: Mode) -> Result<(), NetlinkError> {
    let interface = inside.link(INTERFACE)?.map_or(0, |link| link.index);
    let mut requests = vec![
        link::set_up(LOOPBACK_INDEX),
        link::set_up(interface),
        address::add_address(interface, to.address, to.prefix),
        address::add_neighbour(interface, to.gateway, Subnet::mac(to.gateway)),
    ];
    requests.push(match mode {
        Mode::Isolated => address::add_host_route(interface, METADATA, to.gateway),
        Mode::Fleet | Mode::Build => address::add_default_route(interface, to.gateway),
    });
    inside.execute(requests)
}
