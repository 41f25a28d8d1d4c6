//! What a group does whose image was revoked: nothing of it is launched any more, and, where the fleet says `on_revoked = "replace"`,
//! the group goes back to the latest release that it was on and whose evidence holds. Which one that is, is the model's choice.

use std::sync::Arc;

use kiln_model::{
    ReleaseId,
    fleet::{EvidencePolicy, OnRevoked},
    plan::{Admission, Past, way_back},
};
use serde_json::json;
use tokio::time::Instant;

use super::{GroupTask, TICK, admission};
use crate::{db::PastRelease, shared::Shared};

/// So many of the latest releases are looked at.
const LOOKED_AT: usize = 16;

impl GroupTask {
    /// Goes back from a revoked image, if that is wanted and there is something to go back to. Returns whether it does.
    pub(super) async fn leave_revoked(&mut self) -> bool {
        let Some(reason) = self.revoked(&self.row.release) else {
            self.stranded = None;
            return false;
        };
        let wanted = self.row.spec.on_revoked == OnRevoked::Replace && !self.row.removing && self.row.spec.count > 0;
        if !wanted || self.stranded.is_some_and(|since| since.elapsed() < TICK) {
            return false;
        }
        let latest = self.latest();
        let looked = admitted_past(self.shared.clone(), self.row.evidence, self.row.release, latest);
        let Some(back) = looked.await else {
            if self.stranded.replace(Instant::now()).is_none() {
                let (group, release) = (&self.row.name, self.row.release.short());
                self.warn(format!(
                    "group `{group}` stays on release {release}: no earlier one has good evidence. {reason}"
                ));
            }
            return false;
        };
        let from = self.row.release;
        self.record("leave-revoked", None, json!({"from": from, "to": back}), reason);
        self.back_to(back);
        true
    }

    /// Why a release is revoked, if it is.
    fn revoked(&self, release: &ReleaseId) -> Option<String> {
        match &self.admitted.get(release)?.result {
            Err(Admission::Refused { code, reason }) if code == "revoked" => Some(reason.clone()),
            _ => None,
        }
    }

    /// The latest releases that the whole group was on.
    fn latest(&self) -> Vec<PastRelease> {
        let mut latest: Vec<_> = self.releases.values().filter(|release| release.settled.is_some()).cloned().collect();
        latest.sort_by_key(|release| std::cmp::Reverse(release.settled));
        latest.truncate(LOOKED_AT);
        latest
    }
}

async fn admitted_past(
    shared: Arc<Shared>,
    evidence: EvidencePolicy,
    from: ReleaseId,
    latest: Vec<PastRelease>,
) -> Option<ReleaseId> {
    let mut past = Vec::new();
    for release in latest {
        let looked = admission::look(&shared, &release, evidence, false).await;
        past.push(Past { release: release.id(), settled: release.settled, admitted: looked.is_ok() });
    }
    way_back(from, &past)
}
