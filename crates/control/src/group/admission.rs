//! Which of a group's releases may be launched.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kiln_model::{
    ReleaseId, VerifiedRelease,
    fleet::EvidencePolicy,
    plan::{Admission, RolloutState},
    trust::{LaunchUse, Request},
};
use tokio::time::Instant;

use super::{Admitted, GroupTask};
use crate::{
    db::PastRelease,
    releases::{ImageInfo, NotAdmitted, ReleasesError},
    shared::Shared,
};

/// Evidence that was looked at within this time is not looked at again.
const FRESH: Duration = Duration::from_secs(1);

impl GroupTask {
    /// Looks at the evidence of every release that the next plan might launch, and of those that run.
    pub(super) async fn look_at_evidence(&mut self) {
        let progress = self.row.progress.as_ref();
        let wanted = [Some(self.row.release), progress.and_then(|p| p.stable), progress.map(|p| p.to)];
        let running = self.servers.values().map(|server| server.row.release);
        let wanted: BTreeSet<_> = wanted.into_iter().flatten().chain(running).collect();
        self.admitted.retain(|release, _| wanted.contains(release));
        for release in wanted {
            let heal = self.heals(release);
            let fresh = self.admitted.get(&release).is_some_and(|a| a.heal == heal && a.at.elapsed() < FRESH);
            if !fresh {
                self.look_at(release, heal).await;
            }
        }
    }

    /// Whether launching this release heals the group or moves it.
    fn heals(&self, release: ReleaseId) -> bool {
        let Some(progress) = &self.row.progress else { return false };
        let arrived = progress.state == RolloutState::Done && progress.to == release;
        progress.stable == Some(release) || arrived
    }

    async fn look_at(&mut self, id: ReleaseId, heal: bool) {
        let Some(release) = self.releases.get(&id).cloned() else { return };
        let looked = look(&self.shared, &release, self.row.evidence, heal).await;
        let result = looked.map(|(release, image)| {
            self.images.insert(image.digest, image);
            release
        });
        self.keep(id, result, heal);
    }

    fn keep(&mut self, id: ReleaseId, result: Result<VerifiedRelease, Admission>, heal: bool) {
        let said = self.admitted.remove(&id).map(|before| before.said).unwrap_or_default();
        let warnings = result.as_ref().map(|release| release.warnings().to_vec()).unwrap_or_default();
        for warning in warnings.iter().filter(|warning| !said.contains(warning)) {
            self.warn(format!("group `{}`: {warning}", self.row.name));
        }
        self.admitted.insert(id, Admitted { result, heal, at: Instant::now(), said: warnings });
    }
}

/// Asks whether a release may be launched, on a thread that may block.
pub(super) async fn look(
    shared: &Arc<Shared>,
    release: &PastRelease,
    evidence: EvidencePolicy,
    heal: bool,
) -> Result<(VerifiedRelease, ImageInfo), Admission> {
    let (releases, now, release) = (shared.releases.clone(), shared.now(), release.clone());
    let launch_use = if heal { LaunchUse::Heal } else { LaunchUse::Rollout };
    let looked = tokio::task::spawn_blocking(move || {
        let image = releases.image(&release.image)?;
        let PastRelease { image: digest, config, suite, .. } = &release;
        let request = Request { image: *digest, name: &image.name, config, suite: *suite, launch_use };
        Ok((releases.admit(&request, evidence, now)?, image))
    });
    match looked.await {
        Ok(looked) => looked.map_err(|error: NotAdmitted| refused(&error)),
        Err(_) => Err(Admission::Refused {
            code: "unreadable".to_owned(),
            reason: "the evidence could not be looked at: the daemon is shutting down, or a mistake in Kiln".to_owned(),
        }),
    }
}

fn refused(error: &NotAdmitted) -> Admission {
    let code = match error {
        NotAdmitted::Refused(refusal) => refusal.code(),
        NotAdmitted::Unreadable(ReleasesError::NotFound { .. }) => "no-image",
        NotAdmitted::Unreadable(ReleasesError::Store(_) | ReleasesError::Trust(_)) => "unreadable",
    };
    Admission::Refused { code: code.to_owned(), reason: kiln_api::error::chain(error) }
}
