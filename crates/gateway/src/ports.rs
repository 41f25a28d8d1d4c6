//! The ports in force: each a listening socket, a live route, and the workers that accept on it.
//!
//! A change is made in two steps: [`Ports::open`] opens what is missing and can fail without a trace;
//! [`Ports::commit`] puts all in force and cannot fail halfway. A socket whose port stays is never closed, also when
//! its group changes.

use std::{collections::HashMap, io, net::TcpListener, sync::Arc};

use kiln_model::GroupName;
use tokio::task::AbortHandle;

use crate::{
    bell::Bell,
    listen,
    live::LiveRoute,
    proto::{Refusal, RouteStatus},
    table::{Bound, Route, RouteKey, Routes},
    upstream::Upstream,
    worker::Workers,
};

/// Listening sockets by port: inherited, or taken from a table that is being replaced.
pub type Sockets = HashMap<u16, TcpListener>;

/// A route in force.
pub struct Port {
    key: RouteKey,
    live: Arc<LiveRoute>,
    /// The port of the host, also while it could not be opened.
    number: u16,
    socket: Option<TcpListener>,
    accepting: Vec<AbortHandle>,
}

/// All routes in force, in the order of the table.
#[derive(Default)]
pub struct Ports(Vec<Port>);

/// A socket for each route of a table, in order; `None` where the port could not be opened.
pub struct Opened(Vec<(u16, Option<TcpListener>)>);

/// What to do about a port that cannot be opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The daemon is there to be told.
    Refuse,
    /// Nobody is: serve the others, try again later.
    Retry,
}

impl Ports {
    /// Finds or opens a socket for each route. `spare` is looked at first; `kept` are the ports that routes to any
    /// port had before.
    pub fn open(
        &self,
        routes: &Routes,
        kept: &[u16],
        spare: &mut Sockets,
        missing: Missing,
    ) -> Result<Opened, Refusal> {
        let mut opened = Vec::with_capacity(routes.routes.len());
        for (index, key) in routes.keys().iter().enumerate() {
            let number = match (key.listen, kept.get(index), self.number_of(key)) {
                (0, Some(kept), _) => *kept,
                (0, None, number) => number.unwrap_or(0),
                (listen, ..) => listen,
            };
            opened.push(self.open_one(number, spare, missing)?);
        }
        Ok(Opened(opened))
    }

    fn open_one(
        &self,
        number: u16,
        spare: &mut Sockets,
        missing: Missing,
    ) -> Result<(u16, Option<TcpListener>), Refusal> {
        let failed = |error: io::Error| Refusal::PortFailed { port: number, message: error.to_string() };
        let existing = match spare.remove(&number).filter(listen::is_listening) {
            Some(socket) => Some(socket),
            None => self.socket(number).map(TcpListener::try_clone).transpose().map_err(failed)?,
        };
        let socket = match existing.map_or_else(|| listen::open(number), Ok) {
            Ok(socket) => socket,
            Err(refusal) if missing == Missing::Retry && number != 0 => {
                tracing::error!(%refusal, "a port of the kept table cannot be served");
                return Ok((number, None));
            }
            Err(refusal) => return Err(refusal),
        };
        let number = socket.local_addr().map_err(failed)?.port();
        Ok((number, Some(socket)))
    }

    fn number_of(&self, key: &RouteKey) -> Option<u16> {
        self.0.iter().find(|p| p.key == *key).map(|p| p.number)
    }

    fn socket(&self, number: u16) -> Option<&TcpListener> {
        self.0.iter().find(|p| p.number == number)?.socket.as_ref()
    }

    /// Puts a table in force. Returns the servers that left it; their connections go on.
    pub fn commit(&mut self, routes: &Routes, opened: Opened, workers: &Arc<Workers>) -> Vec<Arc<Upstream>> {
        let mut old = std::mem::take(&mut self.0);
        let mut gone = Vec::new();
        for ((route, key), (number, socket)) in routes.routes.iter().zip(routes.keys()).zip(opened.0) {
            // A port that was any free one at first, and is asked for by its number later, is the same: its connections go on.
            let same = |p: &Port| p.is_for(&key) && p.live.protocol == route.protocol && p.number == number;
            let mut port = match old.iter().position(same) {
                Some(index) => Port { key, ..old.swap_remove(index) },
                None => Port::new(key, route, number, &workers.bell),
            };
            port.live.hold(route.hold_ms);
            gone.extend(port.live.replace(&route.backends, workers.count()));
            port.serve(socket, workers);
            self.0.push(port);
        }
        for port in old {
            gone.extend(port.live.replace(&[], workers.count()));
            let used_by_another = self.socket(port.number).is_some();
            port.close(used_by_another);
        }
        gone
    }

    /// Puts the servers of a table in force for connections that exist; sockets are somebody else's now.
    pub fn follow(&mut self, routes: &Routes, workers: &Arc<Workers>) -> Vec<Arc<Upstream>> {
        let mut gone = Vec::new();
        let keys = routes.keys();
        for port in &self.0 {
            let asked = |key: &RouteKey| port.is_for(key) && [0, port.number].contains(&key.listen);
            let same = keys.iter().position(|key| *key == port.key).or_else(|| keys.iter().position(asked));
            let route = same.map(|index| &routes.routes[index]);
            let backends = route.map_or(&[][..], |route| &route.backends);
            port.live.hold(route.and_then(|route| route.hold_ms));
            gone.extend(port.live.replace(backends, workers.count()));
        }
        gone
    }

    /// Tries again to open what could not be opened.
    pub fn retry(&mut self, workers: &Arc<Workers>) {
        for port in self.0.iter_mut().filter(|p| p.socket.is_none()) {
            if let Ok(socket) = listen::open(port.number) {
                tracing::info!(port = port.number, "a port is served again");
                port.serve(Some(socket), workers);
            }
        }
    }

    /// Stops accepting; the sockets stay open for whoever has a duplicate.
    pub fn stop_accepting(&mut self) {
        for port in &mut self.0 {
            port.accepting.drain(..).for_each(|task| task.abort());
            port.socket = None;
        }
    }

    /// Stops accepting and closes the sockets everywhere.
    pub fn close(&mut self) {
        for port in &mut self.0 {
            port.accepting.drain(..).for_each(|task| task.abort());
            port.socket.take().iter().for_each(shut);
        }
    }

    /// Duplicates of the sockets, with their ports.
    pub fn duplicates(&self) -> io::Result<Vec<(u16, TcpListener)>> {
        self.0
            .iter()
            .filter_map(|p| Some((p.number, p.socket.as_ref()?)))
            .map(|(n, s)| Ok((n, s.try_clone()?)))
            .collect()
    }

    /// The servers of all routes.
    pub fn upstreams(&self) -> impl Iterator<Item = Arc<Upstream>> {
        self.0.iter().flat_map(|p| p.live.upstreams())
    }

    /// The port numbers, in the order of the table.
    pub fn numbers(&self) -> Vec<u16> {
        self.0.iter().map(|p| p.number).collect()
    }

    pub fn bound(&self) -> Vec<Bound> {
        self.0.iter().map(Port::bound).collect()
    }

    pub fn status(&self) -> Vec<RouteStatus> {
        let backends = |p: &Port| p.live.upstreams().iter().map(|u| u.status()).collect();
        let status = |p: &Port| RouteStatus {
            bound: p.bound(),
            protocol: Some(p.live.protocol),
            failed: p.live.failures(),
            backends: backends(p),
            waiting: p.live.waiting(),
        };
        self.0.iter().map(status).collect()
    }

    /// The groups for which requests are held now.
    pub fn awaited(&self) -> Vec<GroupName> {
        let held = self.0.iter().filter(|p| p.live.holds() && p.live.waiting() > 0);
        let mut groups: Vec<_> = held.map(|p| p.key.group.clone()).collect();
        groups.dedup();
        groups
    }
}

impl Opened {
    /// The port numbers, in the order of the table.
    pub fn numbers(&self) -> Vec<u16> {
        self.0.iter().map(|(number, _)| *number).collect()
    }
}

impl Port {
    fn new(key: RouteKey, route: &Route, number: u16, bell: &Bell) -> Self {
        let live = LiveRoute::new(route.group.clone(), route.protocol, bell.clone());
        Self { key, live, number, socket: None, accepting: Vec::new() }
    }

    fn is_for(&self, key: &RouteKey) -> bool {
        (&self.key.group, self.key.port) == (&key.group, key.port)
    }

    /// Starts accepting, if nobody does yet.
    fn serve(&mut self, socket: Option<TcpListener>, workers: &Arc<Workers>) {
        let (None, Some(socket)) = (&self.socket, socket) else { return };
        match workers.accept(&socket, &self.live) {
            Ok(accepting) => self.accepting = accepting,
            Err(error) => tracing::error!(port = self.number, %error, "a port cannot be served"),
        }
        self.socket = Some(socket);
    }

    fn close(mut self, used_by_another: bool) {
        self.accepting.drain(..).for_each(|task| task.abort());
        if !used_by_another {
            self.socket.iter().for_each(shut);
        }
    }

    fn bound(&self) -> Bound {
        let bound = if self.socket.is_some() { self.number } else { 0 };
        Bound { group: self.key.group.clone(), port: self.key.port, listen: self.key.listen, bound }
    }
}

fn shut(socket: &TcpListener) {
    if let Err(error) = listen::close_everywhere(socket) {
        tracing::warn!(%error, "a port could not be closed");
    }
}
