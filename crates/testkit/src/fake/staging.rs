//! Servers of a fake engine that are made ahead: they end with the daemon that asked for them.

use kiln_engine::{EngineError, Generation, Holding, LaunchSpec, Observed, Phase, Staging};
use kiln_model::{ImageDigest, ReleaseId, ServerId, VerifiedRelease};
use tokio::time::sleep;

use super::{Broken, FakeEngine, State, outliving};

impl FakeEngine {
    /// Servers that are staged and wait.
    pub fn staged(&self) -> Vec<Observed> {
        let state = self.state();
        state.staged.values().filter(|seen| seen.phase == Phase::Pending).cloned().collect()
    }
    /// Servers that became ready, and stand still.
    pub fn frozen(&self) -> Vec<Observed> {
        let state = self.state();
        let frozen = state.servers.values().filter(|fake| fake.hold == Some(Hold::Frozen));
        frozen.map(|fake| fake.seen.clone()).filter(|seen| seen.phase == Phase::Running).collect()
    }
    /// The process that asked for them has ended, and another takes over.
    pub fn lose_staged(&self) {
        let mut state = self.state();
        state.staged.clear();
        state.servers.retain(|_, fake| fake.hold.is_none());
    }

    async fn do_warm(self, release: ReleaseId, image: ImageDigest, spec: LaunchSpec) -> Result<Observed, EngineError> {
        if let Some(same) = self.state().known(&spec)? {
            return Ok(same);
        }
        let wait = self.manners().launch;
        sleep(wait).await;
        let seen = self.state().launch(release, image, &spec)?;
        if let Some(fake) = self.state().servers.get_mut(&spec.server) {
            fake.hold = Some(Hold::Warm);
        }
        self.hint(&spec.server);
        self.grow_up(spec.server.clone(), release);
        Ok(seen)
    }

    async fn do_stage(self, release: ReleaseId, image: ImageDigest, spec: LaunchSpec) -> Result<Observed, EngineError> {
        let wait = self.manners().launch;
        sleep(wait).await;
        let staged = self.state().stage(release, image, &spec)?;
        self.hint(&spec.server);
        Ok(staged)
    }
}

impl State {
    fn stage(&mut self, release: ReleaseId, image: ImageDigest, spec: &LaunchSpec) -> Result<Observed, EngineError> {
        if self.is_full() {
            return Err(EngineError::Exhausted { resource: "addresses" });
        }
        if self.manners.fails.contains(&release) {
            let action = format!("stage {}", spec.server);
            return Err(EngineError::Failed { action, source: Box::new(Broken) });
        }
        let seen = Observed { phase: Phase::Pending, ..self.new_server(release, image, spec) };
        self.staged.insert(spec.server.clone(), seen.clone());
        Ok(seen)
    }

    /// Whether there is room for no more servers.
    pub(super) fn is_full(&self) -> bool {
        self.manners.capacity.is_some_and(|capacity| self.servers.len() + self.staged.len() >= capacity)
    }

    /// Lets a server go on that stands still, if it is of the release; any other that is held is removed.
    pub(super) fn take_held(&mut self, server: &ServerId, release: ReleaseId) -> Option<Observed> {
        let fake = self.servers.get_mut(server).filter(|fake| fake.hold.is_some())?;
        let frozen = fake.hold.take() == Some(Hold::Frozen);
        if frozen && fake.seen.release == release && fake.seen.phase == Phase::Running {
            return Some(fake.seen.clone());
        }
        self.servers.remove(server);
        None
    }

    /// Takes a staged server, if it waits and is of the release.
    pub(super) fn take_staged(&mut self, server: &ServerId, release: ReleaseId) -> bool {
        let staged = self.staged.remove(server);
        staged.is_some_and(|seen| seen.phase == Phase::Pending && seen.release == release)
    }
}

/// How a server is held that nobody has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Warm,
    Frozen,
}

#[async_trait::async_trait]
impl Holding for FakeEngine {
    async fn warm(&self, release: &VerifiedRelease, spec: &LaunchSpec) -> Result<Observed, EngineError> {
        let pair = release.release();
        outliving(self.clone().do_warm(pair.id(), pair.image, spec.clone())).await
    }
    async fn freeze(&self, server: &ServerId, generation: Generation) -> Result<(), EngineError> {
        let mut state = self.state();
        let found = state.find(server, generation)?.ok_or(EngineError::Unknown { server: server.clone() })?;
        found.hold = found.hold.map(|_| Hold::Frozen);
        Ok(())
    }
}

#[async_trait::async_trait]
impl Staging for FakeEngine {
    async fn stage(&self, release: &VerifiedRelease, spec: &LaunchSpec) -> Result<Observed, EngineError> {
        let pair = release.release();
        outliving(self.clone().do_stage(pair.id(), pair.image, spec.clone())).await
    }
}
