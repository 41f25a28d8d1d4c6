//! `GET /v1/host`: everything Kiln made on this host, and `GET /v1/servers/{id}`: one server in detail.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::status::ServerStatus;

/// Everything Kiln made on this host for one state directory. `kiln down --purge` removes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostInventory {
    /// The daemon.
    pub daemon: DaemonStatus,
    /// The gateway, where one runs.
    pub gateway: Option<GatewayStatus>,
    /// Sockets, mounts, cgroups, network interfaces, tables, processes and files, in that order.
    pub items: Vec<HostItem>,
}

/// The daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DaemonStatus {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// State directory.
    pub state: String,
    /// Run directory.
    pub run: String,
    /// When it started, RFC 3339.
    pub started_at: String,
    /// Engine that servers run on.
    pub engine: String,
    /// Id of the key reports are signed with.
    pub key: String,
    /// What starts it again when it is killed: `nothing`, `verbs` (the next `kiln up`, for example), `supervisor`.
    #[serde(default)]
    pub revival: String,
}

/// The gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GatewayStatus {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Addresses it listens on.
    pub listening: Vec<String>,
}

/// Something Kiln made on the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct HostItem {
    /// `process`, `mount`, `cgroup`, `interface`, `nftables`, `namespace`, `file`, …
    pub kind: String,
    /// Its name, path or number.
    pub name: String,
    /// The server it belongs to, where it belongs to one.
    pub server: Option<String>,
}

/// The images that running servers, wanted releases and releases to go back to need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImagesInUse {
    /// Their digests.
    pub images: Vec<String>,
}

/// Answer to `POST /v1/gc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Collected {
    /// How many sealed secrets were removed.
    pub secrets: u64,
}

/// One server in detail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerDetails {
    /// Its group.
    pub group: String,
    /// As in `status`.
    #[serde(flatten)]
    pub status: ServerStatus,
    /// Digest of its configuration.
    pub config: String,
    /// Its services, as PID 1 reports them.
    pub services: Vec<ServiceDetails>,
    /// Path of the control socket of its PID 1, where there is one on this host.
    pub control_socket: Option<String>,
    /// The files its log is kept in, oldest first, where they are on this host.
    pub log: Vec<String>,
}

/// A service of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceDetails {
    /// Its name.
    pub name: String,
    /// Whether its process runs, or (for a task) has ended well.
    pub up: bool,
    /// How often it was started.
    pub starts: u32,
    /// How it last ended, if it did.
    pub last_exit: Option<String>,
}
