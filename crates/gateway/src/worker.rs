//! Threads that serve traffic. Each has a runtime of its own, and a connection stays on the worker that got it, with
//! its own unused connections to servers: two workers share nothing on the way of a request but counters.
//!
//! Every worker accepts on every port. A connection goes to the worker with the fewest, which is nearly always the
//! one that accepted it.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    net::TcpStream,
    runtime::{Builder, Handle},
    sync::{oneshot, watch},
    task::AbortHandle,
};

use crate::{
    bell::Bell,
    gateway::Stage,
    http,
    live::LiveRoute,
    options::{GatewayOptions, Limits, TrustedProxy},
    tcp,
    watch::{Clock, TICK, Watch},
};

/// All workers, and what they have in common.
pub struct Workers {
    pub limits: Limits,
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Unless it serves, client connections are asked to come again, elsewhere.
    pub stage: watch::Receiver<Stage>,
    /// Rung by requests that wait for a group without servers.
    pub bell: Bell,
    all: Vec<Arc<Worker>>,
}

/// One worker.
pub struct Worker {
    pub index: usize,
    /// Whose turn it is among equal servers.
    pub turn: AtomicUsize,
    pub clock: Clock,
    handle: Handle,
    connections: AtomicUsize,
    watches: Mutex<HashMap<u64, Arc<Watch>>>,
    next_watch: AtomicU64,
    /// The thread ends when this is dropped.
    _alive: oneshot::Sender<()>,
}

impl Workers {
    /// Starts the threads.
    pub fn start(options: &GatewayOptions, stage: watch::Receiver<Stage>) -> io::Result<Arc<Self>> {
        let all = (0..options.worker_count()).map(start_one).collect::<io::Result<Vec<_>>>()?;
        let (limits, trusted_proxies) = (options.limits, options.trusted_proxies.clone());
        let workers = Arc::new(Self { limits, trusted_proxies, stage, bell: Bell::default(), all });
        for worker in &workers.all {
            worker.handle.spawn(sweep(Arc::downgrade(&workers), Arc::downgrade(worker)));
        }
        Ok(workers)
    }

    fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Client connections.
    pub fn connections(&self) -> usize {
        self.all.iter().map(|w| w.connections.load(Relaxed)).sum()
    }

    /// Accepts on a port on every worker, until the handles are aborted.
    pub fn accept(self: &Arc<Self>, listener: &TcpListener, route: &Arc<LiveRoute>) -> io::Result<Vec<AbortHandle>> {
        listener.set_nonblocking(true)?;
        self.all
            .iter()
            .map(|worker| {
                let listener = listener.try_clone()?;
                let accepting = accept_all(self.clone(), worker.clone(), listener, route.clone());
                Ok(worker.handle.spawn(accepting).abort_handle())
            })
            .collect()
    }

    fn least_busy(&self, here: &Arc<Worker>) -> &Arc<Worker> {
        let load = |w: &Arc<Worker>| w.connections.load(Relaxed);
        let least = self.all.iter().min_by_key(|w| load(w)).expect("at least one worker");
        let mine = &self.all[here.index];
        if load(mine) <= load(least) { mine } else { least }
    }
}

fn start_one(index: usize) -> io::Result<Arc<Worker>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (alive, ended) = oneshot::channel::<()>();
    std::thread::Builder::new().name(format!("gateway-{index}")).spawn(move || {
        // Only the end of the sender is of interest: an error says just that.
        runtime.block_on(ended).unwrap_or_default();
        runtime.shutdown_background();
    })?;
    Ok(Arc::new(Worker {
        index,
        turn: AtomicUsize::new(index),
        clock: Clock::default(),
        handle,
        connections: AtomicUsize::new(0),
        watches: Mutex::default(),
        next_watch: AtomicU64::new(0),
        _alive: alive,
    }))
}

/// One tick after the other: the clock, the limits, the unused connections.
async fn sweep(workers: Weak<Workers>, worker: Weak<Worker>) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        let (Some(workers), Some(worker)) = (workers.upgrade(), worker.upgrade()) else { return };
        worker.clock.fetch_add(1, Relaxed);
        let stage = workers.stage();
        for watch in worker.watches.lock().expect("no panic while held").values() {
            watch.check(&workers.limits, stage);
        }
    }
}

async fn accept_all(workers: Arc<Workers>, worker: Arc<Worker>, listener: TcpListener, route: Arc<LiveRoute>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a port cannot be served by this worker"),
    };
    loop {
        if workers.connections() >= workers.limits.connections {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, peer)) => hand_out(&workers, &worker, stream, peer, &route),
            Err(error) => {
                // Out of descriptors or memory: clients wait in the backlog meanwhile.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn hand_out(workers: &Arc<Workers>, here: &Arc<Worker>, stream: TcpStream, peer: SocketAddr, route: &Arc<LiveRoute>) {
    let there = workers.least_busy(here);
    let connection = Connection::open(workers, there, route, peer);
    if there.index == here.index {
        return start_connection(connection, stream);
    }
    match stream.into_std() {
        Ok(stream) => drop(there.handle.spawn(async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => start_connection(connection, stream),
                Err(error) => tracing::warn!(%error, "a connection could not be moved to its worker"),
            }
        })),
        Err(error) => tracing::warn!(%error, "a connection could not be moved to its worker"),
    }
}

fn start_connection(connection: Arc<Connection>, stream: TcpStream) {
    let watch = connection.watch.clone();
    let task = match connection.route.protocol {
        kiln_model::manifest::Protocol::Http => tokio::spawn(http::serve(connection, stream)),
        kiln_model::manifest::Protocol::Tcp => tokio::spawn(tcp::serve(connection, stream)),
    };
    watch.guards(task.abort_handle());
}

/// A client connection: counted, and watched, until the last holder drops it.
pub struct Connection {
    pub workers: Arc<Workers>,
    pub worker: Arc<Worker>,
    pub route: Arc<LiveRoute>,
    pub peer: SocketAddr,
    pub watch: Arc<Watch>,
    id: u64,
}

impl Connection {
    fn open(workers: &Arc<Workers>, worker: &Arc<Worker>, route: &Arc<LiveRoute>, peer: SocketAddr) -> Arc<Self> {
        worker.connections.fetch_add(1, Relaxed);
        let id = worker.next_watch.fetch_add(1, Relaxed);
        let watch = Watch::new(&worker.clock);
        worker.watches.lock().expect("no panic while held").insert(id, watch.clone());
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Arc::new(Self { workers: workers.clone(), worker: worker.clone(), route: route.clone(), peer, watch, id })
    }

    pub fn limits(&self) -> &Limits {
        &self.workers.limits
    }

    pub fn is_leaving(&self) -> bool {
        self.workers.stage() != Stage::Serving
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.worker.watches.lock().expect("no panic while held").remove(&self.id);
        self.worker.connections.fetch_sub(1, Relaxed);
    }
}
