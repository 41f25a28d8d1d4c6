//! Servers of a fake engine that are made ahead: they end with the daemon that asked for them.

use kiln_engine::{EngineError, LaunchSpec, Observed, Phase, Staging};
use kiln_model::{ImageDigest, ReleaseId, ServerId, VerifiedRelease};
use tokio::time::sleep;

use super::{Broken, FakeEngine, State, outliving};

impl FakeEngine {
    /// Servers that are staged and wait.
    pub fn staged(&self) -> Vec<Observed> {
        let state = self.state();
        state.staged.values().filter(|seen| seen.phase == Phase::Pending).cloned().collect()
    }
    /// The process that asked for them has ended.
    pub fn lose_staged(&self) {
        self.state().staged.clear();
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

    /// Takes a staged server, if it waits and is of the release.
    pub(super) fn take_staged(&mut self, server: &ServerId, release: ReleaseId) -> bool {
        let staged = self.staged.remove(server);
        staged.is_some_and(|seen| seen.phase == Phase::Pending && seen.release == release)
    }
}

#[async_trait::async_trait]
impl Staging for FakeEngine {
    async fn stage(&self, release: &VerifiedRelease, spec: &LaunchSpec) -> Result<Observed, EngineError> {
        let pair = release.release();
        outliving(self.clone().do_stage(pair.id(), pair.image, spec.clone())).await
    }
}
