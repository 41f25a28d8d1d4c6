//! What a change of a group's sources leads to: frozen, compared with what the group has, and then, as the group says, shown,
//! or tested with the group's image and rolled out on the way that every release goes.

use std::{collections::BTreeMap, sync::Arc};

use kiln_api::{error::chain, request::Fresh};
use kiln_model::{FrozenConfig, GroupName, fleet::OnSourceChange};

use crate::{
    ControlError, Sourced, Unsettled,
    config::{Again, ConfigError, Origins, SecretsError},
    daemon::{App, apply},
    live::LiveError,
    releases::{ImageInfo, ReleasesError},
    reports::{ProveError, blocking},
    sources::keeper::{Place, Proposed, Proposer},
};

/// Proposes to the groups of a daemon.
pub(super) struct Propose(pub(super) Arc<App>);

/// Why a proposal cannot be made now.
#[derive(Debug, thiserror::Error)]
enum Cannot {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Live(#[from] LiveError),
    #[error(transparent)]
    Releases(#[from] ReleasesError),
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error(transparent)]
    Prove(#[from] ProveError),
    #[error("{}", .0.message)]
    Room(kiln_api::ApiError),
    #[error("none of the group's change windows is open")]
    Closed,
    #[error("something else was asked of the group meanwhile")]
    Superseded,
}

#[async_trait::async_trait]
impl Proposer for Propose {
    async fn free(&self, group: &GroupName) {
        // A group that is gone is free; its keeper ends.
        self.0.control.settle(std::slice::from_ref(group)).await.ok();
    }

    async fn propose(&self, group: &GroupName, policy: OnSourceChange, values: &BTreeMap<Place, String>) -> Proposed {
        let outcome = match self.of(group).await {
            Ok(of) => self.propose_to(&of, policy, values).await,
            Err(error) => Err(error),
        };
        outcome.unwrap_or_else(|cannot| Proposed::Delayed(chain(&cannot)))
    }
}

impl Propose {
    async fn of(&self, group: &GroupName) -> Result<Sourced, Cannot> {
        self.0.control.sourced(std::slice::from_ref(group)).await?.pop().ok_or(Cannot::Superseded)
    }

    async fn propose_to(
        &self,
        of: &Sourced,
        policy: OnSourceChange,
        seen: &BTreeMap<Place, String>,
    ) -> Result<Proposed, Cannot> {
        let (library, image) = (self.0.library.clone(), of.image);
        let image = blocking(move || library.image(&image)).await?;
        let (hash, secrets) = (of.origins.clone(), self.0.secrets.clone());
        let opened = tokio::task::spawn_blocking(move || Origins::open(&hash, &secrets)).await;
        let origins = opened.expect("opening a secret does not panic")?;
        let again = Again { origins: &origins, seen, before: &of.config, manifest: &image.manifest };
        let froze = match self.0.freezer.freeze_again(again).await {
            Ok(froze) => froze,
            Err(error) => return Ok(unfit(error)),
        };
        if policy == OnSourceChange::Rollout {
            // Live keys need no release.
            self.0.control.live().apply(&of.group, &image.manifest.config, froze.live).await?;
        }
        let config = froze.config;
        let digest = config.digest();
        match policy {
            _ if digest == of.config.digest() => Ok(Proposed::Same),
            _ if Some(digest) == of.declined => Ok(Proposed::Declined(digest)),
            OnSourceChange::Rollout => self.roll_out(of, &image, config).await,
            OnSourceChange::Report | OnSourceChange::Ignore => Ok(Proposed::Reported(digest)),
        }
    }

    async fn roll_out(&self, of: &Sourced, image: &ImageInfo, config: FrozenConfig) -> Result<Proposed, Cannot> {
        let app = &self.0;
        if !of.windows.allow(jiff::Timestamp::now()) {
            return Err(Cannot::Closed);
        }
        apply::room(&app.options.state_dir).map_err(Cannot::Room)?;
        let digest = config.digest();
        tracing::info!(group = %of.group, config = %digest.short(), "a source changed: the new configuration is tested");
        let turn = app.keepers.tests.acquire().await;
        let events = |event| app.control.announce(event);
        let proof = app.prover.prove(image, &config, of.evidence, Fresh::Reuse, &events).await?;
        drop(turn);
        if !proof.passed() {
            return Ok(Proposed::Failed(digest, apply::tests_failed(&proof.report).message));
        }
        if !app.control.propose(of, config).await? {
            return Err(Cannot::Superseded);
        }
        let settled = app.control.settle(std::slice::from_ref(&of.group)).await?;
        match settled.into_iter().find_map(|settled| settled.outcome.err()) {
            None => Ok(Proposed::RolledOut(digest)),
            Some(Unsettled::Superseded) => Err(Cannot::Superseded),
            Some(why) => Ok(Proposed::Failed(digest, why.to_string())),
        }
    }
}

/// Values that do not fit are told of their places; what could not be done now is tried again.
fn unfit(error: ConfigError) -> Proposed {
    let ConfigError::Problems(problems) = error else { return Proposed::Delayed(chain(&error)) };
    let place = |problem: &kiln_model::config::ConfigProblem| Place {
        binding: problem.binding.clone(),
        key: problem.key.clone(),
    };
    Proposed::Unfit(problems.iter().map(|problem| (place(problem), problem.to_string())).collect())
}
