//! What control needs of whatever brings traffic to servers: the gateway, or a fake.
//!
//! The table is always sent whole, with a version that only grows. The order that keeps requests from failing is the
//! reconciler's: a new server is in an acknowledged table before an old one is drained, and an old one is drained
//! before it is stopped.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use kiln_model::{GroupName, ServerId, fleet::PublishName, manifest::Protocol};

/// The whole routing table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    /// Only grows, also across restarts of the daemon.
    pub version: u64,
    /// One for each published port of each group.
    pub routes: Vec<Route>,
}

/// A port of the host that leads to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The group.
    pub group: GroupName,
    /// Port of the host, on all its addresses; 0 takes a free one.
    pub listen: u16,
    /// Which of the group's published ports: the servers' port, and the slot where it leads to one.
    pub published: PublishName,
    /// How it is treated.
    pub protocol: Protocol,
    /// The servers behind it.
    pub backends: Vec<Backend>,
    /// A request waits so long for a server, and says so at once ([`Traffic::asked`]); none where servers are to be there always.
    pub hold: Option<Duration>,
}

/// A server behind a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The server.
    pub server: ServerId,
    /// Where it is reached.
    pub address: SocketAddr,
    /// Whether it gets nothing new.
    pub draining: bool,
}

/// The host's port of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The group.
    pub group: GroupName,
    /// With the group it names the route.
    pub published: PublishName,
    /// The port that was bound; 0 while it could not be.
    pub bound: u16,
}

/// What a server carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The server.
    pub server: ServerId,
    /// Requests or connections since the gateway's start.
    pub served: u64,
    /// Requests or connections under way.
    pub in_flight: u64,
}

/// What is under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrafficLoad {
    /// What the servers of the table carry; one that is behind several ports comes once for each.
    pub carried: Vec<Carried>,
    /// Requests and connections that wait for a server, of the groups that have some.
    pub waiting: BTreeMap<GroupName, u64>,
}

/// For whom requests wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Another number than before: somebody began to wait meanwhile.
    pub number: u64,
    /// The groups whose requests wait now.
    pub groups: Vec<GroupName>,
}

/// What did not reach a server, as the gateway counts it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failures {
    /// Which gateway counted: a new one begins at nothing.
    pub gateway: u32,
    /// Requests that no server answered whole, and TCP connections that found no server, since its start.
    pub failed: BTreeMap<GroupName, u64>,
    /// Connections of ports published as TCP that each server has open: they are cut if it dies.
    pub open: BTreeMap<ServerId, u64>,
}

impl Failures {
    /// What failed of a group since an earlier look. Where another gateway counts by now: since its start.
    pub fn since(&self, earlier: &Self, group: &GroupName) -> u64 {
        let of = |failures: &Self| failures.failed.get(group).copied().unwrap_or(0);
        match self.gateway == earlier.gateway {
            true => of(self).saturating_sub(of(earlier)),
            false => of(self),
        }
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Requests or connections cut at the limit; 0 if all finished.
    pub cut: u64,
    /// How long it took.
    pub waited: Duration,
}

/// Why the table was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// A port of the host belongs to another program; the old table stays in force.
    #[error("port {port} of this host is taken{}", .holder.as_ref().map(|h| format!(" by {h}")).unwrap_or_default())]
    PortTaken {
        /// The port.
        port: u16,
        /// Who has it, where that is known.
        holder: Option<String>,
    },
    /// The gateway cannot be reached, or failed. It is asked again.
    #[error("the gateway does not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Brings traffic to servers.
#[async_trait::async_trait]
pub trait Traffic: Send + Sync + 'static {
    /// Puts a table in force and returns when it is. Idempotent for the same version.
    async fn set_routes(&self, routes: &Routes) -> Result<Vec<Bound>, TrafficError>;
    /// Sends a server nothing new and returns when nothing is in flight there, or when `limit` is over and the rest
    /// was cut. A server that is not in the table is drained at once.
    async fn drain(&self, server: &ServerId, limit: Duration) -> Result<Drained, TrafficError>;
    /// What is under way.
    async fn load(&self) -> Result<TrafficLoad, TrafficError>;
    /// Returns when a request begins to wait on a route that holds it ([`Route::hold`]), and may return without one. `after` is
    /// the number of the last answer.
    async fn asked(&self, after: u64) -> Result<Asked, TrafficError>;
    /// What did not reach a server.
    async fn failures(&self) -> Result<Failures, TrafficError>;
}
