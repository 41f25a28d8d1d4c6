//! What other software on the host does to servers' traffic. A packet that any table drops is gone, whatever Kiln's
//! tables say, so these things can only be found and named.

use std::fs;

use kiln_sys::{
    netlink::Connection,
    nftables::{self, Hook},
};

use super::{Names, NetworkError};

/// Something on the host that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was found.
    pub found: String,
    /// What does not work because of it.
    pub effect: String,
    /// What to do about it.
    pub help: String,
}

/// Looks at the host.
pub(super) fn look(names: &Names) -> Result<Vec<Finding>, NetworkError> {
    let chains = Connection::open_netfilter()
        .and_then(|mut netfilter| nftables::base_chains(&mut netfilter))
        .map_err(names.kernel("list the host's packet filters"))?;
    let mut dropping: Vec<String> = chains
        .iter()
        .filter(|chain| chain.drops_by_default && chain.hook == Hook::Forward as u32 && chain.table != names.table)
        .map(|chain| format!("{} {}", chain.table, chain.name))
        .collect();
    dropping.extend(legacy_iptables());
    let bridged =
        fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").is_ok_and(|text| text.trim() == "1");
    Ok(dropping.into_iter().map(|chain| forward_drops(&chain, &names.bridge, bridged)).collect())
}

/// The old iptables cannot be listed through nfnetlink; its presence is worth a word.
fn legacy_iptables() -> Option<String> {
    let tables = fs::read_to_string("/proc/net/ip_tables_names").ok()?;
    tables.lines().any(|table| table == "filter").then(|| "legacy iptables FORWARD (if its policy is DROP)".to_owned())
}

fn forward_drops(chain: &str, bridge: &str, bridged: bool) -> Finding {
    let effect = match bridged {
        true => "servers cannot reach the network outside, nor each other (bridge-nf-call-iptables is 1)",
        false => "servers cannot reach the network outside; they do reach each other, and the host reaches them",
    };
    Finding {
        found: format!("the packet filter chain {chain} drops forwarded packets by default"),
        effect: effect.to_owned(),
        help: format!(
            "allow {bridge} there, for example: iptables -I FORWARD -i {bridge} -j ACCEPT; \
             iptables -I FORWARD -o {bridge} -j ACCEPT (with Docker: in the chain DOCKER-USER)"
        ),
    }
}
