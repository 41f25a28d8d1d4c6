//! Servers on this host, through [`kiln_runtime`].
//!
//! The runtime's calls block; each runs on a thread for blocking work.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use kiln_model::{
    GroupName, ImageDigest, ServerId, VerifiedRelease,
    loss::{Bounds, Place, Written},
    shared::SharedDirectory,
};
use kiln_runtime::{Request, Runtime, RuntimeError, protocol};
use tokio::sync::broadcast;

mod facts;
mod volumes;

use crate::{
    Engine, EngineError, ExecResult, FileStatus, Generation, Hint, Holding, Inside, Killing, LaunchSpec, Meters,
    Observed, Phase, Process, ServiceStatus, SharedDirectories, Staging, StopOutcome, Volumes,
};

/// Hints that nobody has taken yet; one who is slower misses some, and observes anyway.
const HINTS: usize = 1024;

/// Servers on this host.
#[derive(Debug, Clone)]
pub struct LocalEngine {
    runtime: Arc<Runtime>,
    hints: broadcast::Sender<Hint>,
}

impl LocalEngine {
    /// Over an open runtime.
    pub fn new(runtime: Arc<Runtime>) -> Self {
        let (hints, _) = broadcast::channel(HINTS);
        let sender = hints.clone();
        runtime.on_change(Arc::new(move |server| {
            // Without a receiver nobody wants hints now.
            sender.send(Hint::Server(server.clone())).unwrap_or_default();
        }));
        Self { runtime, hints }
    }

    /// The runtime underneath.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    async fn blocking<T: Send + 'static>(
        &self,
        action: impl FnOnce() -> String,
        work: impl FnOnce(&Runtime) -> kiln_runtime::Result<T> + Send + 'static,
    ) -> Result<T, EngineError> {
        let runtime = Arc::clone(&self.runtime);
        match tokio::task::spawn_blocking(move || work(&runtime)).await {
            Ok(result) => result.map_err(|error| named(error, action())),
            Err(error) => Err(EngineError::Failed { action: action(), source: Box::new(error) }),
        }
    }
}

fn named(error: RuntimeError, action: String) -> EngineError {
    match error {
        RuntimeError::Stale { server, asked, known } => EngineError::Stale { server, asked, known },
        RuntimeError::Unknown(server) => EngineError::Unknown { server },
        RuntimeError::Exhausted(resource) => EngineError::Exhausted { resource },
        error => EngineError::Failed { action, source: Box::new(error) },
    }
}

fn request(spec: &LaunchSpec) -> Request {
    Request {
        server: spec.server.clone(),
        generation: spec.generation,
        group: spec.group.clone(),
        slot: spec.slot,
        manifest: Arc::clone(&spec.manifest),
        limits: spec.limits,
        secrets: Arc::clone(&spec.secrets),
        volumes: spec.volumes.clone(),
        shared: spec.shared.clone(),
        times: spec.times.clone(),
    }
}

fn observed(seen: kiln_runtime::Observed) -> Observed {
    let record = seen.record;
    Observed {
        server: record.server,
        generation: record.generation,
        release: record.release,
        image: record.image,
        group: record.group,
        pid: (!matches!(seen.phase, kiln_runtime::Phase::Exited { .. })).then_some(record.pid),
        phase: match seen.phase {
            kiln_runtime::Phase::Staged => Phase::Pending,
            kiln_runtime::Phase::Running => Phase::Running,
            kiln_runtime::Phase::Stopping => Phase::Stopping,
            kiln_runtime::Phase::Exited { reason, killed } => Phase::Exited { reason, killed },
        },
        address: record.address,
        started_at_ms: record.started_at_ms,
    }
}

fn service(state: protocol::ServiceState) -> Option<ServiceStatus> {
    let protocol::ServiceState { name, up, starts, last_exit, .. } = state;
    Some(ServiceStatus { name: name.parse().ok()?, up, starts, last_exit })
}

#[async_trait::async_trait]
impl Engine for LocalEngine {
    fn name(&self) -> &'static str {
        "local"
    }

    /// Servers start from the store of this host: nothing has to be brought.
    async fn prepare(&self, _image: ImageDigest) -> Result<(), EngineError> {
        Ok(())
    }

    async fn launch(&self, release: &VerifiedRelease, spec: &LaunchSpec) -> Result<Observed, EngineError> {
        let release = release.clone();
        let request = request(spec);
        let action = || format!("launch server {}", spec.server);
        self.blocking(action, move |runtime| runtime.launch(&release, &request)).await.map(observed)
    }

    /// A start is work for a processor, with short waits for the kernel and for the services.
    fn starts_at_once(&self) -> usize {
        4 * std::thread::available_parallelism().map_or(1, usize::from)
    }

    async fn observe(&self) -> Result<Vec<Observed>, EngineError> {
        let seen = self.blocking(|| "look at the servers of this host".into(), Runtime::observe).await?;
        Ok(seen.into_iter().map(observed).collect())
    }

    async fn observe_some(&self, servers: &BTreeSet<ServerId>) -> Result<Vec<Observed>, EngineError> {
        let servers = servers.clone();
        let look = move |runtime: &Runtime| runtime.observe_some(&servers);
        let seen = self.blocking(|| "look at some servers of this host".into(), look).await?;
        Ok(seen.into_iter().map(observed).collect())
    }

    async fn stop(
        &self,
        server: &ServerId,
        generation: Generation,
        limit: Duration,
    ) -> Result<StopOutcome, EngineError> {
        let id = server.clone();
        let stopped = self
            .blocking(|| format!("stop server {server}"), move |runtime| runtime.stop(&id, generation, limit))
            .await?;
        Ok(match stopped {
            kiln_runtime::Stopped::Clean => StopOutcome::Clean,
            kiln_runtime::Stopped::Killed => StopOutcome::Killed,
            kiln_runtime::Stopped::AlreadyGone => StopOutcome::AlreadyGone,
        })
    }

    async fn destroy(&self, server: &ServerId, generation: Generation) -> Result<(), EngineError> {
        let id = server.clone();
        self.blocking(|| format!("destroy server {server}"), move |runtime| runtime.destroy(&id, generation)).await
    }

    async fn forget(&self, _image: ImageDigest) -> Result<(), EngineError> {
        Ok(())
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.hints.subscribe()
    }

    fn staging(&self) -> Option<&dyn Staging> {
        Some(self)
    }

    fn holding(&self) -> Option<&dyn Holding> {
        self.runtime.freezes().then_some(self as &dyn Holding)
    }

    fn volumes(&self) -> Option<&dyn Volumes> {
        Some(self)
    }

    fn shared(&self) -> Option<&dyn SharedDirectories> {
        Some(self)
    }

    fn meters(&self) -> Option<&dyn Meters> {
        Some(self)
    }

    fn killing(&self) -> Option<&dyn Killing> {
        Some(self)
    }

    fn inside(&self) -> Option<&dyn Inside> {
        Some(self)
    }

    fn facts(&self) -> Option<&dyn crate::Facts> {
        Some(self)
    }
}

#[async_trait::async_trait]
impl Staging for LocalEngine {
    async fn stage(&self, release: &VerifiedRelease, spec: &LaunchSpec) -> Result<Observed, EngineError> {
        let (release, request) = (release.clone(), request(spec));
        let action = || format!("make server {} ahead", spec.server);
        self.blocking(action, move |runtime| runtime.stage(&release, &request)).await.map(observed)
    }
}

#[async_trait::async_trait]
impl Holding for LocalEngine {
    async fn warm(&self, release: &VerifiedRelease, spec: &LaunchSpec) -> Result<Observed, EngineError> {
        let (release, request) = (release.clone(), request(spec));
        let action = || format!("start server {} ahead", spec.server);
        self.blocking(action, move |runtime| runtime.warm(&release, &request)).await.map(observed)
    }

    async fn freeze(&self, server: &ServerId, generation: Generation) -> Result<(), EngineError> {
        let id = server.clone();
        self.blocking(|| format!("freeze server {server}"), move |runtime| runtime.freeze(&id, generation)).await
    }
}

#[async_trait::async_trait]
impl Meters for LocalEngine {
    async fn processor_time(&self, group: &GroupName) -> Result<BTreeMap<ServerId, Duration>, EngineError> {
        let name = group.clone();
        let action = || format!("read the processor time of group {group}");
        let times = self.blocking(action, move |runtime| Ok(runtime.processor_time(&name))).await?;
        Ok(times.into_iter().collect())
    }
}

#[async_trait::async_trait]
impl Killing for LocalEngine {
    async fn kill(&self, server: &ServerId, generation: Generation) -> Result<(), EngineError> {
        let id = server.clone();
        self.blocking(|| format!("kill server {server}"), move |runtime| runtime.kill(&id, generation)).await
    }
}

#[async_trait::async_trait]
impl SharedDirectories for LocalEngine {
    async fn check(&self, directory: &SharedDirectory) -> Result<(), EngineError> {
        let wanted = directory.clone();
        let action = || format!("give servers {}", directory.place);
        self.blocking(action, move |runtime| runtime.check_shared(&wanted)).await
    }
}

#[async_trait::async_trait]
impl Inside for LocalEngine {
    async fn services(&self, server: &ServerId) -> Result<Vec<ServiceStatus>, EngineError> {
        let id = server.clone();
        let action = || format!("ask {server} for its services");
        let states = self.blocking(action, move |runtime| runtime.services(&id)).await?;
        Ok(states.into_iter().filter_map(service).collect())
    }

    async fn exec(
        &self,
        server: &ServerId,
        command: &[String],
        user: &str,
        limit: Duration,
        max_bytes: usize,
    ) -> Result<ExecResult, EngineError> {
        let id = server.clone();
        let exec = protocol::Exec {
            command: command.to_vec(),
            user: user.to_owned(),
            environment: Vec::new(),
            directory: None,
            terminal: None,
        };
        let action = || format!("run {} in server {server}", command.join(" "));
        let output = self.blocking(action, move |runtime| runtime.exec(&id, exec, limit, max_bytes)).await?;
        Ok(ExecResult { exit: output.exit, stdout: output.stdout, stderr: output.stderr })
    }

    async fn stat(&self, server: &ServerId, path: &str) -> Result<Option<FileStatus>, EngineError> {
        let (id, inside) = (server.clone(), path.to_owned());
        let status = self.blocking(|| format!("look at {path}"), move |runtime| runtime.stat(&id, &inside)).await?;
        Ok(status.map(|file| FileStatus { mode: file.mode, uid: file.uid, gid: file.gid, size: file.size }))
    }

    async fn read(&self, server: &ServerId, path: &str, max_bytes: usize) -> Result<Option<Vec<u8>>, EngineError> {
        let (id, inside) = (server.clone(), path.to_owned());
        self.blocking(|| format!("read {path}"), move |runtime| runtime.read(&id, &inside, max_bytes)).await
    }

    async fn processes(&self, server: &ServerId) -> Result<Vec<Process>, EngineError> {
        let id = server.clone();
        let processes =
            self.blocking(|| format!("list processes of {server}"), move |runtime| runtime.processes(&id)).await?;
        let process = |found: kiln_runtime::Process| Process { pid: found.pid, uid: found.uid, program: found.program };
        Ok(processes.into_iter().map(process).collect())
    }

    async fn listening(&self, server: &ServerId) -> Result<Vec<SocketAddr>, EngineError> {
        let id = server.clone();
        self.blocking(|| format!("list ports of {server}"), move |runtime| runtime.listening(&id)).await
    }

    async fn written(&self, server: &ServerId, places: &[Place], bounds: Bounds) -> Result<Vec<Written>, EngineError> {
        let (id, places) = (server.clone(), places.to_vec());
        let action = || format!("see what {server} wrote");
        let look = move |runtime: &Runtime| match runtime.written(&id, &places, bounds) {
            // With its last process its memory file systems went.
            Err(RuntimeError::NotRunning(server)) => Err(RuntimeError::Unknown(server)),
            seen => seen,
        };
        self.blocking(action, look).await
    }

    async fn connections(&self, server: &ServerId) -> Result<u64, EngineError> {
        let id = server.clone();
        self.blocking(|| format!("count connections of {server}"), move |runtime| runtime.connections(&id)).await
    }

    fn control_socket(&self, server: &ServerId) -> Option<PathBuf> {
        self.runtime.files(server).map(|files| files.control())
    }

    fn spool(&self, server: &ServerId) -> Option<Vec<PathBuf>> {
        self.runtime.spool(server).map(|paths| paths.to_vec())
    }
}
