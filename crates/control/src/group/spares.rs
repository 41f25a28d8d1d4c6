//! The group's spares: servers that are made ahead, and taken when one is missing.
//!
//! A spare is staged: it has its image, its places and its network, and PID 1 waits for the word that starts its services. That
//! word is its launch, the same as any other, with the release that is admitted at that moment. Where the recipe says of every
//! service that it may be held once it is ready, the services are started, must become ready, and stand still until then; so may what
//! they were told at their start be old, and a spare that began with other live values is made anew.
//!
//! A spare ends with the daemon, or before the next one looks, so whatever a crash leaves is told apart: what was taken runs, or is
//! gone; what was not is made anew.

use std::time::Duration;

use jiff::Timestamp;
use kiln_api::status::SparesStatus;
use kiln_engine::Observed;
use kiln_model::{
    Group, ReleaseId, ServerId, ServerState,
    plan::{RolloutProgress, SPARE_AGE},
};

use super::{
    GroupTask, Server,
    begin::Work,
    finish::End,
    slots::{Before, Waiting},
};

/// No spare gets older than the group's servers may, or than its recipe says.
pub(crate) fn age(spec: &Group, holds_ready: Option<Duration>) -> Duration {
    [spec.max_age, holds_ready].into_iter().flatten().fold(SPARE_AGE, Duration::min)
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
        let ready = spec.manifest.holds_ready().is_some() && self.shared.engine.holding().is_some();
        let began_with = ready.then(|| self.live_version());
        server.waiting = Some(Box::new(Waiting { release: verified.clone(), spec: spec.clone(), began_with }));
        self.servers.insert(spec.server.clone(), server);
        let intention = self.intend(&spec.server, "spare", why, now);
        let prepare = self.prepared.insert(verified.release().image);
        let (release, spec, farewells) = (Box::new(verified), Box::new(spec), Vec::new());
        Some(match ready {
            true => Work::Warm { release, spec, prepare, intention },
            false => Work::Stage { release, spec, prepare, farewells, intention },
        })
    }

    pub(super) fn live_version(&self) -> u64 {
        self.shared.live.of(&self.row.name).version
    }

    /// How old a spare of the release that is launched now may get.
    pub(super) fn spare_age(&self) -> Duration {
        let release = self.row.progress.as_ref().map_or(self.row.release, RolloutProgress::target);
        let image = self.releases.get(&release).and_then(|release| self.images.get(&release.image));
        age(&self.row.spec, image.and_then(|image| image.manifest.holds_ready()))
    }

    /// Makes a spare one of the group's servers. From here on it is as old as its services.
    pub(super) fn take_spare(&mut self, id: &ServerId, why: &str, now: Timestamp) -> Option<Work> {
        let release = self.servers.get(id)?.row.release;
        let verified = self.admitted.get(&release)?.result.as_ref().ok()?.clone();
        let server = self.servers.get_mut(id)?;
        let Waiting { spec, began_with, .. } = *server.waiting.take()?;
        (server.row.spare, server.taken_at) = (false, Some(now));
        if began_with.is_none() {
            server.row.launched_at = now;
        }
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
        let waits = |server: &&mut Server| server.is_held() || server.has_begun();
        let Some(server) = self.servers.get_mut(id).filter(waits) else { return };
        (server.row.address, server.row.pid) = (seen.address, seen.pid);
        if let kiln_engine::Phase::Exited { reason, killed } = &seen.phase {
            let end = if *killed || server.is_held() { End::Killed } else { End::Gone };
            self.fail(id, format!("it ended before anybody took it: {reason}"), end);
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
        let held = || self.servers.values().filter(|server| server.row.spare && server.is_held());
        let (ready, held) = (held().filter(|server| server.has_begun()).count() as u32, held().count() as u32);
        (wanted > 0 || held > 0).then_some(SparesStatus { wanted, held, ready })
    }
}

impl Server {
    /// Whether it is staged, and nothing is being done to it.
    pub(super) fn is_held(&self) -> bool {
        self.row.state == ServerState::Launching && self.busy.is_none() && self.waiting.is_some()
    }

    /// Whether its services run already, though it is held.
    fn has_begun(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.began_with.is_some())
    }

    /// Whether its services began with live values that are not those of now.
    pub(super) fn is_stale(&self, live_version: u64) -> bool {
        self.waiting.as_ref().and_then(|waiting| waiting.began_with).is_some_and(|began| began != live_version)
    }

    /// Its state for people and scripts.
    pub(super) fn word(&self) -> &'static str {
        if self.row.spare && self.row.state.is_live() { "spare" } else { self.row.state.word() }
    }
}
