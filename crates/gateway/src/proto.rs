//! The control protocol: one JSON object per line, a reply per request, in order.
//!
//! Replies that carry listening sockets are followed by one byte per batch of at most [`crate::fds::BATCH`]
//! sockets, sent as `SCM_RIGHTS`.

use kiln_model::{GroupName, ServerId, manifest::Protocol};
use serde::{Deserialize, Serialize};

use crate::{
    latency::Latency,
    table::{Bound, Route},
};

/// A line longer than this is refused, bytes. 1024 routes of 40 servers fit.
pub const MAX_LINE: usize = 8 << 20;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Replace the table.
    SetRoutes {
        /// Must not be lower than that of the table in force.
        version: u64,
        /// The new table.
        routes: Vec<Route>,
    },
    /// Send a server nothing new; answer when nothing is in flight there, or the limit is over.
    Drain {
        /// Which server.
        server: ServerId,
        /// Milliseconds. What is still in flight then is cut.
        limit_ms: u64,
    },
    /// What is served.
    Status {},
    /// Answer when a request begins to wait on a route that holds it, or after the limit.
    Asked {
        /// The number of the last answer; 0 at first.
        after: u64,
        /// Milliseconds.
        limit_ms: u64,
    },
    /// Duplicates of the listening sockets, to be kept by somebody who outlives this process.
    TakeListeners {},
    /// The same, and no table is accepted until `retire` or the end of this connection.
    HandOver {},
    /// A successor listens now: accept nothing more, finish what is in flight, exit.
    Retire {},
    /// Close the ports, finish what is in flight, exit.
    Stop {},
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The table is in force.
    Routed {
        /// Its version.
        version: u64,
        /// The ports, in the order of the routes.
        bound: Vec<Bound>,
    },
    /// The server serves nothing that came through this gateway.
    Drained(Drained),
    /// What is served.
    Status(Status),
    /// Requests wait, or nobody came.
    Asked(Asked),
    /// Listening sockets follow.
    Listeners {
        /// The table's version.
        version: u64,
        /// The table.
        routes: Vec<Route>,
        /// The port of each route, in order.
        numbers: Vec<u16>,
        /// The ports of the sockets that follow, in order.
        ports: Vec<u16>,
    },
    /// The process is on its way out.
    Retired {},
    /// The ports are closed.
    Stopping {},
    /// Refused.
    Error(Refusal),
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Requests and connections cut at the limit. 0: all finished.
    pub cut: usize,
    /// How long it took, milliseconds.
    pub waited_ms: u64,
}

/// For whom requests wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Another one than before if somebody began to wait meanwhile.
    pub number: u64,
    /// The groups that may have no server and for which requests wait now.
    pub groups: Vec<GroupName>,
}

/// What a gateway serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The process.
    pub pid: u32,
    /// The version of the table in force; 0 before the first.
    pub version: u64,
    /// Client connections.
    pub connections: usize,
    /// Earlier processes that are still finishing their connections.
    pub earlier: usize,
    /// The routes, in the order of the table.
    pub routes: Vec<RouteStatus>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Where it is reached.
    #[serde(flatten)]
    pub bound: Bound,
    /// How it is treated.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// Requests that no server answered whole, and TCP connections that found no server, since the gateway's start. What a client
    /// did wrong, or did not wait for, does not count.
    #[serde(default)]
    pub failed: u64,
    /// Its servers.
    pub backends: Vec<BackendStatus>,
    /// Requests and connections that wait for one.
    #[serde(default)]
    pub waiting: usize,
}

/// One server of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Which server.
    pub server: ServerId,
    /// Gets nothing new.
    pub draining: bool,
    /// Refused a connection and has not been reached since.
    pub down: bool,
    /// HTTP requests or TCP connections.
    pub in_flight: usize,
    /// Since the gateway's start.
    pub served: u64,
    /// HTTP answers, by how long their heads took.
    #[serde(default)]
    pub latency: Latency,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Refusal {
    /// An older table than the one in force.
    #[error("table version {asked} is older than {current}, which is in force")]
    OlderVersion {
        /// The version asked for.
        asked: u64,
        /// The version in force.
        current: u64,
    },
    /// The same version, another table.
    #[error("table version {version} is in force with other routes")]
    SameVersionOtherRoutes {
        /// The version.
        version: u64,
    },
    /// The table contradicts itself.
    #[error("the table is invalid: {message}")]
    InvalidRoutes {
        /// How.
        message: String,
    },
    /// A port belongs to somebody else. The old table stays in force.
    #[error("port {port} is taken{}", .holder.as_ref().map(|h| format!(" by {h}")).unwrap_or_default())]
    PortTaken {
        /// The port.
        port: u16,
        /// Who has it, where that can be found out.
        holder: Option<crate::Holder>,
    },
    /// A port could not be opened for another reason. The old table stays in force.
    #[error("port {port} could not be opened: {message}")]
    PortFailed {
        /// The port.
        port: u16,
        /// The system's words.
        message: String,
    },
    /// The table could not be written to disk. The old table stays in force.
    #[error("the table could not be kept: {message}")]
    NotKept {
        /// The system's words.
        message: String,
    },
    /// A successor is taking over; ask again.
    #[error("a successor is taking over")]
    HandingOver,
    /// Not a request.
    #[error("not a request: {message}")]
    Malformed {
        /// What is wrong with it.
        message: String,
    },
    /// Longer than [`MAX_LINE`].
    #[error("the request is longer than {MAX_LINE} bytes")]
    TooLong,
}
