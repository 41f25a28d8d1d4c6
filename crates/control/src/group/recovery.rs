//! A group's part in a recovery drill: whether servers may be destroyed now, which, and when it is whole again.
//!
//! The intention is on disk before the first server is killed. From then on the group does what it always does when servers
//! die: nothing of healing knows that this death was wanted, but that it does not count for the brake.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
    time::Duration,
};

use kiln_engine::EngineError;
use kiln_model::{
    ServerId,
    fleet::Toll,
    plan::{self, NoDrill},
};
use rand::seq::IteratorRandom as _;
use tokio::{sync::oneshot, time::Instant};

use super::{GroupTask, Message};
use crate::{
    handle::ControlError,
    recovery::{self, Order, Recovered, Rest, Target},
    shared::Shared,
};

/// Answered when the group is whole again, or with the reason why nobody waits for that any more.
pub(crate) type DrillAnswer = oneshot::Sender<Result<Result<Recovered, String>, ControlError>>;

/// A drill under way.
pub(super) struct Drilling {
    victims: BTreeSet<ServerId>,
    /// What the group is to be while it lasts.
    revision: u64,
    /// Set right before the first kill.
    killed: Arc<OnceLock<Instant>>,
    /// Servers that became ready since.
    replaced: usize,
    /// How long the last of them took.
    ready: Option<Duration>,
    answer: DrillAnswer,
}

impl GroupTask {
    fn may_drill(&self, toll: Toll) -> Result<u32, NoDrill> {
        let progress = self.row.progress.as_ref();
        plan::drill(toll, &self.desired(), &self.observed(), progress, self.held.as_ref(), self.shared.now())
    }

    /// How the group stands.
    pub(super) fn rest(&self) -> Rest {
        let unrest = self.may_drill(Toll::Servers(0)).err().filter(|why| *why != NoDrill::Empty);
        let (objectives, published) = (self.row.spec.drill.objectives, !self.row.spec.publish.is_empty());
        Rest { unrest, objectives, published }
    }

    /// Servers that a drill would destroy now.
    pub(super) fn choose_victims(&self, toll: Option<Toll>) -> Result<BTreeSet<ServerId>, ControlError> {
        let toll = toll.unwrap_or(self.row.spec.drill.toll);
        let servers = self.may_drill(toll).map_err(|why| self.no_drill(why))?;
        let members = self.members().map(|server| server.row.id.clone());
        Ok(members.sample(&mut rand::rng(), servers.max(1) as usize).into_iter().collect())
    }

    fn no_drill(&self, why: NoDrill) -> ControlError {
        ControlError::NoDrill { group: self.row.name.clone(), why }
    }

    /// The drills that are due and may begin now as far as this group is concerned, each with its reason.
    pub(super) fn drills_due(&self) -> Vec<(Target, String)> {
        let policy = &self.row.spec.drill;
        let name = self.row.name.clone();
        let clocks =
            [(Target::Group(name), policy.every), (Target::Gateway, policy.gateway), (Target::Daemon, policy.daemon)];
        let due = clocks.into_iter().filter_map(|(target, every)| Some((self.due(&target, every?)?, target)));
        let due: Vec<_> = due.map(|(reason, target)| (target, reason)).collect();
        let may = || self.drilling.is_none() && self.may_drill(policy.toll).is_ok();
        if !due.is_empty() && self.row.spec.windows.allow(self.shared.now()) && may() { due } else { Vec::new() }
    }

    fn due(&self, target: &Target, every: Duration) -> Option<String> {
        let last = self.shared.drills.of(target).and_then(|drill| drill.at.parse().ok());
        // Where there was none it takes as long, counted from the last rollout.
        let last = last.or_else(|| self.row.progress.as_ref().map(|progress| progress.started_at))?;
        let due = plan::drill_due(&target.to_string(), every, last) <= self.shared.now();
        let asks = || format!("group {} asks for one every {}", self.row.name, kiln_model::duration::format(every));
        due.then(asks)
    }

    /// Destroys these servers once that is on disk.
    pub(super) fn drill(&mut self, order: Order, answer: DrillAnswer) {
        let Order { victims, row } = order;
        let wanted = Toll::Servers(victims.len() as u32);
        let gone = victims.iter().find(|id| self.servers.get(*id).is_none_or(|server| server.row.spare));
        let may = match (gone, &self.drilling) {
            (Some(gone), _) => Err(ControlError::NoServer(gone.clone())),
            (None, Some(_)) => Err(self.no_drill(NoDrill::NotWhole { serving: 0, wanted: self.row.spec.count })),
            (None, None) => self.may_drill(wanted).map_err(|why| self.no_drill(why)),
        };
        if let Err(error) = may {
            // Whoever asked may have left.
            answer.send(Err(error)).ok();
            return;
        }
        recovery::record_begin(&self.shared, &mut self.batch, &Target::Group(self.row.name.clone()), &row);
        let mut doomed = Vec::new();
        for id in &victims {
            if let Some(server) = self.servers.get_mut(id) {
                server.drill = true;
                doomed.push((id.clone(), server.row.generation));
            }
        }
        let killed = Arc::new(OnceLock::new());
        let (revision, at) = (self.row.revision, killed.clone());
        self.drilling = Some(Drilling { victims, revision, killed, replaced: 0, ready: None, answer });
        let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
        self.acknowledge.push(Box::new(move || {
            let shared_too = shared.clone();
            shared.spawn(async move {
                shared_too.fail_point(|| "drill: before action".to_owned()).await;
                at.get_or_init(Instant::now);
                if let Err(error) = kill(&shared_too, &doomed).await {
                    mailbox.send(Message::NotKilled(kiln_api::error::chain(&error))).ok();
                }
                shared_too.fail_point(|| "drill: after action".to_owned()).await;
            });
        }));
    }

    /// A server became ready: it may be the last that was missing.
    pub(super) fn note_replacement(&mut self, id: &ServerId) {
        let Some(drilling) = &mut self.drilling else { return };
        let Some(killed) = drilling.killed.get() else { return };
        if !drilling.victims.contains(id) {
            drilling.replaced += 1;
            if drilling.replaced == drilling.victims.len() {
                drilling.ready = Some(killed.elapsed());
            }
        }
    }

    /// Ends a drill whose group is whole again, or is to be something else by now.
    pub(super) fn look_at_drill(&mut self) {
        let Some(drilling) = &self.drilling else { return };
        if drilling.revision != self.row.revision {
            return self.end_drill(Err("somebody asked for something else of the group".to_owned()));
        }
        let serving = self.servers.values().filter(|server| server.serves() && !server.drill).count() as u32;
        if let Some(ready) = drilling.ready.filter(|_| serving == self.row.spec.count) {
            self.end_drill(Ok(Recovered { ready }));
        }
    }

    /// Nobody waits for the group to be whole any more.
    pub(super) fn end_drill(&mut self, result: Result<Recovered, String>) {
        if let Some(drilling) = self.drilling.take() {
            // Whoever asked may have left.
            drilling.answer.send(Ok(result)).ok();
        }
    }
}

/// Kills servers as their own crash would, all at once.
async fn kill(shared: &Shared, servers: &[(ServerId, u64)]) -> Result<(), EngineError> {
    let Some(killing) = shared.engine.killing() else {
        return Err(EngineError::Unsupported { ability: "kill a server on purpose" });
    };
    let kills = servers.iter().map(|(server, generation)| killing.kill(server, *generation));
    futures::future::try_join_all(kills).await.map(drop)
}
