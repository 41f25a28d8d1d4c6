//! What other software on the host does to servers' traffic. A packet that any table drops is gone, whatever Kiln's
//! tables say, so these things can only be found and named.

use std::fs;

use kiln_sys::probe;

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
    let dropping = probe::dropping_forward_chains().map_err(names.kernel("list the host's packet filters"))?;
    let bridged =
        fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").is_ok_and(|text| text.trim() == "1");
    Ok(dropping.into_iter().map(|chain| forward_drops(&chain, &names.bridge, bridged)).collect())
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
