//! What people ask of a group.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kiln_api::Event;
use kiln_model::{
    GroupName, ReleaseId, ServerId,
    fleet::{ImageRef, Selector},
    plan::{self, GroupObserved, PlannedAction, RolloutProgress},
};
use serde_json::json;
use tokio::sync::oneshot;

use super::{Data, GroupTask, Wish};
use crate::{
    db::{GroupRow, PastRelease, Record},
    handle::ControlError,
};

impl Wish {
    /// The row of a group that is wanted for the first time.
    pub fn first_row(&self, name: GroupName) -> GroupRow {
        GroupRow {
            name,
            revision: 1,
            release: self.release.id(),
            spec: self.spec.clone(),
            evidence: self.evidence,
            progress: None,
            failures: Vec::new(),
            ports: Default::default(),
            removing: false,
            origins: self.origins.clone(),
            declined: None,
        }
    }
}

impl GroupTask {
    pub(super) fn want(&mut self, wish: Wish) {
        let id = wish.release.id();
        let settled = self.releases.get(&id).and_then(|before| before.settled);
        let release = crate::db::PastRelease { settled, ..wish.release };
        self.batch.release(&self.row.name, &release);
        self.releases.insert(id, release);
        let count = self.count_under(&wish.spec);
        self.row.spec = kiln_model::Group { count, ..wish.spec };
        self.note_policies();
        self.shared.logs.policy(&self.row.name, self.row.spec.logs.as_ref());
        self.row.evidence = wish.evidence;
        self.row.removing = false;
        self.row.origins = wish.origins;
        self.row.declined = None;
        for gone in self.removed.drain(..) {
            // Whoever asked may have left.
            gone.send(Err(ControlError::Superseded(self.row.name.clone()))).ok();
        }
        self.row.release = id;
        self.record_wish();
        self.go_to(id);
    }

    /// A source has changed. Returns whether the group goes there: not if somebody asked for something meanwhile.
    pub(super) fn propose(&mut self, revision: u64, release: crate::db::PastRelease) -> bool {
        if self.row.revision != revision || self.row.removing {
            return false;
        }
        let id = release.id();
        let settled = self.releases.get(&id).and_then(|before| before.settled);
        let release = crate::db::PastRelease { settled, ..release };
        self.batch.release(&self.row.name, &release);
        self.releases.insert(id, release);
        self.row.declined = None;
        let text = format!("a source changed: release {}", id.short());
        self.batch.audit(self.shared.now(), Some(&self.row.name), None, text);
        self.go_to(id);
        true
    }

    /// The audit log's entry of what is wanted from now on.
    fn record_wish(&mut self) {
        let record = wish_record(&self.row, &self.releases, self.shared.now());
        self.batch.record(record);
    }

    /// Starts a new rollout.
    pub(super) fn go_to(&mut self, release: kiln_model::ReleaseId) {
        self.row.release = release;
        self.row.revision += 1;
        self.blocked = None;
        self.last_failure = None;
        self.admitted.clear();
        self.batch.group(&self.row);
        self.routes_changed = true;
    }

    pub(super) fn forecast(&mut self, wish: Wish, answer: oneshot::Sender<Vec<Event>>) {
        let mut desired = self.desired();
        desired.revision += 1;
        desired.release = wish.release.id();
        desired.count = self.count_under(&wish.spec);
        desired.policy = wish.spec.rollout.clone();
        desired.slots = !wish.spec.volumes.is_empty();
        desired.healing = wish.spec.healing;
        (desired.spares, desired.spare_age) = (wish.spec.spares, super::spare_age(&wish.spec, None));
        let mut observed = self.observed();
        for server in &mut observed.servers {
            server.replace = self.servers.get(&server.id).is_some_and(|s| s.row.is_other_than(&wish.spec));
        }
        let (shared, name) = (self.shared.clone(), self.row.name.clone());
        let progress = self.row.progress.clone();
        self.shared.spawn(async move {
            let steps = forecast(&shared, &name, &wish, desired, &observed, progress.as_ref()).await;
            answer.send(steps).ok();
        });
    }

    pub(super) fn rollback(&mut self, data: Data) -> Result<(), ControlError> {
        let progress = self.row.progress.as_ref();
        let unfinished = progress.filter(|p| p.state != plan::RolloutState::Done).and_then(|p| p.stable);
        let earlier = || {
            let others = self.releases.iter().filter(|(id, r)| **id != self.row.release && r.settled.is_some());
            others.max_by_key(|(_, release)| release.settled).map(|(id, _)| *id)
        };
        let back = unfinished.filter(|stable| *stable != self.row.release).or_else(earlier);
        let back = back.ok_or_else(|| ControlError::NoEarlierRelease(self.row.name.clone()))?;
        let from = self.row.release;
        let with_data = data == Data::OfThen;
        if with_data {
            self.data_of(&back)?;
        }
        let inputs = json!({"from": from, "to": back, "with_data": with_data});
        self.record("rollback", None, inputs, "somebody asked for it".to_owned());
        self.back_to(back);
        Ok(())
    }

    /// Starts a rollout to a release that the group had. No source brings it forward again.
    pub(super) fn back_to(&mut self, back: ReleaseId) {
        self.row.declined = self.releases.get(&self.row.release).map(|release| release.config.digest());
        let release = &self.releases[&back];
        self.row.spec.environment = release.config.environment.clone();
        let name = self.row.spec.image.name.clone();
        self.row.spec.image = ImageRef { name, selector: Selector::Digest(release.image) };
        self.go_to(back);
    }

    pub(super) fn rebuild(&mut self, server: Option<&ServerId>) -> Result<(), ControlError> {
        if let Some(id) = server.filter(|id| !self.servers.contains_key(*id)) {
            return Err(ControlError::NoServer(id.clone()));
        }
        let marked = self.servers.values_mut().filter(|s| server.is_none_or(|id| s.row.id == *id));
        for server in marked {
            server.row.rebuild = true;
            self.batch.server(&server.row);
        }
        let inputs = json!({"release": self.row.release, "all": server.is_none()});
        self.record("rebuild", server, inputs, "somebody asked for it".to_owned());
        self.go_to(self.row.release);
        Ok(())
    }

    pub(super) fn touch(&mut self, id: &ServerId, command: &[String]) -> Result<(), ControlError> {
        let server = self.servers.get_mut(id).ok_or_else(|| ControlError::NoServer(id.clone()))?;
        server.row.touched = true;
        self.batch.server(&server.row);
        self.record("exec", Some(id), json!({"command": command}), "somebody runs a command inside".to_owned());
        Ok(())
    }

    pub(super) fn remove(&mut self, gone: oneshot::Sender<Result<(), ControlError>>) {
        self.removed.push(gone);
        if !self.row.removing {
            self.row.removing = true;
            self.record("remove", None, json!({"release": self.row.release}), "somebody asked for it".to_owned());
            self.go_to(self.row.release);
        }
    }
}

/// What a group is to be from now on, for the audit log. The specification holds no secrets.
pub(super) fn wish_record(row: &GroupRow, releases: &BTreeMap<ReleaseId, PastRelease>, at: Timestamp) -> Record {
    let release = releases.get(&row.release);
    let inputs = json!({
        "release": row.release,
        "image": release.map(|release| release.image),
        "config": release.map(|release| release.config.digest()),
        "suite": release.map(|release| release.suite),
        "group": row.spec,
    });
    let reason = "somebody asked for it".to_owned();
    Record { at, action: "apply", group: Some(row.name.clone()), server: None, inputs, reason }
}

/// The steps that a wish would lead to, if everything went well. A release without good evidence is tested before it is
/// wanted, so missing evidence is no obstacle here; only what no test can mend is.
pub(crate) async fn forecast(
    shared: &std::sync::Arc<crate::shared::Shared>,
    name: &GroupName,
    wish: &Wish,
    mut desired: plan::GroupDesired,
    observed: &GroupObserved,
    progress: Option<&RolloutProgress>,
) -> Vec<Event> {
    let id = wish.release.id();
    let stable = progress.is_some_and(|p| p.stable == Some(id));
    let looked = super::admission::look(shared, &wish.release, wish.evidence, stable).await;
    let admission = match looked {
        Err(plan::Admission::Refused { code, reason }) if code == "revoked" => {
            plan::Admission::Refused { code, reason }
        }
        _ => plan::Admission::Admitted,
    };
    desired.admissions.insert(id, admission);
    let steps = plan::forecast(&desired, observed, progress, shared.now());
    steps.into_iter().map(|step| step_event(name, step)).collect()
}

pub(super) fn step_event(group: &GroupName, step: PlannedAction) -> Event {
    Event::Step {
        group: group.to_string(),
        server: step.action.server().map(ServerId::to_string),
        action: step.action.word().to_owned(),
        reason: step.why,
    }
}
