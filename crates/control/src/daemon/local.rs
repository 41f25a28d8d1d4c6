//! A daemon for this host: the store, the keys, the runtime, the engine and the gateway's process of one state directory, put
//! together.

use std::{
    ffi::OsString,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use kiln_engine::local::LocalEngine;
use kiln_image::store::Store;
use kiln_model::ImageDigest;
use kiln_runtime::{BoxError, RootProvider, Runtime, RuntimeOptions};

use super::{
    DaemonError, DaemonOptions, GatewayProcess, GatewayTraffic, MetadataParts, Parts, Revival, StateLock,
    host::LocalHost, log, run,
};
use crate::{
    config::SecretStore,
    keys::Keys,
    library::StoreLibrary,
    metadata::{Identity, Listener, LocalResidents},
    sources::keeper::Damping,
    throwaway::Throwaways,
    traces::TraceSettings,
};

/// How the daemon starts the gateway.
#[derive(Debug, Clone)]
pub struct GatewayCommand {
    /// The program, absolute.
    pub program: PathBuf,
    /// Its arguments: it must call [`kiln_gateway::run`] for the state directory, with
    /// [`kiln_gateway::GatewayOptions::inherit`].
    pub arguments: Vec<OsString>,
}

/// What the daemon tells others of itself.
#[derive(Debug, Clone, Default)]
pub struct Offers {
    /// Where metrics and the keys of identity tokens are offered; nowhere if none.
    pub metrics: Option<std::net::SocketAddr>,
    /// Where traces are sent; nowhere if none.
    pub traces: Option<TraceSettings>,
}

/// Runs the daemon of a state directory until it is asked to end. Blocks; must not be called on a thread of a tokio runtime.
pub fn run_local(
    state_dir: &Path,
    gateway: GatewayCommand,
    offers: Offers,
    revival: Revival,
) -> Result<(), DaemonError> {
    let lock = StateLock::take(state_dir)?;
    let broken = |source| DaemonError::Threads { source };
    log::install(state_dir).map_err(|source| DaemonError::Log { path: state_dir.join(log::FILE), source })?;
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8))
        .max_blocking_threads(64)
        .enable_all()
        .build()
        .map_err(broken)?;
    let entered = threads.enter();
    let (options, parts) = parts(state_dir, gateway, offers, revival).inspect_err(|error| {
        tracing::error!(reason = kiln_api::error::chain(error), "the daemon could not start");
    })?;
    drop(entered);
    let ended = threads.block_on(run(lock, options, parts));
    threads.shutdown_timeout(std::time::Duration::from_secs(2));
    ended
}

fn parts(
    state_dir: &Path,
    gateway: GatewayCommand,
    offers: Offers,
    revival: Revival,
) -> Result<(DaemonOptions, Parts), DaemonError> {
    let keys = Arc::new(Keys::open(state_dir)?);
    let store = Store::open(&state_dir.join("store")).map_err(|source| DaemonError::Store { source })?;
    let failed = |source| DaemonError::Runtime { source };
    let options = RuntimeOptions::for_state(state_dir).map_err(failed)?;
    let (state_dir, run_dir, id) = (options.state_dir.clone(), options.run_dir.clone(), options.id.clone());
    let runtime = Runtime::open(options, Arc::new(StoreRoots(store.clone()))).map_err(failed)?;
    let runtime = Arc::new(runtime);
    let gateway = GatewayProcess::new(&state_dir, gateway.program, gateway.arguments);
    let parts = Parts {
        engine: Arc::new(LocalEngine::new(runtime.clone())),
        library: Arc::new(StoreLibrary::new(store, keys.clone())),
        keys,
        identity: Arc::new(Identity::open(&state_dir)?),
        traffic: Arc::new(GatewayTraffic(gateway.clone())),
        gateway: Some(gateway),
        metadata: metadata(&runtime, &state_dir)?,
        throwaways: Some(throwaways(&runtime, &run_dir)?),
        host: Arc::new(LocalHost::new(runtime, id, run_dir.clone())),
    };
    let Offers { metrics, traces } = offers;
    Ok((DaemonOptions { state_dir, run_dir, metrics, traces, damping: Damping::default(), revival }, parts))
}

/// Listens for the servers of a runtime that ask for metadata. Must be called in a tokio runtime.
pub fn metadata(runtime: &Arc<Runtime>, state_dir: &Path) -> Result<Option<MetadataParts>, DaemonError> {
    let Some(network) = runtime.network() else { return Ok(None) };
    let listener = Listener::open(network)?;
    let secrets = SecretStore::open(state_dir)?;
    let residents = Arc::new(LocalResidents::new(runtime.clone(), Arc::new(move |config| secrets.of(config).ok())));
    Ok(Some(MetadataParts { listener, residents }))
}

/// Starts throwaway services for the test servers of a runtime, after what an earlier daemon left of them is gone.
pub fn throwaways(runtime: &Arc<Runtime>, run_dir: &Path) -> Result<Arc<Throwaways>, DaemonError> {
    let opened = Throwaways::open(runtime.clone(), run_dir);
    opened.map(Arc::new).map_err(|source| DaemonError::Throwaways { source })
}

/// Roots of servers from the image store.
pub struct StoreRoots(pub Store);

impl RootProvider for StoreRoots {
    fn root(&self, image: &ImageDigest, users: BorrowedFd<'_>) -> Result<OwnedFd, BoxError> {
        Ok(self.0.mount(image, Some(users))?)
    }
}
