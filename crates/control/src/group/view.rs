//! The group as others see it: the planner, `status`, the gateway, people.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use kiln_api::{
    Event,
    status::{GroupStatus, LiveStatus, RefusedStatus, RolloutStatus, ServerStatus},
};
use kiln_model::{
    ReleaseId, ServerId, ServerState,
    fleet::Publish,
    manifest::Protocol,
    plan::{Admission, GroupDesired, GroupObserved, RolloutProgress, RolloutState, ServerView},
};

use super::{GroupTask, Place, Server};
use crate::{
    db::{GroupRow, PastRelease, ServerRow},
    group::Kept,
    handle::{InService, Settled, Sourced, Unsettled},
    loss::{AtStake, ServerAtStake},
    recovery::Target,
    traffic::{Backend, Route},
};

impl GroupTask {
    pub(super) fn desired(&self) -> GroupDesired {
        let admission = |admitted: &super::Admitted| match &admitted.result {
            Ok(_) => Admission::Admitted,
            Err(refused) => refused.clone(),
        };
        GroupDesired {
            group: self.row.name.clone(),
            revision: self.row.revision,
            release: self.row.release,
            count: if self.row.removing { 0 } else { self.row.spec.count },
            policy: self.row.spec.rollout.clone(),
            slots: !self.row.spec.volumes.is_empty(),
            unmade: self.unmade(),
            healing: self.row.spec.healing,
            spares: if self.row.removing { 0 } else { self.row.spec.spares },
            spare_age: self.spare_age(),
            admissions: self.admitted.iter().map(|(id, admitted)| (*id, admission(admitted))).collect(),
        }
    }

    pub(super) fn observed(&self) -> GroupObserved {
        let live = self.live_version();
        GroupObserved {
            servers: self.servers.values().map(|server| server.view(&self.row.spec, live)).collect(),
            failures: self.row.failures.clone(),
            blocked: self.blocked.clone(),
        }
    }

    /// The group's part of the gateway's table.
    pub(super) fn routes(&self) -> Vec<Route> {
        // What would fail or wait is refused at once by the gateway.
        let servers = self.servers.values().filter(|_| !self.is_away());
        let placed: Vec<_> = servers.filter_map(|server| Placed::of(&server.row, server.place)).collect();
        let mut routes = table(&self.row, &placed);
        routes.iter_mut().filter(|_| self.is_away()).for_each(|route| route.hold = None);
        routes
    }

    pub(super) fn endpoints(&self) -> Vec<String> {
        let publish = self.row.spec.publish.iter();
        publish
            .filter_map(|publish| {
                let port = match publish.listen {
                    0 => *self.row.ports.get(&publish.name())?,
                    listen => listen,
                };
                let scheme = match publish.protocol {
                    Protocol::Http => "http",
                    Protocol::Tcp => "tcp",
                };
                Some(format!("{scheme}://127.0.0.1:{port}"))
            })
            .collect()
    }

    /// Servers on the release wanted that are ready and get traffic.
    fn updated(&self) -> u32 {
        let ready = |server: &&Server| server.row.release == self.row.release && server.serves();
        self.servers.values().filter(ready).count() as u32
    }

    pub(super) fn status(&self) -> GroupStatus {
        let wanted = self.releases.get(&self.row.release);
        GroupStatus {
            name: self.row.name.to_string(),
            image: wanted.map(|release| release.image.to_string()).unwrap_or_default(),
            config: wanted.map(|release| release.config.digest().to_string()).unwrap_or_default(),
            release: self.row.release.to_string(),
            desired: if self.row.removing { 0 } else { self.row.spec.count },
            ready: if self.is_away() { 0 } else { self.updated() },
            rollout: self.row.progress.as_ref().and_then(|progress| self.rollout(progress)),
            endpoints: self.endpoints(),
            spares: self.spares(),
            healing: self.healing(),
            drill: self.shared.drills.of(&Target::Group(self.row.name.clone())),
            scaling: self.scaling(),
            live: self.live(),
            sources: None,
            volumes: self.volumes(),
            shared: self.shared_status(),
            logs: self.shared.logs.status(&self.row.name),
            servers: self.servers.values().map(|server| self.server_status(server)).collect(),
            refused: self.refused(),
        }
    }

    /// What may be lost of it, and with whom.
    pub(super) fn at_stake(&self) -> AtStake {
        let server = |server: &Server| {
            let image = self.releases.get(&server.row.release).map(|release| release.image);
            let manifest = image.and_then(|image| self.images.get(&image)).map(|image| image.manifest.clone());
            let (id, state, slot) = (server.row.id.clone(), server.row.state, server.row.slot);
            ServerAtStake { id, state, slot, running: server.running, image, manifest }
        };
        AtStake {
            policy: self.row.spec.loss,
            collector: self.row.spec.logs.as_ref().map(|logs| logs.to.to_string()),
            // Nothing of a spare has run: it has nothing to lose.
            servers: self.members().map(server).collect(),
        }
    }

    fn server_status(&self, server: &Server) -> ServerStatus {
        let release = self.releases.get(&server.row.release);
        let status = server.status();
        let waits = self.shared.logs.is_waiting(&self.row.name, &server.row.id);
        let why = || waits.then(|| "it has ended; its last log lines wait for the collector".to_owned());
        ServerStatus {
            image: release.map(|release| release.image.to_string()).unwrap_or_default(),
            reason: status.reason.clone().or_else(why),
            ..status
        }
    }

    fn live(&self) -> Option<LiveStatus> {
        let values = self.shared.live.of(&self.row.name);
        let keys = values.seen().len() as u32;
        (keys > 0).then(|| LiveStatus { version: values.version, keys, set: values.set.len() as u32 })
    }

    /// The releases that could not be launched now, with the servers of them that run.
    fn refused(&self) -> Vec<RefusedStatus> {
        let progress = self.row.progress.as_ref();
        let wanted = [Some(self.row.release), progress.and_then(|p| p.stable), progress.map(|p| p.to)];
        // What is on its way out anyhow is of interest only where it must not run at all.
        let told = |id: &ReleaseId, code: &str| wanted.contains(&Some(*id)) || code == "revoked";
        let refused = self.admitted.iter().filter_map(|(id, admitted)| match &admitted.result {
            Err(Admission::Refused { code, reason }) if told(id, code) => Some((id, code, reason)),
            _ => None,
        });
        let with_servers = refused.map(|(id, code, reason)| {
            let of_it = self.servers.values().filter(|server| server.row.release == *id);
            let servers = of_it.map(|server| server.row.id.to_string()).collect();
            RefusedStatus { release: id.to_string(), code: code.clone(), reason: reason.clone(), servers }
        });
        with_servers.collect()
    }

    /// The rollout under way or failed. A group that healed slowly or not at all shows here as well.
    fn rollout(&self, progress: &RolloutProgress) -> Option<RolloutStatus> {
        let (state, reason) = words(progress);
        let refused = self.admitted.get(&progress.target()).and_then(|a| a.result.as_ref().err());
        let (state, reason) = match (&progress.state, refused) {
            (RolloutState::Done, Some(Admission::Refused { reason, .. })) if self.row.spec.count > 0 => {
                ("refused", format!("healing has stopped: {reason}"))
            }
            (RolloutState::Done, _) => ("failed", self.blocked.clone()?),
            _ => (state, reason),
        };
        Some(RolloutStatus {
            from: progress.stable.filter(|stable| *stable != progress.to).map(|stable| stable.to_string()),
            to: progress.to.to_string(),
            state: state.to_owned(),
            reason,
            updated: self.updated(),
        })
    }

    pub(super) fn rollout_event(&self) -> Event {
        let (state, reason) = self.row.progress.as_ref().map_or(("running", String::new()), words);
        let progress = self.row.progress.as_ref();
        Event::Rollout {
            group: self.row.name.to_string(),
            state: state.to_owned(),
            from: progress.and_then(|p| p.stable.filter(|stable| *stable != p.to)).map(|stable| stable.to_string()),
            to: self.row.release.to_string(),
            updated: self.updated(),
            desired: self.row.spec.count,
            reason,
        }
    }

    pub(super) fn server_event(&self, server: &Server) -> Event {
        Event::Server {
            group: self.row.name.to_string(),
            server: server.row.id.to_string(),
            state: server.word().to_owned(),
            release: server.row.release.to_string(),
            address: server.row.address.map(|address| address.to_string()),
            ready: server.row.ready,
            reason: server.row.reason.clone(),
            drill: server.drill,
            spare: server.row.spare,
        }
    }

    pub(super) fn settled(&self, asked: u64) -> Settled {
        let outcome = match self.progress_state() {
            _ if asked != self.row.revision => Err(Unsettled::Superseded),
            Some(RolloutState::Done) if self.blocked.is_some() => {
                Err(Unsettled::Failed { reason: self.blocked.clone().unwrap_or_default() })
            }
            Some(RolloutState::Refused { code, reason }) => {
                Err(Unsettled::Refused { code: code.clone(), reason: reason.clone() })
            }
            Some(RolloutState::Failed { .. } | RolloutState::Reverted { .. }) => {
                let reason = self.row.progress.as_ref().map(|progress| words(progress).1).unwrap_or_default();
                Err(Unsettled::Failed { reason: self.with_last_failure(reason) })
            }
            _ => Ok(()),
        };
        Settled { group: self.row.name.clone(), outcome, endpoints: self.endpoints() }
    }

    /// The reason of a failed rollout, with what the last server that failed said.
    fn with_last_failure(&self, reason: String) -> String {
        match &self.last_failure {
            Some(last) if !reason.contains(last.as_str()) => format!("{reason}; the last one: {last}"),
            _ => reason,
        }
    }

    /// None where nothing of the release wanted runs: it is not renewed. A group that sleeps is to be woken.
    pub(super) fn in_service(&self) -> Option<InService> {
        let id = self.row.release;
        let sleeps = self.row.spec.count == 0 && self.row.spec.scaling.is_some();
        self.servers.values().find(|server| server.row.release == id).map(drop).or(sleeps.then_some(()))?;
        let release = self.releases.get(&id)?;
        Some(InService {
            group: self.row.name.clone(),
            image: release.image,
            config: release.config.clone(),
            suite: release.suite,
            evidence: self.row.evidence,
        })
    }

    /// None where nothing of it is watched.
    pub(super) fn sourced(&self) -> Option<Sourced> {
        let origins = self.row.origins.clone().filter(|_| !self.row.removing)?;
        let release = self.releases.get(&self.row.release)?;
        Some(Sourced {
            group: self.row.name.clone(),
            revision: self.row.revision,
            origins,
            declined: self.row.declined,
            policy: self.row.spec.on_source_change,
            windows: self.row.spec.windows.clone(),
            evidence: self.row.evidence,
            image: release.image,
            config: release.config.clone(),
        })
    }

    /// The images that must stay, and the secrets.
    pub(super) fn kept(&self) -> Kept {
        let images = self.releases_kept().into_iter().map(|release| release.image).collect();
        let secrets = self.releases_kept().into_iter().flat_map(|release| release.config.secrets().cloned());
        Kept { images, secrets: secrets.chain(self.row.origins.clone()).collect() }
    }

    /// Those of running servers, those wanted, and those to go back to.
    fn releases_kept(&self) -> Vec<&PastRelease> {
        let mut latest: Vec<_> = self.releases.values().filter(|release| release.settled.is_some()).collect();
        latest.sort_by_key(|release| std::cmp::Reverse(release.settled));
        let back = latest.into_iter().take(2);
        let progress = self.row.progress.as_ref();
        let wanted = [Some(self.row.release), progress.and_then(|p| p.stable), progress.map(|p| p.to)];
        let running = self.servers.values().map(|server| server.row.release).chain(wanted.into_iter().flatten());
        back.chain(running.filter_map(|id| self.releases.get(&id))).collect()
    }
}

/// A rollout's state and reason in words.
pub(super) fn words(progress: &RolloutProgress) -> (&'static str, String) {
    let target = progress.to.short();
    match &progress.state {
        RolloutState::Running => ("running", format!("the group moves to release {target}")),
        RolloutState::Done => ("done", format!("every server is on release {target} and available")),
        RolloutState::Refused { reason, .. } => ("refused", reason.clone()),
        RolloutState::Reverting { reason } => ("reverting", reason.clone()),
        RolloutState::Reverted { reason } => {
            ("failed", format!("{reason}; the group is back on release {}", progress.target().short()))
        }
        RolloutState::Failed { reason } => ("failed", reason.clone()),
    }
}

impl Server {
    pub(super) fn serves(&self) -> bool {
        self.row.state == ServerState::Ready && self.row.in_traffic
    }

    fn view(&self, wanted: &kiln_model::Group, live_version: u64) -> ServerView {
        let spoilt = self.row.spare && (self.row.touched || self.is_stale(live_version));
        ServerView {
            id: self.row.id.clone(),
            release: self.row.release,
            state: self.row.state,
            launched_at: self.row.launched_at,
            ready_at: self.row.ready_at,
            in_traffic: self.row.in_traffic,
            busy: self.busy.is_some(),
            running: self.running,
            slot: self.row.slot,
            staged: self.busy.is_none() && self.waiting.is_some(),
            replace: self.row.rebuild || self.row.is_other_than(wanted) || spoilt,
            spare: self.row.spare,
        }
    }

    fn status(&self) -> ServerStatus {
        ServerStatus {
            id: self.row.id.to_string(),
            state: self.word().to_owned(),
            release: self.row.release.to_string(),
            image: String::new(),
            address: self.row.address.map(|address| address.to_string()),
            pid: self.row.pid,
            started_at: Some(self.row.launched_at.to_string()),
            ready: self.row.ready,
            touched: self.row.touched,
            slot: self.row.slot,
            spare: self.row.spare,
            reason: self.row.reason.clone(),
        }
    }
}

/// The part of the table that a group had, by what is on disk.
pub(crate) fn routes_of<'a>(row: &GroupRow, servers: impl Iterator<Item = &'a ServerRow>) -> Vec<Route> {
    table(row, &servers.filter_map(|server| Placed::of(server, Place::of(server))).collect::<Vec<_>>())
}

/// So long a request waits for a group that may be without servers, where it is.
const HOLD: Duration = Duration::from_secs(30);

/// A server that has an address.
struct Placed<'a> {
    server: &'a ServerId,
    address: Ipv4Addr,
    slot: Option<u32>,
    place: Place,
}

impl<'a> Placed<'a> {
    fn of(row: &'a ServerRow, place: Place) -> Option<Self> {
        Some(Self { server: &row.id, address: row.address?, slot: row.slot, place })
    }

    fn is_behind(&self, publish: &Publish) -> bool {
        self.place != Place::Out && publish.slot.is_none_or(|slot| self.slot == Some(slot))
    }
}

fn table(row: &GroupRow, placed: &[Placed<'_>]) -> Vec<Route> {
    let sleeps = row.spec.scaling.as_ref().is_some_and(|scaling| scaling.min == 0);
    let route = |publish: &Publish| Route {
        group: row.name.clone(),
        hold: sleeps.then_some(HOLD),
        listen: match publish.listen {
            0 => row.ports.get(&publish.name()).copied().unwrap_or(0),
            listen => listen,
        },
        published: publish.name(),
        protocol: publish.protocol,
        backends: placed
            .iter()
            .filter(|server| server.is_behind(publish))
            .map(|server| Backend {
                server: server.server.clone(),
                address: SocketAddr::from((server.address, publish.port)),
                draining: server.place == Place::Draining,
            })
            .collect(),
    };
    row.spec.publish.iter().map(route).collect()
}

impl Place {
    /// By what is on disk.
    pub(super) fn of(row: &ServerRow) -> Self {
        match row.state {
            ServerState::Ready if row.in_traffic => Self::In,
            ServerState::Draining => Self::Draining,
            _ => Self::Out,
        }
    }
}
