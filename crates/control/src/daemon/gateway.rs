//! The gateway's process, kept running by the daemon and independent of it, and control's way to it.
//!
//! The gateway is found through its socket, so it does not matter which daemon started it. Its end is seen at once, by its
//! descriptor; a new one is started with duplicates of its listening sockets, kept here since the last table: clients that
//! come in between wait instead of being refused. When it runs another executable than the daemon's (after an upgrade) a
//! new one is started beside it, and takes over without a gap.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use kiln_api::{error::chain, host::GatewayStatus};
use kiln_gateway::{
    client::{self, ClientError, GatewayClient, Listeners, Refusal},
    table,
};
use kiln_model::{ServerId, manifest::Protocol};
use rustix::process::{PidfdFlags, pidfd_open};
use tokio::sync::watch;

use crate::{
    descriptor::awaited,
    traffic::{Asked, Bound, Carried, Drained, Failures, Routes, Traffic, TrafficError, TrafficLoad},
};

/// Pause between two looks at a gateway that was not there, or whose successor was started.
const SOON: Duration = Duration::from_millis(250);

/// Pause between two looks at a gateway whose process lives: it may not answer any more. Its answer is as long as its table.
const LOOK: Duration = Duration::from_secs(10);

/// Without a request that waits the gateway answers after this time.
const LISTEN: Duration = Duration::from_secs(30);

/// A gateway that was told to stop is waited for so long: what is in flight has its own, shorter limit.
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// Keeps one gateway process running for a state directory.
pub struct GatewayProcess {
    client: GatewayClient,
    socket: PathBuf,
    program: PathBuf,
    arguments: Vec<OsString>,
    listeners: Mutex<Listeners>,
    children: Mutex<Vec<Child>>,
    wanted: watch::Sender<bool>,
}

impl GatewayProcess {
    /// The gateway of this state directory. `program` and `arguments` start a process that calls [`kiln_gateway::run`] with
    /// [`kiln_gateway::GatewayOptions::inherit`].
    pub fn new(state_dir: &std::path::Path, program: PathBuf, arguments: Vec<OsString>) -> Arc<Self> {
        Arc::new(Self {
            client: GatewayClient::new(state_dir),
            socket: state_dir.join("gateway.sock"),
            program,
            arguments,
            listeners: Mutex::default(),
            children: Mutex::default(),
            wanted: watch::Sender::new(true),
        })
    }

    /// Starts the gateway whenever there is none. Goes on until [`Self::stop`].
    pub async fn keep(&self) {
        let mut wanted = self.wanted.subscribe();
        let mut upgraded = false;
        loop {
            let mut lives = None;
            self.reap();
            match self.client.clone().with_patience(Duration::ZERO).status().await {
                Ok(status) if !upgraded && self.is_outdated(status.pid) => {
                    tracing::info!(pid = status.pid, "the gateway runs another executable: starting its successor");
                    self.keep_listeners().await;
                    self.start();
                    upgraded = true;
                }
                Ok(status) => {
                    upgraded = true;
                    lives = Some(status.pid);
                }
                Err(error) => {
                    tracing::info!(reason = chain(&error), "no gateway answers: starting one");
                    self.start();
                    upgraded = true;
                    self.wait_until_it_answers().await;
                }
            }
            tokio::select! {
                _stopped = wanted.wait_for(|wanted| !wanted) => return,
                () = until_next_look(lives) => {}
            }
        }
    }

    /// Ends the gateway and starts none again. Connections in flight have its limit to finish.
    pub async fn stop(&self) -> Result<(), TrafficError> {
        let starting = self.no_longer_wanted();
        *self.listeners.lock().expect("no holder panics") = Listeners::default();
        // One that was only just started does not answer yet.
        let client = if starting { self.client.clone() } else { self.client.clone().with_patience(Duration::ZERO) };
        let Ok(status) = client.status().await else { return Ok(()) };
        let stopped = match client.stop().await {
            Err(ClientError::Unreachable { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(TrafficError::Unavailable(Box::new(error))),
        };
        let ended = tokio::time::timeout(STOP_LIMIT, self.gone(status.pid)).await;
        if let Err(error) = std::fs::remove_file(&self.socket) {
            tracing::debug!(%error, "the gateway took its socket along");
        }
        stopped.and(ended.map_err(|error| TrafficError::Unavailable(Box::new(error))))
    }

    /// Returns when a gateway's process is gone, and its end is taken where it was started here.
    async fn gone(&self, pid: u32) {
        let process = rustix::process::Pid::from_raw(pid.cast_signed());
        while process.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok()) {
            self.reap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What it serves, where one answers.
    pub(super) async fn state(&self) -> Option<client::Status> {
        self.client.clone().with_patience(Duration::ZERO).status().await.ok()
    }

    /// The process, where one answers.
    pub async fn status(&self) -> Option<GatewayStatus> {
        let status = self.state().await?;
        let listening = status.routes.iter().map(|route| format!("0.0.0.0:{}", route.bound.bound)).collect();
        let outdated = self.is_outdated(status.pid);
        let version = if outdated { "another version" } else { env!("CARGO_PKG_VERSION") };
        Some(GatewayStatus { pid: status.pid, version: version.to_owned(), listening })
    }

    /// From now on none is started; whether one that was started here still runs.
    fn no_longer_wanted(&self) -> bool {
        self.reap();
        let children = self.children.lock().expect("no holder panics");
        self.wanted.send_replace(false);
        !children.is_empty()
    }

    fn start(&self) {
        let mut children = self.children.lock().expect("no holder panics");
        if !*self.wanted.borrow() {
            return;
        }
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir("/").stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let listeners = self.listeners.lock().expect("no holder panics");
        match client::start(command, &listeners) {
            Ok(child) => children.push(child),
            Err(error) => tracing::error!(%error, program = %self.program.display(), "could not start the gateway"),
        }
    }

    async fn wait_until_it_answers(&self) {
        if let Err(error) = self.client.status().await {
            tracing::error!(reason = chain(&error), "the gateway does not come up");
        }
    }

    /// Collects the ends of processes started here, so that none stays a zombie.
    fn reap(&self) {
        let mut children = self.children.lock().expect("no holder panics");
        children.retain_mut(|child| match child.try_wait() {
            Ok(Some(status)) => {
                tracing::info!(pid = child.id(), %status, "a gateway process ended");
                false
            }
            Ok(None) => true,
            Err(error) => {
                tracing::warn!(%error, "could not look at a gateway process");
                false
            }
        });
    }

    /// Whether a process runs another executable than the one that would be started now (proc_pid_exe(5)). Where that
    /// cannot be told it does not.
    fn is_outdated(&self, pid: u32) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let identity = |path: &std::path::Path| std::fs::metadata(path).map(|status| (status.dev(), status.ino()));
        let running = identity(&PathBuf::from(format!("/proc/{pid}/exe")));
        matches!((running, identity(&self.program)), (Ok(running), Ok(ours)) if running != ours)
    }

    async fn keep_listeners(&self) {
        match self.client.take_listeners().await {
            Ok(listeners) => *self.listeners.lock().expect("no holder panics") = listeners,
            Err(error) => tracing::warn!(reason = chain(&error), "could not keep the gateway's sockets"),
        }
    }
}

/// Returns when the process has ended, or it is time to look all the same.
async fn until_next_look(process: Option<u32>) {
    let process = process.and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    let opened = process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    match opened.and_then(|process| awaited(process).ok()) {
        Some(process) => drop(tokio::time::timeout(LOOK, process.readable()).await),
        None => tokio::time::sleep(SOON).await,
    }
}

/// [`Traffic`] through the gateway's control socket.
pub struct GatewayTraffic(pub Arc<GatewayProcess>);

#[async_trait::async_trait]
impl Traffic for GatewayTraffic {
    async fn set_routes(&self, routes: &Routes) -> Result<Vec<Bound>, TrafficError> {
        let bound = self.0.client.set_routes(routes.version, table(routes)).await.map_err(said)?;
        self.0.keep_listeners().await;
        // They come in the order of the routes.
        let bound = routes.routes.iter().zip(bound);
        Ok(bound.map(|(r, b)| Bound { group: b.group, published: r.published, bound: b.bound }).collect())
    }

    async fn drain(&self, server: &ServerId, limit: Duration) -> Result<Drained, TrafficError> {
        let drained = self.0.client.drain(server, limit).await.map_err(said)?;
        Ok(Drained { cut: drained.cut as u64, waited: Duration::from_millis(drained.waited_ms) })
    }

    async fn load(&self) -> Result<TrafficLoad, TrafficError> {
        let status = self.0.client.clone().with_patience(Duration::ZERO).status().await.map_err(said)?;
        let mut load = TrafficLoad::default();
        for route in status.routes {
            if route.waiting > 0 {
                *load.waiting.entry(route.bound.group).or_default() += route.waiting as u64;
            }
            load.carried.extend(route.backends.into_iter().map(carried));
        }
        Ok(load)
    }

    async fn asked(&self, after: u64) -> Result<Asked, TrafficError> {
        let client = self.0.client.clone().with_patience(Duration::ZERO);
        let asked = client.asked(after, LISTEN).await.map_err(said)?;
        Ok(Asked { number: asked.number, groups: asked.groups })
    }

    async fn failures(&self) -> Result<Failures, TrafficError> {
        let status = self.0.client.clone().with_patience(Duration::ZERO).status().await.map_err(said)?;
        Ok(failures(&status))
    }
}

fn carried(backend: client::BackendStatus) -> Carried {
    Carried { server: backend.server, served: backend.served, in_flight: backend.in_flight as u64 }
}

/// What the gateway counted that reached no server.
pub(super) fn failures(status: &client::Status) -> Failures {
    let mut failures = Failures { gateway: status.pid, ..Failures::default() };
    for route in &status.routes {
        *failures.failed.entry(route.bound.group.clone()).or_default() += route.failed;
        for backend in route.backends.iter().filter(|_| route.protocol == Some(Protocol::Tcp)) {
            *failures.open.entry(backend.server.clone()).or_default() += backend.in_flight as u64;
        }
    }
    failures
}

fn table(routes: &Routes) -> table::Routes {
    let backend =
        |b: &crate::Backend| table::Backend { server: b.server.clone(), address: b.address, draining: b.draining };
    let route = |r: &crate::Route| table::Route {
        group: r.group.clone(),
        port: r.published.port,
        listen: r.listen,
        protocol: r.protocol,
        backends: r.backends.iter().map(backend).collect(),
        hold_ms: r.hold.map(|hold| u32::try_from(hold.as_millis()).unwrap_or(u32::MAX)),
    };
    table::Routes { routes: routes.routes.iter().map(route).collect() }
}

fn said(error: ClientError) -> TrafficError {
    match error {
        ClientError::Refused(Refusal::PortTaken { port, holder }) => {
            TrafficError::PortTaken { port, holder: holder.map(|holder| holder.to_string()) }
        }
        other => TrafficError::Unavailable(Box::new(other)),
    }
}
