//! The group's spares: servers that are made ahead, and taken when one is missing.
//!
//! A spare is staged: it has its image, its places and its network, and PID 1 waits for the word that starts its services. That
//! word is its launch, the same as any other, with the release that is admitted at that moment. A staged server ends with the
//! daemon, so whatever a crash leaves is told apart: what was taken runs, or is gone; what was not is made anew.

use std::time::Duration;

use jiff::Timestamp;
use kiln_api::status::SparesStatus;
use kiln_engine::Observed;
use kiln_model::{Group, ReleaseId, ServerId, ServerState, plan::SPARE_AGE};

use super::{
    GroupTask, Server,
    begin::Work,
    finish::End,
    slots::{Before, Waiting},
};

/// No spare gets older than the group's servers may.
pub(crate) fn age(spec: &Group) -> Duration {
    spec.max_age.map_or(SPARE_AGE, |max_age| max_age.min(SPARE_AGE))
}

impl GroupTask {
    /// The group's own servers: those that are no spares.
    pub(super) fn members(&self) -> impl Iterator<Item = &Server> {
        self.servers.values().filter(|server| !server.row.spare)
    }

    /// Makes a spare.
    pub(super) fn spare(&mut self, release: ReleaseId, why: &str, now: Timestamp) -> Option<Work> {
        let (verified, spec) = self.new_spec(release, None)?;
        let mut server = self.new_server(&spec, release, None, now);
        server.row.spare = true;
        server.waiting = Some(Box::new(Waiting { release: verified.clone(), spec: spec.clone() }));
        self.servers.insert(spec.server.clone(), server);
        let intention = self.intend(&spec.server, "spare", why, now);
        let prepare = self.prepared.insert(verified.release().image);
        let farewells = Vec::new();
        Some(Work::Stage { release: Box::new(verified), spec: Box::new(spec), prepare, farewells, intention })
    }

    /// Makes a spare one of the group's servers. From here on it is as old as its services.
    pub(super) fn take_spare(&mut self, id: &ServerId, why: &str, now: Timestamp) -> Option<Work> {
        let release = self.servers.get(id)?.row.release;
        let verified = self.admitted.get(&release)?.result.as_ref().ok()?.clone();
        let server = self.servers.get_mut(id)?;
        let Waiting { spec, .. } = *server.waiting.take()?;
        (server.row.spare, server.row.launched_at) = (false, now);
        let intention = self.intend(id, "take", why, now);
        let (release, spec, volumes) = (Box::new(verified), Box::new(spec), Before::default());
        Some(Work::Launch { release, spec, prepare: false, volumes, intention })
    }

    /// A spare is there, and waits.
    pub(super) fn tell_spare(&self, id: &ServerId) {
        let Some(server) = self.servers.get(id).filter(|server| server.row.spare && server.is_held()) else { return };
        let event = self.server_event(server);
        self.shared.emit(event);
    }

    /// What is seen of a server that waits for its services to be started.
    pub(super) fn see_held(&mut self, id: &ServerId, seen: &Observed) {
        let Some(server) = self.servers.get_mut(id).filter(|server| server.is_held()) else { return };
        (server.row.address, server.row.pid) = (seen.address, seen.pid);
        if let kiln_engine::Phase::Exited { reason, .. } = &seen.phase {
            self.fail(id, format!("it ended while it was held: {reason}"), End::Killed);
        }
    }

    /// A spare of an earlier daemon: whatever is left of it goes, and another is made.
    pub(super) fn adopt_spare(&mut self, id: &ServerId, runs: bool) {
        let end = if runs { End::Running } else { End::Unseen };
        self.fail(id, "the daemon that held it as a spare has ended".to_owned(), end);
    }

    /// For `status`.
    pub(super) fn spares(&self) -> Option<SparesStatus> {
        let wanted = if self.row.removing { 0 } else { self.row.spec.spares };
        let held = self.servers.values().filter(|server| server.row.spare && server.is_held()).count() as u32;
        (wanted > 0 || held > 0).then_some(SparesStatus { wanted, held })
    }
}

impl Server {
    /// Whether it is staged, and nothing is being done to it.
    pub(super) fn is_held(&self) -> bool {
        self.row.state == ServerState::Launching && self.busy.is_none() && self.waiting.is_some()
    }

    /// Its state for people and scripts.
    pub(super) fn word(&self) -> &'static str {
        if self.row.spare && self.row.state.is_live() { "spare" } else { self.row.state.word() }
    }
}
