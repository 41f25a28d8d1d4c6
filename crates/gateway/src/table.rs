//! The table of routes: what the daemon wants served. Plain values, checked once by [`Routes::check`].

use std::{collections::BTreeSet, net::SocketAddr};

use kiln_model::{GroupName, ServerId, manifest::Protocol};
use serde::{Deserialize, Serialize};

/// Most routes in one table.
pub const MAX_ROUTES: usize = 1_024;
/// Most servers behind one route.
pub const MAX_BACKENDS: usize = 4_096;

/// Every route that is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routes {
    /// The routes. At most [`MAX_ROUTES`].
    pub routes: Vec<Route>,
}

/// A port of the host that leads to the servers of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The group.
    pub group: GroupName,
    /// The servers' port. With the group it names the route, so that a chosen port can be kept.
    #[serde(default)]
    pub port: u16,
    /// Port of the host; 0 takes a free one and keeps it as long as the route is in the table.
    pub listen: u16,
    /// How the traffic is treated.
    pub protocol: Protocol,
    /// The group's servers that are ready or draining. At most [`MAX_BACKENDS`].
    pub backends: Vec<Backend>,
    /// A group that may have no server: a request waits for one so long, milliseconds, and the daemon is told. None: as long as
    /// [`crate::Limits::queue_timeout`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u32>,
}

/// One server behind a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Which server.
    pub server: ServerId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it gets nothing new.
    #[serde(default)]
    pub draining: bool,
}

/// A route and the port it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// The group.
    pub group: GroupName,
    /// The servers' port.
    pub port: u16,
    /// What the table asked for; 0 means any.
    pub listen: u16,
    /// The port of the host. 0 when the port could not be bound again after a restart, and is being retried.
    pub bound: u16,
}

/// A table that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRoutes {
    /// Two routes want the same port.
    #[error("port {0} is wanted by two routes")]
    PortTwice(u16),
    /// Too many routes.
    #[error("{0} routes: at most {MAX_ROUTES} are possible")]
    TooManyRoutes(usize),
    /// Too many servers.
    #[error("{1} servers behind a route of {0}: at most {MAX_BACKENDS} are possible")]
    TooManyBackends(GroupName, usize),
    /// A server is listed twice in one route.
    #[error("server {0} is listed twice in one route")]
    ServerTwice(ServerId),
}

impl Routes {
    /// Refuses a table that contradicts itself or is too large.
    pub fn check(&self) -> Result<(), InvalidRoutes> {
        if self.routes.len() > MAX_ROUTES {
            return Err(InvalidRoutes::TooManyRoutes(self.routes.len()));
        }
        let mut ports = BTreeSet::new();
        for route in &self.routes {
            if route.listen != 0 && !ports.insert(route.listen) {
                return Err(InvalidRoutes::PortTwice(route.listen));
            }
            route.check()?;
        }
        Ok(())
    }

    /// The names of the routes, in the order of the table.
    pub(crate) fn keys(&self) -> Vec<RouteKey> {
        let mut keys: Vec<RouteKey> = Vec::with_capacity(self.routes.len());
        for route in &self.routes {
            let nth = keys.iter().filter(|k| k.is_like(route)).count();
            keys.push(RouteKey { group: route.group.clone(), port: route.port, listen: route.listen, nth });
        }
        keys
    }
}

impl Route {
    fn check(&self) -> Result<(), InvalidRoutes> {
        if self.backends.len() > MAX_BACKENDS {
            return Err(InvalidRoutes::TooManyBackends(self.group.clone(), self.backends.len()));
        }
        let mut servers = BTreeSet::new();
        match self.backends.iter().find(|b| !servers.insert(&b.server)) {
            Some(twice) => Err(InvalidRoutes::ServerTwice(twice.server.clone())),
            None => Ok(()),
        }
    }
}

/// What makes two routes of two tables the same route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RouteKey {
    pub group: GroupName,
    pub port: u16,
    pub listen: u16,
    pub nth: usize,
}

impl RouteKey {
    fn is_like(&self, route: &Route) -> bool {
        self.group == route.group && self.port == route.port && self.listen == route.listen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(listen: u16, servers: &[&str]) -> Route {
        let backends = servers
            .iter()
            .map(|s| Backend { server: s.parse().unwrap(), address: "127.0.0.1:1".parse().unwrap(), draining: false })
            .collect();
        Route { group: "web".parse().unwrap(), port: 80, listen, protocol: Protocol::Http, backends, hold_ms: None }
    }

    #[test]
    fn one_port_leads_to_one_route() {
        let routes = Routes { routes: vec![route(8080, &[]), route(8080, &[])] };
        assert_eq!(routes.check(), Err(InvalidRoutes::PortTwice(8080)));
        assert_eq!(Routes { routes: vec![route(0, &[]), route(0, &[])] }.check(), Ok(()));
    }

    #[test]
    fn a_server_is_listed_once() {
        let routes = Routes { routes: vec![route(1, &["web-a", "web-a"])] };
        assert!(matches!(routes.check(), Err(InvalidRoutes::ServerTwice(_))));
    }

    #[test]
    fn routes_to_any_port_have_different_names() {
        let keys = Routes { routes: vec![route(0, &[]), route(0, &[])] }.keys();
        assert_ne!(keys[0], keys[1]);
    }
}
