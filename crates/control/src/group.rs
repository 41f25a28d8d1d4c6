//! The reconciler of one group: the only task that changes what is known of the group and its servers.
//!
//! Everything reaches it as a [`Message`]: wishes of people, snapshots of the engine, answers of actions under way. After
//! each it makes one pass: it asks the planner what to do next, changes its state accordingly, writes the state and an
//! intention for each action in one transaction, and only then begins the actions, all at once. Their answers come back as
//! messages and close the intentions in the transaction of the next pass. How far a server has come is seen again after a
//! crash, so a pass that changes nothing else does not wait for the disk: it is written with the next, or soon.

mod admission;
mod adopt;
mod begin;
mod finish;
mod heal;
mod lost;
mod recovery;
mod revoked;
mod scale;
mod shared;
mod slots;
mod spares;
mod trace;
mod view;
mod warm;
mod wish;

pub(crate) use begin::destroy;
pub(crate) use spares::age as spare_age;
pub(crate) use view::routes_of;
pub(crate) use wish::forecast;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kiln_api::{Event, status::GroupStatus};
use kiln_engine::{EngineError, Observed, StopOutcome, Times};
use kiln_model::{
    GroupName, ImageDigest, ReleaseId, ServerId, VerifiedRelease,
    config::SecretHash,
    fleet::Toll,
    plan::{self, Admission, HealingHeld, RolloutProgress},
};
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::Instant,
};

use crate::{
    db::{Batch, GroupRow, IntentionId, PastRelease, Record, ServerRow},
    handle::{ControlError, InService, Settled, Sourced},
    loss::AtStake,
    observer::Part,
    recovery::{Order, Rest, Target},
    releases::ImageInfo,
    routes::Routed,
    shared::Shared,
    traces::Story,
};

/// Without any event a group looks again after this time.
const TICK: Duration = Duration::from_secs(10);
/// What need not be on disk at once is there after this time.
const WRITE_SOON: Duration = Duration::from_millis(20);
/// A state file that cannot be written (a full disk) is tried again after this time.
const WRITE_AGAIN: Duration = Duration::from_millis(500);

/// What a group's task is told.
pub(crate) enum Message {
    /// Go to this release with this specification.
    Want(Box<Wish>, oneshot::Sender<()>),
    /// Go to this release because a source has changed, if nobody asked for anything since this revision.
    Propose(u64, Box<PastRelease>, oneshot::Sender<bool>),
    /// What that would do.
    Forecast(Box<Wish>, oneshot::Sender<Vec<Event>>),
    /// Go back to the release before, with the data of then or of now.
    Rollback(Data, oneshot::Sender<Result<(), ControlError>>),
    /// Put a slot's volume back to a snapshot that is asked for already: its server is replaced.
    PutBack(u32, oneshot::Sender<Result<(), ControlError>>),
    /// Heal what is missing at once, whatever went down lately; answered with the failures that are forgotten.
    Heal(oneshot::Sender<u32>),
    /// Servers that a drill would destroy now, as many as that, or as the fleet says.
    ChooseVictims(Option<Toll>, oneshot::Sender<Result<BTreeSet<ServerId>, ControlError>>),
    /// Destroy servers on purpose; answered when the group is whole again.
    Drill(Box<Order>, recovery::DrillAnswer),
    /// Servers could not be killed, and why.
    NotKilled(String),
    /// Nobody waits for the drill any more.
    EndDrill,
    /// The drills that are due, each with its reason.
    DrillsDue(oneshot::Sender<Vec<(Target, String)>>),
    /// Whether it is at rest, and what is expected of it when something is destroyed.
    Rest(oneshot::Sender<Rest>),
    /// Replace one server, or all.
    Rebuild(Option<ServerId>, oneshot::Sender<Result<(), ControlError>>),
    /// Somebody ran a command inside.
    Touch(ServerId, Vec<String>, oneshot::Sender<Result<(), ControlError>>),
    /// An image was revoked: look at the evidence again.
    LookAgain,
    /// Take the group away; answered when it is gone.
    Remove(oneshot::Sender<Result<(), ControlError>>),
    /// Answered when the latest change has come to its end.
    Settle(oneshot::Sender<Settled>),
    /// What runs.
    Status(oneshot::Sender<GroupStatus>),
    /// What it is allowed to lose, and who could lose something.
    AtStake(oneshot::Sender<AtStake>),
    /// The release it is on, and what admits it.
    InService(oneshot::Sender<Option<InService>>),
    /// Where its values come from.
    Sourced(oneshot::Sender<Option<Sourced>>),
    /// The release it is to have, and all that it had.
    Releases(oneshot::Sender<(ReleaseId, Vec<PastRelease>)>),
    /// What must stay.
    Kept(oneshot::Sender<Kept>),
    /// What the engine sees.
    Snapshot(Instant, Arc<Part>),
    /// What the gateway says of a group that follows its load.
    Load(scale::Reading),
    /// A request waits at the gateway for a server of it.
    Asked,
    /// What of its shared directories cannot be used.
    Shared(shared::Look),
    /// An action ended, or a new server became ready or did not.
    Ended(Ended),
}

/// Which data a rollback goes back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// That of now.
    Kept,
    /// That of the end of the release's time.
    OfThen,
}

/// What a group needs: images, and secrets of configurations.
pub(crate) struct Kept {
    pub images: Vec<ImageDigest>,
    pub secrets: BTreeSet<SecretHash>,
}

/// What is wanted of a group from now on.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub spec: kiln_model::Group,
    pub evidence: kiln_model::fleet::EvidencePolicy,
    pub release: PastRelease,
    pub origins: Option<kiln_model::config::SecretHash>,
}

/// A turn of starting: kept until the server is ready, or for as long as others can be made to wait for it.
pub(crate) struct Turn {
    /// Its services' time limits count from here.
    begun: Instant,
    _held: Option<OwnedSemaphorePermit>,
}

/// The end of something that was under way.
pub(crate) enum Ended {
    Launched {
        server: ServerId,
        intention: IntentionId,
        /// Whether its volumes were made ready for it, where it has some.
        prepared: bool,
        turn: Turn,
        /// When which step of the launch was done.
        times: Times,
        result: Result<Observed, EngineError>,
    },
    /// It is made up to the point where it needs its volumes.
    Staged {
        server: ServerId,
        intention: IntentionId,
        result: Result<Observed, EngineError>,
    },
    /// Ready so long after its launch, or the reason why not.
    Readiness {
        server: ServerId,
        result: Result<Duration, String>,
    },
    /// A server that served does not work any more.
    Unhealthy {
        server: ServerId,
        reason: String,
    },
    Routed {
        changes: Vec<(TrafficChange, ServerId, IntentionId)>,
        result: Routed,
    },
    Drained {
        server: ServerId,
        intention: IntentionId,
        cut: u64,
    },
    Stopped {
        server: ServerId,
        intention: IntentionId,
        result: Result<StopOutcome, EngineError>,
    },
    Destroyed {
        server: ServerId,
        intention: IntentionId,
    },
}

/// What a new table means to the servers it was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrafficChange {
    Add,
    Remove,
    Switch,
}

/// How a server stands in the gateway's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Out,
    In,
    Draining,
}

/// A server, as its group's task holds it.
struct Server {
    row: ServerRow,
    place: Place,
    /// The action under way.
    busy: Option<IntentionId>,
    /// Whether something of it still runs, as far as is known.
    running: bool,
    /// When the engine last confirmed it, or it was taken over from disk. A snapshot begun before says nothing about it.
    known_since: Instant,
    launched: Instant,
    /// What it is launched with, once its services may start; none for one that does not wait for that.
    waiting: Option<Box<slots::Waiting>>,
    /// The task that waits for it to become ready, and then watches whether it still works.
    watch: Option<tokio::task::AbortHandle>,
    /// When it was taken, if it was a spare. Its services may be older.
    taken_at: Option<Timestamp>,
    /// Whether a drill destroys it. Not on disk: what ends with the daemon counts for nothing anyhow.
    drill: bool,
}

/// A release and what the evidence said of it, last time it was looked at.
struct Admitted {
    result: Result<VerifiedRelease, Admission>,
    heal: bool,
    at: Instant,
    /// Warnings already said.
    said: Vec<String>,
}

/// The reconciler of one group.
pub(crate) struct GroupTask {
    shared: Arc<Shared>,
    row: GroupRow,
    releases: BTreeMap<ReleaseId, PastRelease>,
    servers: BTreeMap<ServerId, Server>,
    images: BTreeMap<ImageDigest, ImageInfo>,
    prepared: BTreeSet<ImageDigest>,
    admitted: BTreeMap<ReleaseId, Admitted>,
    blocked: Option<String>,
    /// What the engine saw last.
    seen: Arc<Part>,
    /// When there was no release to go back to from a revoked image.
    stranded: Option<Instant>,
    /// Why less is healed than is missing.
    held: Option<HealingHeld>,
    /// The drill under way.
    drilling: Option<recovery::Drilling>,
    /// Who reads its load, where it follows that.
    scaler: Option<scale::Scaler>,
    /// Who watches its shared directories, where some are on another machine.
    watcher: Option<shared::Watcher>,
    /// Why the last server of the release wanted failed.
    last_failure: Option<String>,
    /// When the servers of slots were asked to end, for whoever takes over.
    stopped: BTreeMap<u32, Instant>,
    /// What traces tell of it.
    story: Story,
    /// Tables on their way to the gateway.
    routing: u32,
    /// Whether the gateway must be told although no server comes or goes.
    routes_changed: bool,
    /// Changes that are not on disk yet.
    batch: Batch,
    /// When the oldest of them was put off.
    put_off: Option<Instant>,
    /// Who waits for them to be.
    acknowledge: Vec<Box<dyn FnOnce() + Send>>,
    settling: Vec<(u64, oneshot::Sender<Settled>)>,
    /// Who asked for the status.
    asked: Vec<oneshot::Sender<GroupStatus>>,
    removed: Vec<oneshot::Sender<Result<(), ControlError>>>,
    mailbox: mpsc::UnboundedSender<Message>,
    inbox: mpsc::UnboundedReceiver<Message>,
}

impl GroupTask {
    /// The task of a group, with what was on disk of it.
    pub fn new(shared: Arc<Shared>, row: GroupRow, releases: Vec<PastRelease>) -> Self {
        let (mailbox, inbox) = mpsc::unbounded_channel();
        Self {
            story: trace::story(&shared, &row),
            shared,
            row,
            releases: releases.into_iter().map(|release| (release.id(), release)).collect(),
            servers: BTreeMap::new(),
            images: BTreeMap::new(),
            prepared: BTreeSet::new(),
            admitted: BTreeMap::new(),
            blocked: None,
            seen: Arc::default(),
            stranded: None,
            held: None,
            drilling: None,
            scaler: None,
            watcher: None,
            last_failure: None,
            stopped: BTreeMap::new(),
            routing: 0,
            routes_changed: false,
            batch: Batch::default(),
            put_off: None,
            acknowledge: Vec::new(),
            settling: Vec::new(),
            asked: Vec::new(),
            removed: Vec::new(),
            mailbox,
            inbox,
        }
    }

    /// The group's name.
    pub fn name(&self) -> &GroupName {
        &self.row.name
    }

    /// What must be on disk before the task of a new group runs.
    pub fn write_first(&self, batch: &mut Batch) {
        batch.group(&self.row);
        self.releases.values().for_each(|release| batch.release(&self.row.name, release));
        batch.record(wish::wish_record(&self.row, &self.releases, self.shared.now()));
    }

    /// Where its messages go.
    pub fn mailbox(&self) -> mpsc::UnboundedSender<Message> {
        self.mailbox.clone()
    }

    /// Runs until the group was removed and is gone.
    pub async fn run(mut self) {
        self.shared.logs.policy(&self.row.name, self.row.spec.logs.as_ref());
        let mut live = self.shared.live.watch(&self.row.name);
        loop {
            let wake = self.pass().await;
            if self.is_gone() {
                return self.leave().await;
            }
            let mut messages = Vec::new();
            tokio::select! {
                count = self.inbox.recv_many(&mut messages, usize::MAX) => if count == 0 { return },
                () = tokio::time::sleep(wake) => self.tick(),
                // The next pass looks for servers that began with other values.
                Ok(()) = live.changed() => {}
            }
            messages.into_iter().for_each(|message| self.take(message));
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Want(wish, done) => {
                self.want(*wish);
                self.once_written(done, ());
            }
            Message::Propose(revision, release, answer) => {
                let taken = self.propose(revision, *release);
                self.once_written(answer, taken);
            }
            Message::Forecast(wish, answer) => self.forecast(*wish, answer),
            Message::PutBack(slot, answer) => {
                let result = self.put_back(slot);
                self.once_written(answer, result);
            }
            Message::Rollback(data, answer) => {
                let result = self.rollback(data);
                self.once_written(answer, result);
            }
            Message::Heal(answer) => {
                let forgotten = self.heal();
                self.once_written(answer, forgotten);
            }
            Message::ChooseVictims(toll, answer) => drop(answer.send(self.choose_victims(toll))),
            Message::Drill(order, answer) => self.drill(*order, answer),
            Message::NotKilled(why) => self.end_drill(Err(why)),
            Message::EndDrill => self.end_drill(Err("nobody waited any more".to_owned())),
            Message::DrillsDue(answer) => drop(answer.send(self.drills_due())),
            Message::Rest(answer) => drop(answer.send(self.rest())),
            Message::Rebuild(server, answer) => {
                let result = self.rebuild(server.as_ref());
                self.once_written(answer, result);
            }
            Message::Touch(server, command, answer) => {
                let result = self.touch(&server, &command);
                self.once_written(answer, result);
            }
            Message::LookAgain => self.admitted.clear(),
            Message::Remove(gone) => self.remove(gone),
            Message::Settle(answer) => self.settling.push((self.row.revision, answer)),
            Message::Status(answer) => self.asked.push(answer),
            Message::AtStake(answer) => drop(answer.send(self.at_stake())),
            Message::InService(answer) => drop(answer.send(self.in_service())),
            Message::Sourced(answer) => drop(answer.send(self.sourced())),
            Message::Releases(answer) => {
                drop(answer.send((self.row.release, self.releases.values().cloned().collect())));
            }
            Message::Kept(answer) => drop(answer.send(self.kept())),
            Message::Snapshot(begun, part) => self.see(begun, part),
            Message::Load(reading) => self.take_load(reading),
            Message::Asked => self.asked_for(),
            Message::Shared(look) => self.take_look(look),
            Message::Ended(ended) => self.ended(ended),
        }
    }

    /// Answers once the changes of the next pass are on disk: what is acknowledged is not forgotten.
    fn once_written<T: Send + 'static>(&mut self, answer: oneshot::Sender<T>, result: T) {
        self.acknowledge.push(Box::new(move || drop(answer.send(result))));
    }

    /// Plans, writes, begins. Returns how long to sleep if nothing happens.
    async fn pass(&mut self) -> Duration {
        self.look_at_evidence().await;
        if self.leave_revoked().await {
            self.look_at_evidence().await;
        }
        // Now it is known what is refused.
        let asked = std::mem::take(&mut self.asked);
        asked.into_iter().for_each(|answer| drop(answer.send(self.status())));
        let now = self.shared.now();
        self.look_at_volumes(now);
        self.renew_by_age(now);
        self.follow_load();
        self.watch_shared();
        let next = plan::plan(&self.desired(), &self.observed(), self.row.progress.as_ref(), now);
        self.note_progress(next.rollout);
        self.note_held(next.held);
        self.trace_change(now);
        let works = self.begin(&next.steps, now);
        let names: Vec<String> = works.iter().map(begin::Work::describe).collect();
        for name in &names {
            self.shared.fail_point(|| format!("{name}: before journal")).await;
        }
        let later = self.puts_off(&names);
        if later.is_none() {
            self.write().await;
        }
        for name in &names {
            self.shared.fail_point(|| format!("{name}: after journal")).await;
        }
        self.acknowledge.drain(..).for_each(|answer| answer());
        works.into_iter().for_each(|work| self.start(work));
        self.trace_rest();
        self.look_at_drill();
        self.answer_settled();
        let wake = next.wake_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        wake.unwrap_or(TICK).min(later.unwrap_or(TICK)).clamp(Duration::from_millis(1), TICK)
    }

    /// For how long the changes of this pass need not be on disk; none if they must be now.
    fn puts_off(&mut self, works: &[String]) -> Option<Duration> {
        let may_wait = works.is_empty() && self.acknowledge.is_empty() && self.batch.may_wait();
        if !may_wait || self.batch.is_empty() {
            return None;
        }
        let since = *self.put_off.get_or_insert_with(Instant::now);
        WRITE_SOON.checked_sub(since.elapsed())
    }

    /// Puts what changed on disk. A disk that is full is waited for: nothing is begun that is not written.
    async fn write(&mut self) {
        self.put_off = None;
        let batch = Arc::new(std::mem::take(&mut self.batch));
        let mut said = false;
        while let Err(error) = self.shared.db.write(batch.clone()).await {
            if !said {
                self.warn(format!("group `{}`: {}", self.row.name, kiln_api::error::chain(&error)));
                said = true;
            }
            tokio::time::sleep(WRITE_AGAIN).await;
        }
    }

    /// Time passed without an event.
    fn tick(&mut self) {
        // A port may have become free: it is tried again.
        self.routes_changed |= self.blocked.take().is_some();
    }

    fn note_progress(&mut self, next: RolloutProgress) {
        if self.row.progress.as_ref() == Some(&next) {
            return;
        }
        let before = self.row.progress.replace(next);
        if self.progress_state() == Some(&plan::RolloutState::Done) {
            self.note_arrival(before.as_ref());
        }
        self.batch.group(&self.row);
        let changed = before.as_ref().map(|p| (p.revision, &p.state, p.best))
            != self.row.progress.as_ref().map(|p| (p.revision, &p.state, p.best));
        if changed {
            let event = self.rollout_event();
            self.shared.emit(event);
        }
    }

    /// Remembers when the whole group arrived on a release, so that a rollback knows the one before.
    fn note_arrival(&mut self, before: Option<&RolloutProgress>) {
        let again = before.is_some_and(|p| {
            Some(p.revision) == self.row.progress.as_ref().map(|n| n.revision) && p.state == plan::RolloutState::Done
        });
        let latest = self.releases.values().filter_map(|release| release.settled).max().unwrap_or(0);
        let Some(release) = self.releases.get_mut(&self.row.release).filter(|_| !again) else { return };
        release.settled = Some(latest + 1);
        self.batch.release(&self.row.name, release);
    }

    fn progress_state(&self) -> Option<&plan::RolloutState> {
        self.row.progress.as_ref().map(|progress| &progress.state)
    }

    fn answer_settled(&mut self) {
        let over = self.row.progress.as_ref().is_some_and(|p| p.revision == self.row.revision && p.is_over());
        // What has failed is over, also while the gateway does not take the table.
        let failed = matches!(self.progress_state(), Some(plan::RolloutState::Failed { .. }));
        let over = over && (self.routing == 0 || failed);
        let revision = self.row.revision;
        let waiting = std::mem::take(&mut self.settling);
        let (ready, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(asked, _)| *asked != revision || over);
        self.settling = rest;
        for (asked, answer) in ready {
            // Whoever asked may have left.
            answer.send(self.settled(asked)).ok();
        }
    }

    fn is_gone(&self) -> bool {
        self.row.removing && self.servers.is_empty()
    }

    /// Forgets the group.
    async fn leave(mut self) {
        let told = self.shared.routes.update(self.row.name.clone(), Vec::new());
        // A gateway that is away is told by the next table; nothing waits behind these routes any more.
        tokio::time::timeout(TICK, told).await.ok();
        self.batch.forget_group(&self.row.name);
        self.orphan_all("its group was taken away");
        self.shared.live.forget(&self.row.name);
        self.shared.drills.forget(&self.row.name);
        self.shared.logs.forget_group(&self.row.name);
        self.record("removed", None, json!({}), "its last server is gone".to_owned());
        self.write().await;
        for gone in self.removed.drain(..) {
            // Whoever asked may have left.
            gone.send(Ok(())).ok();
        }
    }

    /// Takes an entry of the audit log into the next batch.
    fn record(&mut self, action: &'static str, server: Option<&ServerId>, inputs: serde_json::Value, reason: String) {
        let (at, group) = (self.shared.now(), Some(self.row.name.clone()));
        self.batch.record(Record { at, action, group, server: server.cloned(), inputs, reason });
    }

    fn warn(&self, message: String) {
        tracing::warn!(group = %self.row.name, "{message}");
        self.shared.emit(Event::Warning { message });
    }
}

/// A group's name and where its messages go.
pub(crate) type Mailboxes = BTreeMap<GroupName, mpsc::UnboundedSender<Message>>;
