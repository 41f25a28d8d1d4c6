//! What the group's task tells of itself for traces ([`crate::traces`]).

use jiff::Timestamp;
use kiln_model::{
    ServerId, ServerState,
    plan::{RolloutProgress, RolloutState},
};

use super::{GroupTask, view};
use crate::{
    db::GroupRow,
    shared::Shared,
    traces::{Cause, Change, Story},
};

/// The traces of a group, as it comes from disk.
pub(super) fn story(shared: &Shared, row: &GroupRow) -> Story {
    let over = row.progress.as_ref().filter(|progress| progress.revision == row.revision && progress.is_over());
    Story::new(shared.traces.clone(), row.name.to_string(), over.map(|progress| progress.revision))
}

impl GroupTask {
    /// Begins the trace of a change that is under way, and tells how it stands.
    pub(super) fn trace_change(&mut self, now: Timestamp) {
        if !self.story.is_told() {
            return;
        }
        self.story.cut_long();
        let revision = self.row.revision;
        let Some(progress) = self.row.progress.as_ref().filter(|progress| progress.revision == revision) else {
            return;
        };
        if !progress.is_over() && !self.story.tells(revision) {
            let cause = self.change(Some(progress), now);
            self.story.begin(cause, now);
        }
        if let Some(progress) = self.row.progress.as_ref().filter(|_| self.story.tells(revision)) {
            let (state, reason) = view::words(progress);
            let well = matches!(progress.state, RolloutState::Running | RolloutState::Done);
            self.story.stands(state, &reason, !well);
        }
    }

    fn change(&self, progress: Option<&RolloutProgress>, now: Timestamp) -> Cause {
        let (to, from) = (self.row.release, progress.and_then(|progress| progress.stable));
        let (count, servers) = (self.row.spec.count, self.members().count() as u32);
        let name = if self.row.removing {
            "remove"
        } else if from != Some(to) {
            "rollout"
        } else if count > servers {
            "scale-out"
        } else if count < servers {
            "scale-in"
        } else {
            "rebuild"
        };
        let mut attributes = vec![("kiln.release", to.to_string().into()), ("kiln.servers", i64::from(count).into())];
        let image = self.releases.get(&to).map(|release| ("kiln.image", release.image.to_string().into()));
        attributes.extend(image);
        let from = from.filter(|from| *from != to).map(|from| ("kiln.release.from", from.to_string().into()));
        attributes.extend(from);
        let started_at = progress.map_or(now, |progress| progress.started_at);
        Cause::Change(name, Change { revision: self.row.revision, started_at, attributes })
    }

    /// Something is done to a server: a part of the trace under way, which begins with it where there is none. Spares, until
    /// they are taken, have no part in what the group does.
    pub(super) fn trace_step(&mut self, number: i64, action: &'static str, id: &ServerId, why: &str, now: Timestamp) {
        if !self.story.is_told() || self.is_spare(id) {
            return;
        }
        if !self.story.is_open() {
            let known = self.story.has_told(self.row.revision);
            let progress = self.row.progress.as_ref();
            let cause = if known { Cause::Heal(why.to_owned()) } else { self.change(progress, now) };
            self.story.begin(cause, now);
        }
        let server = self.servers.get(id);
        let release = server.map(|server| ("kiln.release", server.row.release.to_string().into()));
        let slot = server.and_then(|server| server.row.slot);
        let mut attributes = vec![("kiln.reason", why.into())];
        attributes.extend(release);
        attributes.extend(slot.map(|slot| ("kiln.slot", i64::from(slot).into())));
        self.story.step(number, action, id, attributes);
    }

    /// A server failed. Outside a change, the trace of its healing begins.
    pub(super) fn trace_failure(&mut self, id: &ServerId, reason: &str, now: Timestamp) {
        self.story.failed(id, reason);
        if self.story.is_told() && !self.story.is_open() && !self.is_spare(id) {
            self.story.begin(Cause::Heal(format!("{id}: {reason}")), now);
        }
    }

    fn is_spare(&self, id: &ServerId) -> bool {
        self.servers.get(id).is_some_and(|server| server.row.spare)
    }

    /// Ends the trace when the group is at rest.
    pub(super) fn trace_rest(&mut self) {
        if !self.story.is_open() {
            return;
        }
        let progress = self.row.progress.as_ref().filter(|progress| progress.revision == self.row.revision);
        let over = progress.is_some_and(RolloutProgress::is_over) && self.routing == 0;
        let quiet = self.members().all(|s| s.busy.is_none() && s.row.state == ServerState::Ready);
        let whole = self.members().count() as u32 >= self.row.spec.count;
        let done = progress.is_some_and(|progress| progress.state == RolloutState::Done);
        let outcome = match (done, self.held.is_some()) {
            (_, true) if !whole => "healing stopped",
            (true, _) => "done",
            (false, _) => "failed",
        };
        if self.is_gone() {
            self.story.end("done");
        } else if over && quiet && (whole || !done || self.held.is_some()) {
            self.story.end(outcome);
        }
    }
}
