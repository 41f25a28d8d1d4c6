//! The network: what Kiln needs of it, tried in network namespaces of its own, and what on the host is in the way.

use std::{fs, os::fd::AsFd};

use super::{Check, State};
use crate::{
    namespace,
    netlink::{Connection, NetlinkError, link},
    nftables::{self, Chain, ChainKind, Family, Field, Hook, Rule, Table},
};

const NO_NETWORK: &str = "servers have no network";

pub(super) fn checks() -> Vec<Check> {
    let tried = namespace::new_network()
        .and_then(|host| namespace::in_network(host.as_fd(), || Ok([bridge_and_veth(), filter(), bridge_filter()])));
    let mut checks = match tried {
        Ok(tried) => tried.to_vec(),
        Err(error) => {
            let help = "use a kernel with CONFIG_NET_NS";
            vec![Check::lacking("network namespaces", State::Missing, super::words(&error), NO_NETWORK, help)]
        }
    };
    checks.extend([forwarding(), forward_chains()]);
    checks
}

fn bridge_and_veth() -> Check {
    let make = || -> Result<(), NetlinkError> {
        let mut route = Connection::open()?;
        route.execute(vec![link::create_bridge("probe0", [2, 0, 0, 0, 0, 1], 1500)])?;
        let bridge = route.link("probe0")?.map_or(0, |bridge| bridge.index);
        let other = namespace::new_network()?;
        route.execute(vec![link::create_veth(&link::Veth {
            name: "probe1",
            bridge,
            group: 0,
            mtu: 1500,
            peer_name: "eth0",
            peer_address: [2, 0, 0, 0, 0, 2],
            peer_namespace: other.as_fd(),
        })])
    };
    Check::tried("bridge and veth", make(), State::Missing, NO_NETWORK, "load the kernel modules bridge and veth")
}

fn try_table(family: Family, chains: Vec<Chain>) -> Result<(), NetlinkError> {
    let table = Table { family, name: "kiln_probe".into(), sets: vec![], chains };
    nftables::replace(&mut Connection::open_netfilter()?, &[table])
}

fn filter() -> Check {
    let tried = try_table(
        Family::Inet,
        vec![
            Chain {
                name: "forward",
                kind: ChainKind::Filter(Hook::Forward, 0),
                rules: vec![Rule::new().established().accept()],
            },
            Chain { name: "nat", kind: ChainKind::Nat(Hook::Postrouting, 100), rules: vec![Rule::new().masquerade()] },
        ],
    );
    let help = "load the kernel modules nf_tables, nft_ct, nft_chain_nat and nft_masq";
    Check::tried("nftables", tried, State::Missing, "servers cannot be isolated, nor reach the network outside", help)
}

fn bridge_filter() -> Check {
    let rule = Rule::new().is(Field::InputGroup, &[1, 0, 0, 0]).is(Field::EtherType, &[8, 0]).drop();
    let chain = Chain { name: "forward", kind: ChainKind::Filter(Hook::Forward, 0), rules: vec![rule] };
    let tried = try_table(Family::Bridge, vec![chain]);
    let effect = "servers under test cannot be isolated, and servers could send with false addresses";
    Check::tried("nftables on bridges", tried, State::Missing, effect, "use a kernel with CONFIG_NF_TABLES_BRIDGE")
}

fn forwarding() -> Check {
    let value = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    Check::found(
        "forwarding",
        match value.trim() {
            "1" => "on for the whole host already",
            _ => "off; Kiln switches it on for its own bridge and the interfaces that lead out",
        },
    )
}

/// Chains of others that drop what is forwarded: a packet that any chain drops is gone.
fn forward_chains() -> Check {
    let name = "other packet filters";
    match dropping_forward_chains() {
        Ok(chains) if chains.is_empty() => Check::found(name, "none drops forwarded packets by default"),
        Ok(chains) => Check::lacking(
            name,
            State::Degraded,
            format!("{} drops forwarded packets by default", chains.join(", ")),
            "servers may not reach the network outside; they reach each other, and the host reaches them",
            "allow interfaces named kiln-* there; with Docker, in the chain DOCKER-USER",
        ),
        Err(error) => {
            let help = "load the kernel module nf_tables";
            Check::lacking(name, State::Degraded, super::words(&error), "conflicts cannot be found", help)
        }
    }
}

/// Names of the nftables chains that drop forwarded packets by default, `table chain` each, and the legacy iptables
/// filter, whose policy cannot be read through nfnetlink.
pub fn dropping_forward_chains() -> Result<Vec<String>, NetlinkError> {
    let chains = nftables::base_chains(&mut Connection::open_netfilter()?)?;
    let forward = chains.iter().filter(|chain| chain.drops_by_default && chain.hook == Hook::Forward as u32);
    let mut names: Vec<String> = forward.map(|chain| format!("{} {}", chain.table, chain.name)).collect();
    let legacy = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if legacy.lines().any(|table| table == "filter") {
        names.push("legacy iptables FORWARD (if its policy is DROP)".to_owned());
    }
    Ok(names)
}
