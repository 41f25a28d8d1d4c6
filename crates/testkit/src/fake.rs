//! [`FakeEngine`]: an engine without servers, which can behave as badly as the real ones.
//!
//! It keeps the contract of [`kiln_engine::Engine`] (it passes the conformance suite) and lives as long as the test, so
//! that a daemon can die and come back while "servers" run on. [`Manners`] says how it behaves: slow, eventually
//! consistent, forgetful (a launch that happens and whose answer is lost), exhausted, or with releases that never become
//! ready or end at once. Readiness is virtual: the services of a server report themselves up after a time. Time is
//! tokio's, so it can be paused.

mod inside;
mod meters;
mod staging;
mod volumes;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use kiln_engine::{
    Engine, EngineError, Generation, Hint, Holding, Inside, Killing, LaunchSpec, Meters, Observed, Phase,
    ServiceStatus, SharedDirectories, Staging, StopOutcome, Volumes,
};
use kiln_model::{ImageDigest, ReleaseId, ServerId, VerifiedRelease, VolumeId, shared::SharedDirectory};
use tokio::{
    sync::broadcast,
    time::{Instant, sleep},
};

/// How a fake engine behaves.
#[derive(Debug, Clone, Default)]
pub struct Manners {
    /// A launch takes this long.
    pub launch: Duration,
    /// Services are up this long after the launch.
    pub ready: Duration,
    /// A stop takes this long.
    pub stop: Duration,
    /// A destroy takes this long.
    pub destroy: Duration,
    /// A new server shows in `observe` only after this time.
    pub shows_after: Duration,
    /// Every so many launches the server starts and the answer is lost; 0 for never.
    pub lose_every: u32,
    /// At most so many servers; none for no limit.
    pub capacity: Option<usize>,
    /// Servers of these releases never become ready.
    pub never_ready: BTreeSet<ReleaseId>,
    /// Servers of these releases end right after they start.
    pub exits: BTreeSet<ReleaseId>,
    /// Launches of these releases fail.
    pub fails: BTreeSet<ReleaseId>,
    /// Why no shared directory can be used.
    pub away: Option<String>,
    /// Processors that the servers of each group use together, in thousandths; each an equal share.
    pub busy_millis: u32,
    /// Whether nobody can tell what servers use.
    pub unmetered: bool,
}

/// Something that was done to a fake engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// A server was started.
    Launched(ServerId, ReleaseId),
    /// A server was stopped that ran.
    Stopped(ServerId),
    /// A server was removed that was there.
    Destroyed(ServerId),
    /// A server was ended because its volume went to another.
    Fenced(ServerId),
}

/// An engine without servers. Cheap to clone: clones are the same engine.
#[derive(Clone)]
pub struct FakeEngine {
    state: Arc<Mutex<State>>,
    hints: broadcast::Sender<Hint>,
}

#[derive(Default)]
struct State {
    manners: Manners,
    servers: BTreeMap<ServerId, Fake>,
    staged: BTreeMap<ServerId, Observed>,
    prepared: BTreeSet<ImageDigest>,
    deeds: Vec<Deed>,
    launches: u32,
    volumes: BTreeMap<VolumeId, volumes::FakeVolume>,
    spent: meters::Spent,
}

struct Fake {
    seen: Observed,
    services: Vec<ServiceStatus>,
    shows_at: Instant,
    hold: Option<staging::Hold>,
}

/// An answer that got lost on its way.
#[derive(Debug, thiserror::Error)]
#[error("the connection was lost before the answer came")]
struct AnswerLost;

/// A launch that was asked to fail.
#[derive(Debug, thiserror::Error)]
#[error("the release is broken")]
struct Broken;

impl FakeEngine {
    /// An engine with these manners.
    pub fn new(manners: Manners) -> Self {
        let state = State { manners, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), hints: broadcast::channel(1024).0 }
    }
    /// Changes how it behaves from now on.
    pub fn set_manners(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.state().manners);
    }
    /// Everything that was done to it, in order.
    pub fn deeds(&self) -> Vec<Deed> {
        self.state().deeds.clone()
    }
    /// Forgets what was done to it: a long test need not keep it all.
    pub fn forget_deeds(&self) {
        self.state().deeds = Vec::new();
    }
    /// Every server that was launched, also one that `observe` does not show yet.
    pub fn servers(&self) -> Vec<Observed> {
        self.state().servers.values().filter(|fake| fake.hold.is_none()).map(|fake| fake.seen.clone()).collect()
    }
    /// Servers whose PID 1 runs.
    pub fn running(&self) -> Vec<Observed> {
        self.servers().into_iter().filter(|seen| seen.phase == Phase::Running).collect()
    }
    /// A server's PID 1 is killed from outside.
    pub fn kill(&self, server: &ServerId) {
        self.state().exit(server, "killed by signal 9", true);
        self.hint(server);
    }
    /// A server is lost without a trace, with its host.
    pub fn lose(&self, server: &ServerId) {
        self.state().servers.remove(server);
        self.hint(server);
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
    fn hint(&self, server: &ServerId) {
        // Nobody need be listening.
        self.hints.send(Hint::Server(server.clone())).ok();
    }
    fn manners(&self) -> Manners {
        self.state().manners.clone()
    }

    async fn do_launch(
        self,
        release: ReleaseId,
        image: ImageDigest,
        spec: LaunchSpec,
    ) -> Result<Observed, EngineError> {
        let manners = self.manners();
        if let Some(taken) = self.state().take_held(&spec.server, release) {
            self.hint(&spec.server);
            return Ok(taken);
        }
        if let Some(same) = self.state().known(&spec)? {
            return Ok(same);
        }
        if !self.state().take_staged(&spec.server, release) {
            sleep(manners.launch).await;
        }
        let launched = self.state().launch(release, image, &spec)?;
        spec.times.note("launched");
        self.hint(&spec.server);
        self.clone().grow_up(spec.server.clone(), release);
        let number = self.state().launches;
        if manners.lose_every != 0 && number.is_multiple_of(manners.lose_every) {
            let action = format!("launch {}", spec.server);
            return Err(EngineError::Failed { action, source: Box::new(AnswerLost) });
        }
        Ok(launched)
    }

    /// What becomes of a new server by itself.
    fn grow_up(self, server: ServerId, release: ReleaseId) {
        let manners = self.manners();
        tokio::spawn(async move {
            sleep(manners.ready).await;
            if manners.exits.contains(&release) {
                return self.kill(&server);
            }
            if manners.never_ready.contains(&release) {
                return;
            }
            if let Some(fake) = self.state().servers.get_mut(&server) {
                fake.services.iter_mut().for_each(|service| service.up = true);
            }
            self.hint(&server);
        });
    }

    async fn do_stop(self, server: ServerId, generation: Generation) -> Result<StopOutcome, EngineError> {
        let running = {
            let mut state = self.state();
            let fake = state.find(&server, generation)?.ok_or(EngineError::Unknown { server: server.clone() })?;
            let running = !matches!(fake.seen.phase, Phase::Exited { .. });
            if running {
                fake.seen.phase = Phase::Stopping;
            }
            running
        };
        if !running {
            return Ok(StopOutcome::AlreadyGone);
        }
        let wait = self.manners().stop;
        sleep(wait).await;
        self.state().exit(&server, "stopped", false);
        self.state().deeds.push(Deed::Stopped(server.clone()));
        self.hint(&server);
        Ok(StopOutcome::Clean)
    }

    async fn do_destroy(self, server: ServerId, generation: Generation) -> Result<(), EngineError> {
        let wait = self.manners().destroy;
        sleep(wait).await;
        let mut state = self.state();
        state.staged.remove(&server);
        if state.find(&server, generation)?.is_some() {
            state.servers.remove(&server);
            state.deeds.push(Deed::Destroyed(server.clone()));
            drop(state);
            self.hint(&server);
        }
        Ok(())
    }
}

impl State {
    fn known(&mut self, spec: &LaunchSpec) -> Result<Option<Observed>, EngineError> {
        let known = self.find(&spec.server, spec.generation)?;
        Ok(known.filter(|fake| fake.seen.generation == spec.generation).map(|fake| fake.seen.clone()))
    }

    /// A server that is known, unless a newer generation of it is.
    fn find(&mut self, server: &ServerId, asked: Generation) -> Result<Option<&mut Fake>, EngineError> {
        match self.servers.get_mut(server) {
            Some(fake) if fake.seen.generation > asked => {
                Err(EngineError::Stale { server: server.clone(), asked, known: fake.seen.generation })
            }
            found => Ok(found),
        }
    }

    fn launch(&mut self, release: ReleaseId, image: ImageDigest, spec: &LaunchSpec) -> Result<Observed, EngineError> {
        if let Some(same) = self.known(spec)? {
            return Ok(same);
        }
        if self.is_full() {
            return Err(EngineError::Exhausted { resource: "addresses" });
        }
        if self.manners.fails.contains(&release) {
            let action = format!("launch {}", spec.server);
            return Err(EngineError::Failed { action, source: Box::new(Broken) });
        }
        self.give(spec)?;
        self.launches += 1;
        let seen = self.new_server(release, image, spec);
        let shows_at = Instant::now() + self.manners.shows_after;
        let services = spec.manifest.services.keys().map(starting).collect();
        self.servers.insert(spec.server.clone(), Fake { seen: seen.clone(), services, shows_at, hold: None });
        self.deeds.push(Deed::Launched(spec.server.clone(), release));
        Ok(seen)
    }

    fn new_server(&self, release: ReleaseId, image: ImageDigest, spec: &LaunchSpec) -> Observed {
        let [_, _, high, low] = self.launches.to_be_bytes();
        Observed {
            server: spec.server.clone(),
            generation: spec.generation,
            release,
            image,
            group: spec.group.clone(),
            phase: Phase::Running,
            address: Some(Ipv4Addr::new(10, 9, high, low)),
            pid: Some(100_000 + self.launches),
            started_at_ms: i64::from(self.launches),
        }
    }

    fn exit(&mut self, server: &ServerId, reason: &str, killed: bool) {
        if let Some(staged) = self.staged.get_mut(server) {
            staged.phase = Phase::Exited { reason: reason.to_owned(), killed };
        }
        if let Some(fake) = self.servers.get_mut(server) {
            fake.seen.phase = Phase::Exited { reason: reason.to_owned(), killed };
            fake.services.iter_mut().for_each(|service| service.up = false);
        }
    }
}

fn starting(name: &kiln_model::ServiceName) -> ServiceStatus {
    ServiceStatus { name: name.clone(), up: false, starts: 1, last_exit: None }
}

/// What was begun goes on, also if whoever asked has died.
async fn outliving<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    tokio::spawn(work).await.expect("the fake does not panic")
}

#[async_trait::async_trait]
impl Engine for FakeEngine {
    fn name(&self) -> &'static str {
        "fake"
    }
    async fn prepare(&self, image: ImageDigest) -> Result<(), EngineError> {
        self.state().prepared.insert(image);
        Ok(())
    }
    async fn launch(&self, release: &VerifiedRelease, spec: &LaunchSpec) -> Result<Observed, EngineError> {
        let pair = release.release();
        outliving(self.clone().do_launch(pair.id(), pair.image, spec.clone())).await
    }
    fn starts_at_once(&self) -> usize {
        1024
    }
    async fn observe(&self) -> Result<Vec<Observed>, EngineError> {
        let now = Instant::now();
        let state = self.state();
        let shown = state.servers.values().filter(|fake| fake.shows_at <= now).map(|fake| &fake.seen);
        Ok(state.staged.values().chain(shown).cloned().collect())
    }
    async fn observe_some(&self, servers: &BTreeSet<ServerId>) -> Result<Vec<Observed>, EngineError> {
        let now = Instant::now();
        let state = self.state();
        let found = servers.iter().filter_map(|server| state.servers.get(server));
        let shown = found.filter(|fake| fake.shows_at <= now).map(|fake| &fake.seen);
        Ok(servers.iter().filter_map(|server| state.staged.get(server)).chain(shown).cloned().collect())
    }
    async fn stop(
        &self,
        server: &ServerId,
        generation: Generation,
        _limit: Duration,
    ) -> Result<StopOutcome, EngineError> {
        outliving(self.clone().do_stop(server.clone(), generation)).await
    }
    async fn destroy(&self, server: &ServerId, generation: Generation) -> Result<(), EngineError> {
        outliving(self.clone().do_destroy(server.clone(), generation)).await
    }
    async fn forget(&self, image: ImageDigest) -> Result<(), EngineError> {
        self.state().prepared.remove(&image);
        Ok(())
    }
    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.hints.subscribe()
    }
    fn staging(&self) -> Option<&dyn Staging> {
        Some(self)
    }
    fn holding(&self) -> Option<&dyn Holding> {
        Some(self)
    }
    fn volumes(&self) -> Option<&dyn Volumes> {
        Some(self)
    }
    fn shared(&self) -> Option<&dyn SharedDirectories> {
        Some(self)
    }
    fn killing(&self) -> Option<&dyn Killing> {
        Some(self)
    }

    fn meters(&self) -> Option<&dyn Meters> {
        Some(self)
    }

    fn inside(&self) -> Option<&dyn Inside> {
        Some(self)
    }
}

#[async_trait::async_trait]
impl Killing for FakeEngine {
    async fn kill(&self, server: &ServerId, generation: Generation) -> Result<(), EngineError> {
        if self.state().find(server, generation)?.is_none() {
            return Err(EngineError::Unknown { server: server.clone() });
        }
        Self::kill(self, server);
        Ok(())
    }
}

#[async_trait::async_trait]
impl SharedDirectories for FakeEngine {
    async fn check(&self, directory: &SharedDirectory) -> Result<(), EngineError> {
        let action = format!("use {}", directory.place);
        self.manners().away.map_or(Ok(()), |reason| Err(EngineError::Failed { action, source: reason.into() }))
    }
}
