//! The daemon: one process for each state directory, which holds [`Control`] and answers on a Unix socket.
//!
//! ```text
//! lock       one daemon for each state directory
//! local      puts the parts of this host together: store, keys, runtime, engine, gateway
//! listen     the socket: connections, limits, ending well
//! routes     one file for each group of endpoints; the table of endpoints is kiln_api's
//! apply      test what has no evidence, then hand over to control and wait
//! gateway    keeps a gateway process running, and is control's way to it
//! history    what happened lately, numbered, for readers that come late or come back
//! latencies  what the gateway counts for each server, summed up by release
//! metrics    what happened, counted, for Prometheus
//! renew      tests again before the evidence of a running release expires
//! sources    a keeper for each group whose values come from sources, and what a change of them leads to
//! log        daemon.log
//! drill      restore drills: the newest snapshots of volumes, tried out
//! recovery   recovery drills: servers, the gateway or the daemon destroyed on purpose
//! loss       what a change would lose, and whether it may
//! ```
//!
//! The daemon owns no server and no traffic: servers and the gateway are processes that outlive it, and a daemon that
//! starts finds them again. So it may end at any instant, and ending well only means that answers under way are finished.

mod apply;
mod drill;
mod error;
mod gateway;
mod history;
mod host;
mod latencies;
mod listen;
mod local;
mod lock;
pub mod log;
mod loss;
mod metrics;
mod recovery;
mod renew;
mod routes;
mod sources;
mod stream;

use std::{path::PathBuf, sync::Arc};

use jiff::Timestamp;
use kiln_engine::Engine;
use tokio::sync::watch;

pub use self::{
    gateway::{GatewayProcess, GatewayTraffic},
    host::{Host, HostError, LocalHost},
    local::{GatewayCommand, Offers, StoreRoots, metadata, run_local, throwaways},
    lock::{LockError, StateLock},
    recovery::Revival,
};
use crate::{
    Control, ControlError, ControlOptions,
    config::{Freezer, HostSources, SecretStore, SecretsError},
    keys::{Keys, KeysError},
    metadata::{Identity, ListenError, Listener, Metadata, Resident, Residents, Running},
    reads::KeyReads,
    reports::{Library, Prover},
    sources::keeper::Damping,
    throwaway::Throwaways,
    traces::{Sending, SettingsError, TraceSettings},
};

/// What the daemon is told at start.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// The state directory.
    pub state_dir: PathBuf,
    /// The run directory, shown in the inventory.
    pub run_dir: PathBuf,
    /// Where metrics and the keys of identity tokens are offered to others; nowhere if none.
    pub metrics: Option<std::net::SocketAddr>,
    /// Where traces are sent; nowhere if none.
    pub traces: Option<TraceSettings>,
    /// How changes of sources are slowed down.
    pub damping: Damping,
    /// What starts it again when it was killed.
    pub revival: Revival,
}

/// What the daemon works with.
pub struct Parts {
    /// Where servers run.
    pub engine: Arc<dyn Engine>,
    /// Images and evidence.
    pub library: Arc<dyn Library>,
    /// The keys of the state directory.
    pub keys: Arc<Keys>,
    /// The gateway's process; none where traffic does not matter (tests).
    pub gateway: Option<Arc<GatewayProcess>>,
    /// Signs what servers say of themselves.
    pub identity: Arc<Identity>,
    /// What control sends routes to.
    pub traffic: Arc<dyn crate::Traffic>,
    /// What Kiln made on this host.
    pub host: Arc<dyn Host>,
    /// Starts throwaway services for tests; none where servers are not on this host.
    pub throwaways: Option<Arc<Throwaways>>,
    /// The servers that metadata is offered to, and where; none without a network.
    pub metadata: Option<MetadataParts>,
}

/// What the metadata service needs.
pub struct MetadataParts {
    /// Where it listens.
    pub listener: Listener,
    /// Who asks.
    pub residents: Arc<dyn Residents>,
}

/// Why the daemon could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The state directory is held by another daemon, or cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The image store.
    #[error("could not open the image store")]
    Store {
        /// Why.
        #[source]
        source: kiln_image::store::StoreError,
    },
    /// Servers on this host.
    #[error("could not make this host ready for servers")]
    Runtime {
        /// Why.
        #[source]
        source: kiln_runtime::RuntimeError,
    },
    /// What an earlier daemon left of throwaway services.
    #[error("could not remove throwaway services of an earlier daemon")]
    Throwaways {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The log.
    #[error("could not write the log {}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The process's threads.
    #[error("could not start threads")]
    Threads {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The secrets.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The metadata service.
    #[error(transparent)]
    Metadata(#[from] ListenError),
    /// The state.
    #[error("could not open the state in {}", path.display())]
    Control {
        /// The state directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: ControlError,
    },
    /// The socket.
    #[error("could not listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The address for metrics.
    #[error("could not offer metrics at {address}")]
    Offer {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The collector of traces.
    #[error(transparent)]
    Traces(#[from] SettingsError),
    /// Signals of the process.
    #[error("could not wait for signals")]
    Signals(#[source] std::io::Error),
}

/// What every endpoint works with.
pub(crate) struct App {
    pub(crate) options: DaemonOptions,
    pub(crate) control: Control,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) library: Arc<dyn Library>,
    pub(crate) prover: Prover,
    pub(crate) freezer: Freezer,
    pub(crate) secrets: Arc<SecretStore>,
    pub(crate) keepers: sources::Keepers,
    pub(crate) keys: Arc<Keys>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) gateway: Option<Arc<GatewayProcess>>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) history: Arc<history::History>,
    pub(crate) latencies: latencies::Latencies,
    pub(crate) started_at: Timestamp,
    ending: watch::Sender<bool>,
}

impl App {
    /// Asks the daemon to end once answers under way are finished.
    pub(crate) fn end(&self) {
        self.ending.send_replace(true);
    }
    /// Turns true when the daemon is to end.
    pub(crate) fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }
}

/// Runs the daemon until it is asked to end (`POST /v1/shutdown`, SIGTERM or SIGINT). The lock is held until then.
pub async fn run(lock: StateLock, options: DaemonOptions, parts: Parts) -> Result<(), DaemonError> {
    if let Err(error) = kiln_sys::oom::protect() {
        tracing::warn!(%error, "where the host has no memory left, the daemon may be ended before its servers");
    }
    let state_dir = options.state_dir.clone();
    let listener = listen::bind(&state_dir)?;
    let offer = match options.metrics {
        Some(address) => Some(listen::bind_metrics(address).await?),
        None => None,
    };
    remove_test_servers(parts.engine.as_ref()).await;
    let secrets = Arc::new(SecretStore::open(&state_dir)?);
    let (sending, sink) = options.traces.clone().map(Sending::start).unzip();
    let control_options = ControlOptions {
        secrets: Some(secrets.clone()),
        traces: sink.clone(),
        ..ControlOptions::new(state_dir.clone())
    };
    let control =
        Control::open(control_options, parts.engine.clone(), parts.library.clone(), parts.traffic.clone()).await;
    let control = control.map_err(|source| DaemonError::Control { path: state_dir.clone(), source })?;
    let identity = parts.identity.clone();
    let inputs = serde_json::json!({"pid": std::process::id(), "version": env!("CARGO_PKG_VERSION")});
    let started = control.record("daemon", inputs, "the daemon was started").await;
    started.map_err(|source| DaemonError::Control { path: state_dir.clone(), source })?;
    let reads = Arc::new(KeyReads::of_state(&state_dir));
    let metadata = parts.metadata.map(|parts| start_metadata(parts, identity, reads.clone(), &control)).transpose()?;
    let started_at = Timestamp::now();
    let mut history = history::History::new(started_at);
    history.metrics.spans = sink.map(|sink| sink.counts().clone()).unwrap_or_default();
    let history = Arc::new(history);
    let collecting = tokio::spawn(history::collect(history.clone(), control.subscribe()));
    let app = Arc::new(App {
        options,
        prover: Prover::new(parts.engine.clone(), parts.library.clone(), parts.keys.clone(), secrets.clone(), reads)
            .with_throwaways(parts.throwaways)
            .with_live(control.live().clone()),
        freezer: Freezer::new(Arc::new(HostSources::default()), secrets.clone()),
        secrets,
        control,
        keepers: sources::Keepers::default(),
        engine: parts.engine,
        library: parts.library,
        keys: parts.keys,
        identity: parts.identity,
        gateway: parts.gateway,
        host: parts.host,
        history,
        latencies: latencies::Latencies::default(),
        started_at,
        ending: watch::Sender::new(false),
    });
    let keeper = app.gateway.clone().map(|gateway| tokio::spawn(async move { gateway.keep().await }));
    tracing::info!(pid = std::process::id(), state = %state_dir.display(), "the daemon answers");
    let looking = tokio::spawn(latencies::keep_looking(app.clone()));
    let renewal = tokio::spawn(renew::keep_renewing(app.clone()));
    let offered = offer.map(|listener| tokio::spawn(listen::offer(app.clone(), listener)));
    let watching = tokio::spawn(sources::keep(app.clone()));
    let drilling = tokio::spawn(drill::keep_drilling(app.clone()));
    let recovering = tokio::spawn(recovery::keep_drilling(app.clone()));
    if let Err(error) = app.control.finish_drills().await {
        tracing::warn!(error = kiln_api::error::chain(&error), "a drill of an earlier daemon could not be ended");
    }
    let served = listen::serve(app.clone(), listener).await;
    if let Some(offered) = offered {
        offered.abort();
    }
    renewal.abort();
    looking.abort();
    collecting.abort();
    watching.abort();
    drilling.abort();
    recovering.abort();
    app.keepers.end();
    if let Some(keeper) = keeper {
        keeper.abort();
    }
    drop(metadata);
    app.control.close().await;
    if let Some(sending) = sending {
        sending.end().await;
    }
    listen::remove(&state_dir);
    tracing::info!("the daemon ended");
    drop(lock);
    served
}

fn start_metadata(
    parts: MetadataParts,
    identity: Arc<Identity>,
    reads: Arc<KeyReads>,
    control: &Control,
) -> Result<Running, DaemonError> {
    let note = Arc::new(move |resident: &Resident, key: &str| reads.note(&resident.image, key));
    let MetadataParts { listener, residents } = parts;
    Metadata::start(listener, residents, identity, control.clone(), note)
        .map_err(|source| DaemonError::Threads { source })
}

/// Test servers of a daemon that was killed while it tested: nobody waits for them any more.
async fn remove_test_servers(engine: &dyn Engine) {
    let observed = match engine.observe().await {
        Ok(observed) => observed,
        Err(error) => return tracing::warn!(error = kiln_api::error::chain(&error), "could not look for servers"),
    };
    for server in observed.into_iter().filter(|server| server.group.is_none()) {
        tracing::info!(server = %server.server, "removing a test server of an earlier daemon");
        if let Err(error) = engine.destroy(&server.server, server.generation).await {
            tracing::warn!(server = %server.server, error = kiln_api::error::chain(&error), "could not remove it");
        }
    }
}
