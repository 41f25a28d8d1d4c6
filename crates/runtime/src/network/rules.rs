//! The packet filter of one state directory: two nftables tables that never change while servers come and go.
//!
//! What a server may do is read off the port it sends from: the port's name carries the state directory and the slot,
//! the port's group carries the mode. So the tables are the same for any set of servers, nothing has to be added when
//! a server starts, and a port that no rule knows (a group of 0) may do nothing.
//!
//! Family `bridge`, on frames between ports:
//! 1. from a port: only IPv4 and ARP, and only with the slot's own Ethernet and IPv4 address;
//! 2. from port to port: only between servers of the fleet;
//! 3. from an isolated server to the host: only to the host's address on the bridge and to [`METADATA`];
//! 4. from any other server to the host: not to the ports that are offered to servers under test.
//!
//! Family `inet`, on packets that the host receives or routes:
//! 5. to the host: answers, ICMP, the ports that Kiln offers, and the metadata service, which is only reached by asking
//!    for [`METADATA`]; nothing else the host runs. The host itself never gets that address: it may run on a cloud
//!    and need the cloud's. From elsewhere: not to the ports that are offered to servers under test;
//! 6. through the host: out, but never to link-local addresses (a cloud's metadata service) or to another state
//!    directory's servers; in, only answers;
//! 7. for interfaces that forward only because Kiln asked for it: nothing that is not for servers;
//! 8. on the way out, the host's address takes the place of the server's.

use std::{collections::BTreeSet, net::Ipv4Addr};

use kiln_sys::nftables::{Chain, ChainKind, Family, Field, Hook, Rule, Set, Table};

use super::{Mode, Names, Subnet, subnet::SLOTS};

const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const ICMP: [u8; 1] = [1];
const TCP: [u8; 1] = [6];
/// Where servers look for their metadata.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const METADATA_PORT: u16 = 80;
const TO_TESTS: &str = "to_tests";
const LINK_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 0);
const BEFORE_FILTER: i32 = -10;
const BEFORE_BRIDGE_FILTER: i32 = -300;
const SOURCE_NAT: i32 = 100;
const DESTINATION_NAT: i32 = -100;

/// What the tables are made from.
pub(super) struct RuleInput<'a> {
    pub(super) names: &'a Names,
    pub(super) subnet: Subnet,
    /// TCP ports of the host that servers may connect to, at the bridge's address.
    pub(super) offered: &'a [u16],
    /// TCP ports of the host that isolated servers, and only they, may connect to at the bridge's address.
    pub(super) to_tests: &'a BTreeSet<u16>,
    /// The port of the metadata service at the bridge's address, once there is one.
    pub(super) metadata: Option<u16>,
    /// Interfaces that forward only because of Kiln.
    pub(super) uplinks: &'a [String],
}

/// The tables of a state directory.
pub(super) fn tables(input: &RuleInput<'_>) -> [Table; 2] {
    [bridge_table(input), inet_table(input)]
}

fn owner_key(port: &str, address: Ipv4Addr) -> Vec<u8> {
    let mut key = port.as_bytes().to_vec();
    key.resize(16, 0);
    key.extend_from_slice(&Subnet::mac(address));
    key.extend_from_slice(&[0, 0]);
    key.extend_from_slice(&address.octets());
    key
}

fn bridge_table(input: &RuleInput<'_>) -> Table {
    let owners = (0..SLOTS).map(|slot| owner_key(&input.names.port(slot), input.subnet.address(slot)));
    Table {
        family: Family::Bridge,
        name: input.names.table.clone(),
        sets: vec![
            Set {
                name: "owners",
                fields: vec![Field::InputName, Field::EtherSource, Field::Source],
                keys: owners.collect(),
            },
            ports(TO_TESTS, input.to_tests),
        ],
        chains: vec![
            Chain { name: "from_port", kind: ChainKind::Regular, rules: own_addresses_only() },
            base(
                "prerouting",
                Hook::Prerouting,
                BEFORE_BRIDGE_FILTER,
                vec![Rule::new().name_starts(Field::InputName, &input.names.port_prefix).go_to("from_port")],
            ),
            base("forward", Hook::Forward, BEFORE_BRIDGE_FILTER, fleet_only(input.names)),
            base("input", Hook::Input, BEFORE_BRIDGE_FILTER, to_host_by_mode(input)),
        ],
    }
}

fn base(name: &'static str, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { name, kind: ChainKind::Filter(hook, priority), rules }
}

fn own_addresses_only() -> Vec<Rule> {
    let own_frame = [Field::InputName, Field::EtherSource];
    let with = |fields: [Field; 2], last| [fields[0], fields[1], last];
    vec![
        Rule::new().is(Field::EtherType, &IPV4).in_set(&with(own_frame, Field::Source), "owners").accept(),
        Rule::new()
            .is(Field::EtherType, &ARP)
            .in_set(&with(own_frame, Field::ArpSource), "owners")
            .in_set(&[Field::InputName, Field::ArpEther, Field::ArpSource], "owners")
            .accept(),
        Rule::new().drop(),
    ]
}

fn fleet_only(names: &Names) -> Vec<Rule> {
    let fleet = Mode::Fleet.group().to_ne_bytes();
    vec![
        Rule::new().name_starts(Field::InputName, &names.port_prefix).is_not(Field::InputGroup, &fleet).drop(),
        Rule::new().name_starts(Field::OutputName, &names.port_prefix).is_not(Field::OutputGroup, &fleet).drop(),
    ]
}

/// The port's mode is only seen here: for family `inet` everything comes from the bridge.
fn to_host_by_mode(input: &RuleInput<'_>) -> Vec<Rule> {
    let isolated = Mode::Isolated.group().to_ne_bytes();
    let from_server = || Rule::new().name_starts(Field::InputName, &input.names.port_prefix);
    vec![
        from_server()
            .is_not(Field::InputGroup, &isolated)
            .is(Field::EtherType, &IPV4)
            .is(Field::Protocol, &TCP)
            .is(Field::Destination, &input.subnet.gateway().octets())
            .in_set(&[Field::DestinationPort], TO_TESTS)
            .drop(),
        from_server()
            .is(Field::InputGroup, &isolated)
            .is(Field::EtherType, &IPV4)
            .is_not(Field::Destination, &input.subnet.gateway().octets())
            .is_not(Field::Destination, &METADATA.octets())
            .drop(),
    ]
}

fn inet_table(input: &RuleInput<'_>) -> Table {
    let bridge = &input.names.bridge;
    Table {
        family: Family::Inet,
        name: input.names.table.clone(),
        sets: vec![ports("offered", input.offered), ports(TO_TESTS, input.to_tests)],
        chains: vec![
            Chain { name: "to_host", kind: ChainKind::Regular, rules: to_host(input) },
            base(
                "input",
                Hook::Input,
                BEFORE_FILTER,
                vec![Rule::new().named(Field::InputName, bridge).go_to("to_host"), to_tests_from_elsewhere(input)],
            ),
            base("forward", Hook::Forward, BEFORE_FILTER, through_host(input)),
            Chain {
                name: "prerouting",
                kind: ChainKind::Nat(Hook::Prerouting, DESTINATION_NAT),
                rules: to_metadata(input).into_iter().collect(),
            },
            Chain {
                name: "postrouting",
                kind: ChainKind::Nat(Hook::Postrouting, SOURCE_NAT),
                rules: vec![
                    Rule::new()
                        .ipv4()
                        .in_network(Field::Source, input.subnet.network(), input.subnet.prefix())
                        .not_named(Field::OutputName, bridge)
                        .masquerade(),
                ],
            },
        ],
    }
}

fn ports<'a>(name: &'static str, ports: impl IntoIterator<Item = &'a u16>) -> Set {
    let keys = ports.into_iter().map(|port| port.to_be_bytes().to_vec()).collect();
    Set { name, fields: vec![Field::DestinationPort], keys }
}

/// The host answers for its addresses at all of its interfaces.
fn to_tests_from_elsewhere(input: &RuleInput<'_>) -> Rule {
    to_gateway(input).not_named(Field::InputName, "lo").in_set(&[Field::DestinationPort], TO_TESTS).drop()
}

fn to_gateway(input: &RuleInput<'_>) -> Rule {
    Rule::new().ipv4().is(Field::Destination, &input.subnet.gateway().octets()).is(Field::Protocol, &TCP)
}

fn to_metadata(input: &RuleInput<'_>) -> Option<Rule> {
    let asked = Rule::new()
        .named(Field::InputName, &input.names.bridge)
        .ipv4()
        .is(Field::Destination, &METADATA.octets())
        .is(Field::Protocol, &TCP)
        .is(Field::DestinationPort, &METADATA_PORT.to_be_bytes());
    input.metadata.map(|port| asked.redirect(input.subnet.gateway(), port))
}

fn to_host(input: &RuleInput<'_>) -> Vec<Rule> {
    let metadata = input
        .metadata
        .map(|port| to_gateway(input).is(Field::DestinationPort, &port.to_be_bytes()).redirected().accept());
    [
        Rule::new().established().accept(),
        Rule::new().is(Field::Protocol, &ICMP).accept(),
        to_gateway(input).in_set(&[Field::DestinationPort], "offered").accept(),
        to_gateway(input).in_set(&[Field::DestinationPort], TO_TESTS).accept(),
    ]
    .into_iter()
    .chain(metadata)
    .chain([Rule::new().drop()])
    .collect()
}

fn through_host(input: &RuleInput<'_>) -> Vec<Rule> {
    let bridge = &input.names.bridge;
    let from = || Rule::new().named(Field::InputName, bridge);
    let to = || Rule::new().named(Field::OutputName, bridge);
    let mut rules = vec![
        from().ipv4().in_network(Field::Destination, LINK_LOCAL, 16).drop(),
        from().named(Field::OutputName, bridge).accept(),
        from().name_starts(Field::OutputName, Names::BRIDGE_PREFIX).drop(),
        from().accept(),
        to().established().accept(),
        to().drop(),
    ];
    rules.extend(input.uplinks.iter().map(|uplink| {
        Rule::new().named(Field::InputName, uplink).name_starts_not(Field::OutputName, Names::BRIDGE_PREFIX).drop()
    }));
    rules
}
