//! The gateway as a whole: the operations of the control protocol, and the stages of its life.

use std::{
    net::TcpListener,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use kiln_model::ServerId;
use tokio::sync::watch;

use crate::{
    client::GatewayClient,
    options::GatewayOptions,
    ports::{Missing, Ports, Sockets},
    proto::{Asked, Drained, Refusal, Reply, Status},
    store::{self, Kept},
    table::Routes,
    upstream::Upstream,
    worker::Workers,
};

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Accepts and serves.
    Serving,
    /// A successor accepts; this one finishes what it has.
    Retiring,
    /// Nobody accepts; finishes what it has within a limit.
    Stopping,
}

/// The table in force.
struct Table {
    version: u64,
    routes: Routes,
    ports: Ports,
}

/// A running gateway.
pub struct Gateway {
    pub state_dir: PathBuf,
    pub workers: Arc<Workers>,
    pub stage: watch::Sender<Stage>,
    /// Successors that have the sockets and have not yet said that they accept.
    pub handing_over: AtomicUsize,
    table: Mutex<Table>,
    /// Servers that left the table and may still have something in flight.
    gone: Mutex<Vec<Weak<Upstream>>>,
    /// Earlier processes of this state directory that still finish their connections.
    before: Mutex<Vec<GatewayClient>>,
}

impl Gateway {
    /// Starts the workers; nothing is served yet.
    pub fn new(options: &GatewayOptions) -> std::io::Result<Arc<Self>> {
        let (stage, observed) = watch::channel(Stage::Serving);
        Ok(Arc::new(Self {
            state_dir: options.state_dir.clone(),
            workers: Workers::start(options, observed)?,
            stage,
            handing_over: AtomicUsize::new(0),
            table: Mutex::new(Table { version: 0, routes: Routes::default(), ports: Ports::default() }),
            gone: Mutex::default(),
            before: Mutex::default(),
        }))
    }

    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no panic while held")
    }

    /// Serves a table that was in force before: kept on disk, or handed over with its sockets.
    pub fn restore(&self, kept: Kept, mut sockets: Sockets) -> Result<(), Refusal> {
        let mut table = self.table();
        let opened = table.ports.open(&kept.routes, &kept.ports, &mut sockets, Missing::Retry)?;
        table.ports.commit(&kept.routes, opened, &self.workers);
        (table.version, table.routes) = (kept.version, kept.routes);
        Ok(())
    }

    /// Puts a table in force, on disk first. Refused: nothing changed.
    pub async fn set_routes(&self, version: u64, routes: Routes) -> Result<Reply, Refusal> {
        routes.check().map_err(|e| Refusal::InvalidRoutes { message: e.to_string() })?;
        if self.stage() == Stage::Serving && self.handing_over.load(SeqCst) > 0 {
            return Err(Refusal::HandingOver);
        }
        let reply = self.replace_table(version, routes.clone())?;
        for before in self.before() {
            if let Err(error) = before.set_routes(version, routes.clone()).await {
                tracing::debug!(%error, "an earlier gateway is gone");
            }
        }
        Ok(reply)
    }

    fn replace_table(&self, version: u64, routes: Routes) -> Result<Reply, Refusal> {
        let mut table = self.table();
        if version < table.version {
            return Err(Refusal::OlderVersion { asked: version, current: table.version });
        }
        if version == table.version && routes != table.routes {
            return Err(Refusal::SameVersionOtherRoutes { version });
        }
        if version > table.version {
            let gone = self.change(&mut table, version, &routes)?;
            self.remember(gone);
            (table.version, table.routes) = (version, routes);
        }
        Ok(Reply::Routed { version, bound: table.ports.bound() })
    }

    fn change(&self, table: &mut Table, version: u64, routes: &Routes) -> Result<Vec<Arc<Upstream>>, Refusal> {
        if self.stage() != Stage::Serving {
            return Ok(table.ports.follow(routes, &self.workers));
        }
        let opened = table.ports.open(routes, &[], &mut Sockets::new(), Missing::Refuse)?;
        let kept = Kept::new(version, routes.clone(), opened.numbers());
        store::save(&self.state_dir, &kept).map_err(|e| Refusal::NotKept { message: e.to_string() })?;
        Ok(table.ports.commit(routes, opened, &self.workers))
    }

    fn remember(&self, servers: Vec<Arc<Upstream>>) {
        let mut gone = self.gone.lock().expect("no panic while held");
        gone.retain(|server| server.strong_count() > 0);
        gone.extend(servers.iter().filter(|s| s.in_flight() > 0).map(Arc::downgrade));
    }

    fn known(&self, server: &ServerId) -> Vec<Arc<Upstream>> {
        let mut known: Vec<_> = self.table().ports.upstreams().collect();
        known.extend(self.gone.lock().expect("no panic while held").iter().filter_map(Weak::upgrade));
        known.retain(|upstream| upstream.server == *server);
        known
    }

    /// Sends a server nothing new and waits for what it has, here and in earlier processes.
    pub async fn drain(&self, server: &ServerId, limit: Duration) -> Drained {
        let start = Instant::now();
        let known = self.known(server);
        known.iter().for_each(|upstream| upstream.set_draining(true));
        let here = futures::future::join_all(known.iter().map(|upstream| upstream.drained(limit)));
        let asked = self.before();
        let before = futures::future::join_all(asked.iter().map(|before| before.drain(server, limit)));
        let (here, before) = tokio::join!(here, before);
        let waited_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let before = before.iter().flatten().map(|drained| drained.cut);
        Drained { cut: here.into_iter().chain(before).sum(), waited_ms }
    }

    /// Returns when a request begins to wait on a route that holds it, or after the limit.
    pub async fn asked(&self, after: u64, limit: Duration) -> Asked {
        let number = self.workers.bell.heard(after, limit).await;
        Asked { number, groups: self.table().ports.awaited() }
    }

    pub fn status(&self) -> Status {
        let table = self.table();
        Status {
            pid: std::process::id(),
            version: table.version,
            connections: self.workers.connections(),
            earlier: self.before().len(),
            routes: table.ports.status(),
        }
    }

    /// The table and duplicates of its sockets.
    pub fn listeners(&self) -> std::io::Result<(Reply, Vec<TcpListener>)> {
        let table = self.table();
        let (ports, sockets) = table.ports.duplicates()?.into_iter().unzip();
        let Table { version, routes, .. } = &*table;
        let numbers = table.ports.numbers();
        Ok((Reply::Listeners { version: *version, routes: routes.routes.clone(), numbers, ports }, sockets))
    }

    /// A successor accepts from now on.
    pub fn retire(&self) {
        self.stage.send_replace(Stage::Retiring);
        self.table().ports.stop_accepting();
    }

    /// Closes the ports, and lets earlier processes end too.
    pub async fn stop(&self) {
        self.stage.send_replace(Stage::Stopping);
        self.table().ports.close();
        for before in self.before() {
            if let Err(error) = before.stop().await {
                tracing::debug!(%error, "an earlier gateway is gone");
            }
        }
    }

    /// Earlier processes, as long as this one is the one to be asked.
    fn before(&self) -> Vec<GatewayClient> {
        match self.stage() {
            Stage::Retiring => Vec::new(),
            Stage::Serving | Stage::Stopping => self.before.lock().expect("no panic while held").clone(),
        }
    }

    /// Names the earlier processes.
    pub fn set_before(&self, before: Vec<GatewayClient>) {
        *self.before.lock().expect("no panic while held") = before;
    }

    /// Forgets earlier processes that have ended.
    pub async fn look_before(&self) {
        let asked = self.before();
        let answers = futures::future::join_all(asked.iter().map(GatewayClient::status)).await;
        let alive = asked.into_iter().zip(answers).filter(|(_, answer)| answer.is_ok()).map(|(before, _)| before);
        self.set_before(alive.collect());
    }

    /// What is done from time to time: ports that could not be opened, connections that nobody used.
    pub fn tidy(&self) {
        let mut table = self.table();
        if self.stage() == Stage::Serving {
            table.ports.retry(&self.workers);
        }
        table.ports.upstreams().for_each(|u| u.pool.expire(self.workers.limits.pool_idle_timeout));
    }
}
