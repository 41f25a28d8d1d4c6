//! How the network fails.

use std::{
    io,
    path::{Path, PathBuf},
};

use kiln_sys::netlink::NetlinkError;

use super::{Names, SLOTS, Subnet};

/// Something about the network failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel refused.
    #[error("could not {action} for the network {bridge}")]
    Kernel {
        /// What was attempted.
        action: &'static str,
        /// The bridge.
        bridge: String,
        /// The refusal.
        #[source]
        source: NetlinkError,
    },
    /// A file of the run directory or a kernel setting.
    #[error("could not {action} {path}", path = path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A record is damaged.
    #[error("{path} is not a record that Kiln wrote; remove it when no server runs", path = path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Not eight hexadecimal digits.
    #[error("`{0}` is not the id of a state directory")]
    Id(String),
    /// No slot of that number.
    #[error("there is no network slot {0}; slots are 0 to {last}", last = SLOTS - 1)]
    Slot(u16),
    /// Every port of the bridge is in use.
    #[error(
        "the bridge {0} has no free port: one host carries at most 1023 servers and build steps per state directory"
    )]
    Full(String),
    /// No network is left to choose.
    #[error("every network of the shared address space overlaps a route of this host; name one with `subnet`")]
    NoFreeSubnet,
    /// The network asked for is in use.
    #[error("the network {wanted} overlaps {used}, which this host uses already")]
    SubnetInUse {
        /// The network asked for.
        wanted: Subnet,
        /// The route or address in its way.
        used: String,
    },
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NetworkError {
    let path = path.to_owned();
    move |source| NetworkError::File { action, path, source }
}

impl Names {
    pub(super) fn kernel(&self, action: &'static str) -> impl FnOnce(NetlinkError) -> NetworkError {
        let bridge = self.bridge.clone();
        move |source| match source.bridge_full() {
            true => NetworkError::Full(bridge),
            false => NetworkError::Kernel { action, bridge, source },
        }
    }
}
