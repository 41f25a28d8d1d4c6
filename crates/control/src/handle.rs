//! [`Control`]: the handle that the daemon holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use jiff::Timestamp;
use kiln_api::{
    Event,
    status::{GroupStatus, Status},
};
use kiln_engine::Engine;
use kiln_model::{
    ConfigDigest, Fleet, FrozenConfig, Group, GroupName, ImageDigest, ServerId,
    config::SecretHash,
    fleet::{EvidencePolicy, OnSourceChange, Windows},
    plan::{GroupDesired, GroupObserved},
};
use tokio::{
    sync::{Mutex, Semaphore, broadcast, mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::SecretStore,
    db::{Batch, Db, DbError, Loaded, PastRelease, Record},
    failpoint::{FailPoint, NeverFails},
    group::{self, Data, GroupTask, Mailboxes, Message, Wish},
    live::Live,
    logs::Logs,
    moves::Move,
    observer::{self, Snapshot},
    recovery::Drills,
    releases::Releases,
    routes,
    shared::{Clock, Shared},
    traces::Sink,
    traffic::{Route, Traffic},
    volumes::{self, Book},
    waker,
};

/// Events kept for a reader that is slow.
const EVENTS: usize = 16_384;
/// Tables sent by one run of the daemon: versions of the next run begin this much higher.
const VERSIONS_PER_RUN: i64 = 1 << 32;

pub(crate) type Groups = Arc<Mutex<Mailboxes>>;

/// Where control keeps its state, and what it takes from outside.
#[derive(Clone)]
pub struct ControlOptions {
    /// The state directory; control keeps `kiln.db` in it.
    pub state_dir: PathBuf,
    /// Tells the time.
    pub clock: Clock,
    /// Where a test kills the core.
    pub fail_point: Arc<dyn FailPoint>,
    /// The secrets that configurations name; without them no release that has some is launched.
    pub secrets: Option<Arc<SecretStore>>,
    /// The load of groups that follow it is read so often.
    pub load_every: Duration,
    /// Where spans go, if somebody wants traces.
    pub traces: Option<Sink>,
    /// Volumes are looked after so often. One is removed when it was due at 120 looks in a row.
    pub tend_every: Duration,
}

impl ControlOptions {
    /// The system's clock, and no fail points.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            clock: Arc::new(Timestamp::now),
            fail_point: Arc::new(NeverFails),
            secrets: None,
            traces: None,
            load_every: Duration::from_secs(5),
            tend_every: Duration::from_secs(5),
        }
    }
}

/// A fleet with its images resolved.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The fleet. Groups that it does not name are left as they are.
    pub fleet: Fleet,
    /// The image of every group of the fleet.
    pub images: BTreeMap<GroupName, ImageDigest>,
    /// The frozen configuration of every group of the fleet.
    pub configs: BTreeMap<GroupName, FrozenConfig>,
    /// Where the values of groups come from, sealed, for those that want to know of changes.
    pub origins: BTreeMap<GroupName, SecretHash>,
}

/// What is to be rebuilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RebuildTarget {
    /// Every server of a group, as its rollout policy says.
    Group(GroupName),
    /// One server.
    Server(ServerId),
}

/// How a group's latest change ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The group.
    pub group: GroupName,
    /// `Ok` if every server wanted is on the release wanted and ready.
    pub outcome: Result<(), Unsettled>,
    /// Where the group can be reached.
    pub endpoints: Vec<String>,
}

/// The release that a group runs, and what must be proven for it to be launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InService {
    /// The group.
    pub group: GroupName,
    /// The image.
    pub image: ImageDigest,
    /// The configuration.
    pub config: FrozenConfig,
    /// The suite that must have passed.
    pub suite: kiln_model::SuiteDigest,
    /// How old its report may be.
    pub evidence: EvidencePolicy,
}

/// A group with sources that are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced {
    /// The group.
    pub group: GroupName,
    /// Counts what was asked of it.
    pub revision: u64,
    /// Its sources ([`crate::config::Origins`]), sealed.
    pub origins: SecretHash,
    /// The configuration that somebody took it back from.
    pub declined: Option<ConfigDigest>,
    /// What a change does.
    pub policy: OnSourceChange,
    /// When it may do that.
    pub windows: Windows,
    /// How old its reports may be.
    pub evidence: EvidencePolicy,
    /// The image wanted.
    pub image: ImageDigest,
    /// The configuration wanted.
    pub config: FrozenConfig,
}

/// Why a group is not as it was asked to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsettled {
    /// The evidence does not suffice.
    #[error("{reason}")]
    Refused {
        /// [`kiln_model::trust::Refusal::code`].
        code: String,
        /// Whose fault, what happened, what to try.
        reason: String,
    },
    /// The rollout failed, and was taken back if the policy says so.
    #[error("{reason}")]
    Failed {
        /// What happened.
        reason: String,
    },
    /// Somebody asked for something else before it was done.
    #[error("a newer change took the place of this one")]
    Superseded,
}

/// Why control could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No such group.
    #[error("there is no group `{0}`")]
    NoGroup(GroupName),
    /// No such server.
    #[error("there is no server `{0}`")]
    NoServer(ServerId),
    /// The group never had another release.
    #[error("group `{0}` has no earlier release to go back to")]
    NoEarlierRelease(GroupName),
    /// The fleet has a group whose image nobody resolved.
    #[error("no image was chosen for group `{0}`")]
    NoImage(GroupName),
    /// There is no snapshot of the time of a release.
    #[error("volume `{volume}` has no snapshot of the time before release {} was left", release.short())]
    NoDataOf {
        /// The volume.
        volume: kiln_model::VolumeId,
        /// The release.
        release: kiln_model::ReleaseId,
    },
    /// Nothing of the group may be destroyed on purpose now.
    #[error("no server of group `{group}` is destroyed on purpose now: {why}")]
    NoDrill {
        /// The group.
        group: GroupName,
        /// Why not.
        why: kiln_model::plan::NoDrill,
    },
    /// The fleet does not say where to find a shared directory that the image needs.
    #[error("group `{group}` does not say where to find the shared directory `{shared}` of its image")]
    NoShared {
        /// The group.
        group: GroupName,
        /// The shared directory.
        shared: kiln_model::SharedName,
    },
    /// The fleet says no size for a volume that the image needs.
    #[error("group `{group}` says no size for the volume `{volume}` of its image")]
    NoVolume {
        /// The group.
        group: GroupName,
        /// The volume.
        volume: kiln_model::VolumeName,
    },
    /// The fleet has a group whose configuration nobody froze.
    #[error("no configuration was frozen for group `{0}`")]
    NoConfig(GroupName),
    /// Somebody asked for the group again while it was being taken away.
    #[error("group `{0}` was asked for again while it was being taken away")]
    Superseded(GroupName),
    /// The images or their evidence.
    #[error("could not look up the images")]
    Releases(#[from] crate::releases::ReleasesError),
    /// The state file.
    #[error("could not keep the state")]
    Db(#[from] DbError),
    /// The engine did not say what runs, so nothing can be taken over safely.
    #[error("could not see which servers run")]
    Engine(#[from] kiln_engine::EngineError),
    /// Control was shut down.
    #[error("the daemon is shutting down")]
    Closed,
}

/// The state of all groups and the tasks that keep it. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    pub(crate) shared: Arc<Shared>,
    groups: Groups,
    /// Held by changes, so that two of them are never mixed.
    changes: Arc<Mutex<()>>,
}

impl Control {
    /// Opens the state, finds the servers that run, and starts one reconciler for each group.
    pub async fn open(
        options: ControlOptions,
        engine: Arc<dyn Engine>,
        releases: Arc<dyn Releases>,
        traffic: Arc<dyn Traffic>,
    ) -> Result<Self, ControlError> {
        let path = options.state_dir.join("kiln.db");
        let opened = tokio::task::spawn_blocking(move || Db::open(&path)).await.map_err(|_| ControlError::Closed)?;
        let (db, mut loaded) = opened?;
        let (events, end) = (broadcast::channel(EVENTS).0, CancellationToken::new());
        let version = loaded.counters.get("routes").copied().unwrap_or(0) + VERSIONS_PER_RUN;
        let parts = former_routes(&loaded);
        let routes = routes::start(traffic.clone(), events.clone(), version as u64, parts, end.clone());
        let hints = engine.hints();
        let arrived = std::mem::take(&mut loaded.arrived);
        let logs = Logs::new(db.clone(), events.clone(), options.clock.clone(), arrived, end.clone());
        let live = Live::new(db.clone(), options.clock.clone(), std::mem::take(&mut loaded.live));
        let shared = Arc::new(Shared {
            db,
            live: Arc::new(live),
            book: Book::new(std::mem::take(&mut loaded.volumes)),
            drills: Drills::new(std::mem::take(&mut loaded.drills)),
            starts: Arc::new(Semaphore::new(engine.starts_at_once())),
            warming: Semaphore::new((engine.starts_at_once() / 4).max(1)),
            logs,
            engine,
            releases,
            secrets: options.secrets,
            traffic,
            routes,
            events,
            traces: options.traces,
            clock: options.clock,
            load_every: options.load_every,
            tend_every: options.tend_every,
            fail: options.fail_point,
            end,
            next_intention: AtomicI64::new(loaded.next_intention),
        });
        let control = Self { shared, groups: Groups::default(), changes: Arc::default() };
        control.take_over(loaded, version).await?;
        let (shared, groups) = (control.shared.clone(), control.groups.clone());
        control.shared.spawn(observer::run(shared, groups, hints));
        control.shared.spawn(waker::run(control.shared.clone(), control.groups.clone()));
        control.shared.spawn(volumes::keep_tending(control.clone()));
        Ok(control)
    }

    /// Matches what was on disk with what runs, and starts the groups.
    async fn take_over(&self, mut loaded: Loaded, version: i64) -> Result<(), ControlError> {
        let snapshot = observer::look(&self.shared).await?;
        let now = self.shared.now();
        let mut batch = Batch::default();
        batch.counter("routes", version);
        for open in &loaded.open {
            // What became of it is seen from the servers; the planner orders again what is still missing.
            let text = format!("the daemon ended before `{}` of {} did", open.action, open.server);
            batch.audit(now, Some(&open.group), Some(&open.server), text);
            batch.close(open.id, now, "interrupted");
        }
        self.destroy_strays(&loaded, &snapshot, &mut batch);
        self.shared.db.write(Arc::new(batch)).await?;
        let mut releases = loaded.releases;
        // Groups are taken over beside each other: their evidence is looked at on other threads.
        let mut adopting = JoinSet::new();
        for row in loaded.groups {
            let mine = releases.remove(&row.name).unwrap_or_default();
            let servers = loaded.servers.remove(&row.name).unwrap_or_default();
            let seen = snapshot.of(&row.name);
            let mut task = GroupTask::new(self.shared.clone(), row, mine);
            adopting.spawn(async move {
                task.adopt(servers, &seen.servers).await;
                task
            });
        }
        while let Some(adopted) = adopting.join_next().await {
            self.run_group(adopted.map_err(|_| ControlError::Closed)?).await;
        }
        Ok(())
    }

    /// Destroys what runs and nobody knows: test servers of an earlier daemon, and servers whose group is gone.
    fn destroy_strays(&self, loaded: &Loaded, snapshot: &Snapshot, batch: &mut Batch) {
        let known: BTreeSet<&ServerId> = loaded.servers.values().flatten().map(|server| &server.id).collect();
        for seen in snapshot.all().filter(|seen| !known.contains(&seen.server)).cloned() {
            let text = "found at start without being wanted, and destroyed".to_owned();
            batch.audit(self.shared.now(), seen.group.as_ref(), Some(&seen.server), text);
            let shared = self.shared.clone();
            self.shared.spawn(async move { group::destroy(&shared, &seen.server, seen.generation).await });
        }
    }

    async fn run_group(&self, task: GroupTask) {
        let name = task.name().clone();
        let mailbox = task.mailbox();
        self.groups.lock().await.insert(name.clone(), mailbox.clone());
        let groups = self.groups.clone();
        self.shared.spawn(async move {
            task.run().await;
            let mut groups = groups.lock().await;
            if groups.get(&name).is_some_and(|current| current.same_channel(&mailbox)) {
                groups.remove(&name);
            }
        });
    }

    /// Records what is wanted and wakes the groups. Returns when that is on disk; [`Self::settle`] waits for the end.
    /// A later change takes the place of an earlier one that is under way.
    pub async fn apply(&self, wanted: Wanted) -> Result<Vec<GroupName>, ControlError> {
        let wishes = self.wishes(wanted).await?;
        let _change = self.changes.lock().await;
        for (name, wish) in &wishes {
            self.want(name, wish).await?;
        }
        Ok(wishes.into_keys().collect())
    }

    async fn want(&self, name: &GroupName, wish: &Wish) -> Result<(), ControlError> {
        if let Some(mailbox) = self.mailbox(name).await {
            let (done, written) = oneshot::channel();
            let sent = mailbox.send(Message::Want(Box::new(wish.clone()), done)).is_ok();
            if sent && written.await.is_ok() {
                return Ok(());
            }
            if self.shared.end.is_cancelled() {
                return Err(ControlError::Closed);
            }
            // The group was just taken away: it begins anew.
        }
        let row = wish.first_row(name.clone());
        let task = GroupTask::new(self.shared.clone(), row, vec![wish.release.clone()]);
        let mut batch = Batch::default();
        task.write_first(&mut batch);
        self.shared.db.write(Arc::new(batch)).await?;
        self.run_group(task).await;
        Ok(())
    }

    /// What [`Self::apply`] would do and why, as [`Event::Step`]s; nothing is changed.
    pub async fn plan_only(&self, wanted: Wanted) -> Result<Vec<Event>, ControlError> {
        let mut steps = Vec::new();
        for (name, wish) in self.wishes(wanted).await? {
            steps.extend(match self.mailbox(&name).await {
                Some(mailbox) => {
                    ask(&self.shared, &mailbox, |answer| Message::Forecast(Box::new(wish), answer)).await?
                }
                None => self.forecast_new(&name, &wish).await,
            });
        }
        Ok(steps)
    }

    async fn forecast_new(&self, name: &GroupName, wish: &Wish) -> Vec<Event> {
        let desired = GroupDesired {
            group: name.clone(),
            revision: 1,
            release: wish.release.id(),
            count: wish.spec.count,
            policy: wish.spec.rollout.clone(),
            slots: !wish.spec.volumes.is_empty(),
            unmade: BTreeSet::new(),
            healing: wish.spec.healing,
            spares: wish.spec.spares,
            spare_age: group::spare_age(&wish.spec, None),
            admissions: BTreeMap::new(),
        };
        group::forecast(&self.shared, name, wish, desired, &GroupObserved::default(), None).await
    }

    /// Waits until each group's latest change is done, failed, refused or superseded. All groups if none is named.
    pub async fn settle(&self, groups: &[GroupName]) -> Result<Vec<Settled>, ControlError> {
        let asked = self.mailboxes(groups).await?;
        let answers = asked.iter().map(|(_, mailbox)| ask(&self.shared, mailbox, Message::Settle));
        futures::future::try_join_all(answers).await
    }

    /// What runs.
    pub async fn status(&self) -> Result<Status, ControlError> {
        let asked = self.mailboxes(&[]).await?;
        let answers = asked.iter().map(|(_, mailbox)| ask(&self.shared, mailbox, Message::Status));
        let groups = futures::future::join_all(answers).await.into_iter().flatten().collect();
        Ok(Status { groups, drills: self.own_drills() })
    }

    /// What runs of one group.
    pub async fn group_status(&self, group: &GroupName) -> Result<GroupStatus, ControlError> {
        let mailbox = self.mailbox(group).await.ok_or_else(|| ControlError::NoGroup(group.clone()))?;
        ask(&self.shared, &mailbox, Message::Status).await
    }

    /// Starts moving a group back to the release it had before.
    pub async fn rollback(&self, group: &GroupName, data: Data) -> Result<(), ControlError> {
        let _change = self.changes.lock().await;
        let mailbox = self.mailbox(group).await.ok_or_else(|| ControlError::NoGroup(group.clone()))?;
        ask(&self.shared, &mailbox, |answer| Message::Rollback(data, answer)).await?
    }

    /// Starts replacing the server of a slot whose volume is to be put back.
    pub async fn put_back(&self, group: &GroupName, slot: u32) -> Result<(), ControlError> {
        let _change = self.changes.lock().await;
        let mailbox = self.mailbox(group).await.ok_or_else(|| ControlError::NoGroup(group.clone()))?;
        ask(&self.shared, &mailbox, |answer| Message::PutBack(slot, answer)).await?
    }

    /// Has every group look at its evidence again, now.
    pub async fn look_again(&self) -> Result<(), ControlError> {
        for (_, mailbox) in self.mailboxes(&[]).await? {
            // A group that is just ending has nothing to look at.
            mailbox.send(Message::LookAgain).ok();
        }
        Ok(())
    }

    /// Lets a group heal at once, whatever went down lately. Returns how many failures count no more.
    pub async fn heal(&self, group: &GroupName) -> Result<u32, ControlError> {
        let mailbox = self.mailbox(group).await.ok_or_else(|| ControlError::NoGroup(group.clone()))?;
        ask(&self.shared, &mailbox, Message::Heal).await
    }

    /// Starts replacing servers by new ones of the same release. Returns the group.
    pub async fn rebuild(&self, target: &RebuildTarget) -> Result<Vec<GroupName>, ControlError> {
        let _change = self.changes.lock().await;
        match target {
            RebuildTarget::Group(group) => {
                let mailbox = self.mailbox(group).await.ok_or_else(|| ControlError::NoGroup(group.clone()))?;
                ask(&self.shared, &mailbox, |answer| Message::Rebuild(None, answer)).await??;
                Ok(vec![group.clone()])
            }
            RebuildTarget::Server(server) => {
                let group = self.of_server(server, |answer| Message::Rebuild(Some(server.clone()), answer)).await?;
                Ok(vec![group])
            }
        }
    }

    /// Drains, stops and destroys every server of these groups, or of all, and forgets the groups. Returns when they are
    /// gone.
    pub async fn down(&self, groups: &[GroupName]) -> Result<(), ControlError> {
        let asked = {
            let _change = self.changes.lock().await;
            self.mailboxes(groups).await?
        };
        let answers = asked.iter().map(|(_, mailbox)| ask(&self.shared, mailbox, Message::Remove));
        futures::future::try_join_all(answers).await?.into_iter().collect()
    }

    /// Records that somebody ran a command inside a server.
    pub async fn touch(&self, server: &ServerId, command: &[String]) -> Result<(), ControlError> {
        let message = |answer| Message::Touch(server.clone(), command.to_vec(), answer);
        self.of_server(server, message).await.map(drop)
    }

    /// Takes an entry of something that concerns no group into the audit log. Returns when it is on disk.
    pub async fn record(
        &self,
        action: &'static str,
        inputs: serde_json::Value,
        reason: &str,
    ) -> Result<(), ControlError> {
        let (at, reason) = (self.shared.now(), reason.to_owned());
        let mut batch = Batch::default();
        batch.record(Record { at, action, group: None, server: None, inputs, reason });
        Ok(self.shared.db.write(Arc::new(batch)).await?)
    }

    /// Writes a move of a channel, which is to be made when this returns, with its entry in the audit log.
    pub async fn move_channel(&self, moved: Move) -> Result<(), ControlError> {
        let mut batch = Batch::default();
        batch.record(moved.record());
        batch.moved(moved);
        Ok(self.shared.db.write(Arc::new(batch)).await?)
    }

    /// What happens, as it happens, to all groups.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// The images that must be kept: those of running servers, of wanted releases, and of releases to go back to.
    pub async fn images_in_use(&self) -> Result<Vec<ImageDigest>, ControlError> {
        let mut images: Vec<ImageDigest> = self.kept().await?.into_iter().flat_map(|kept| kept.images).collect();
        images.sort();
        images.dedup();
        Ok(images)
    }

    /// The secrets that must be kept: those of the configurations of such releases, and the sealed sources of groups.
    pub async fn secrets_in_use(&self) -> Result<BTreeSet<SecretHash>, ControlError> {
        Ok(self.kept().await?.into_iter().flat_map(|kept| kept.secrets).collect())
    }

    async fn kept(&self) -> Result<Vec<group::Kept>, ControlError> {
        let asked = self.mailboxes(&[]).await?;
        let answers = asked.iter().map(|(_, mailbox)| ask(&self.shared, mailbox, Message::Kept));
        futures::future::try_join_all(answers).await
    }

    /// The release of each group that has servers on it.
    pub async fn in_service(&self) -> Result<Vec<InService>, ControlError> {
        let asked = self.mailboxes(&[]).await?;
        let answers = asked.iter().map(|(_, mailbox)| ask(&self.shared, mailbox, Message::InService));
        Ok(futures::future::try_join_all(answers).await?.into_iter().flatten().collect())
    }

    /// The groups whose sources are watched.
    pub async fn sourced(&self, groups: &[GroupName]) -> Result<Vec<Sourced>, ControlError> {
        let asked = self.mailboxes(groups).await?;
        let answers = asked.iter().map(|(_, mailbox)| ask(&self.shared, mailbox, Message::Sourced));
        // A group that is just ending has none.
        Ok(futures::future::join_all(answers).await.into_iter().filter_map(|answer| answer.ok().flatten()).collect())
    }

    /// Starts moving a group to its image with another configuration, because a source changed. Answers false, and does
    /// nothing, if anything was asked of the group since `of` was seen.
    pub async fn propose(&self, of: &Sourced, config: FrozenConfig) -> Result<bool, ControlError> {
        let (releases, image) = (self.shared.releases.clone(), of.image);
        let looked = tokio::task::spawn_blocking(move || releases.image(&image)).await;
        let image = looked.map_err(|_| ControlError::Closed)??;
        let release = PastRelease { image: image.digest, config, suite: image.suite, settled: None };
        let _change = self.changes.lock().await;
        let mailbox = self.mailbox(&of.group).await.ok_or_else(|| ControlError::NoGroup(of.group.clone()))?;
        ask(&self.shared, &mailbox, |answer| Message::Propose(of.revision, Box::new(release), answer)).await
    }

    /// The release that a group is to have, and all that it had.
    pub(crate) async fn releases(
        &self,
        group: &GroupName,
    ) -> Result<(kiln_model::ReleaseId, Vec<PastRelease>), ControlError> {
        let mailbox = self.mailbox(group).await.ok_or_else(|| ControlError::NoGroup(group.clone()))?;
        ask(&self.shared, &mailbox, Message::Releases).await
    }

    /// The live values of groups.
    pub fn live(&self) -> &Arc<Live> {
        &self.shared.live
    }

    /// Tells everybody who listens.
    pub fn announce(&self, event: Event) {
        self.shared.emit(event);
    }

    /// Stops the reconcilers. No server is touched.
    pub async fn close(&self) {
        self.shared.end.cancel();
        self.groups.lock().await.clear();
    }

    /// Completes when the core has ended: by [`Self::close`], or at a fail point.
    pub async fn ended(&self) {
        self.shared.end.cancelled().await;
    }

    async fn wishes(&self, wanted: Wanted) -> Result<BTreeMap<GroupName, Wish>, ControlError> {
        let releases = self.shared.releases.clone();
        let looked = tokio::task::spawn_blocking(move || wishes(&*releases, wanted));
        looked.await.map_err(|_| ControlError::Closed)?
    }

    pub(crate) async fn mailbox(&self, group: &GroupName) -> Option<mpsc::UnboundedSender<Message>> {
        self.groups.lock().await.get(group).cloned()
    }

    pub(crate) async fn mailboxes(
        &self,
        groups: &[GroupName],
    ) -> Result<Vec<(GroupName, mpsc::UnboundedSender<Message>)>, ControlError> {
        let all = self.groups.lock().await;
        if groups.is_empty() {
            return Ok(all.iter().map(|(name, mailbox)| (name.clone(), mailbox.clone())).collect());
        }
        let find = |name: &GroupName| all.get(name).map(|mailbox| (name.clone(), mailbox.clone()));
        groups.iter().map(|name| find(name).ok_or_else(|| ControlError::NoGroup(name.clone()))).collect()
    }

    /// Asks every group until one knows the server.
    async fn of_server(
        &self,
        server: &ServerId,
        message: impl Fn(oneshot::Sender<Result<(), ControlError>>) -> Message,
    ) -> Result<GroupName, ControlError> {
        for (name, mailbox) in self.mailboxes(&[]).await? {
            match ask(&self.shared, &mailbox, &message).await? {
                Ok(()) => return Ok(name),
                Err(ControlError::NoServer(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ControlError::NoServer(server.clone()))
    }
}

/// Asks a group's task; fails when the task or the core ends first.
pub(crate) async fn ask<T>(
    shared: &Shared,
    mailbox: &mpsc::UnboundedSender<Message>,
    message: impl FnOnce(oneshot::Sender<T>) -> Message,
) -> Result<T, ControlError> {
    let (answer, answered) = oneshot::channel();
    mailbox.send(message(answer)).map_err(|_| ControlError::Closed)?;
    tokio::select! {
        biased;
        answer = answered => answer.map_err(|_| ControlError::Closed),
        () = shared.end.cancelled() => Err(ControlError::Closed),
    }
}

fn wishes(releases: &dyn Releases, wanted: Wanted) -> Result<BTreeMap<GroupName, Wish>, ControlError> {
    let Wanted { fleet, images, mut configs, mut origins } = wanted;
    let evidence: EvidencePolicy = fleet.evidence;
    let mut wish = |(name, spec): (GroupName, Group)| {
        let image = images.get(&name).ok_or_else(|| ControlError::NoImage(name.clone()))?;
        let image = releases.image(image)?;
        let mut needed = kiln_model::volume::needed(&image.manifest);
        if let Some(missing) = needed.find(|needed| !spec.volumes.contains_key(needed.name)) {
            return Err(ControlError::NoVolume { group: name, volume: missing.name.clone() });
        }
        if let Some(missing) = kiln_model::shared::needed(&image.manifest).find(|name| !spec.shared.contains_key(*name))
        {
            return Err(ControlError::NoShared { group: name, shared: missing.clone() });
        }
        let config = configs.remove(&name).ok_or_else(|| ControlError::NoConfig(name.clone()))?;
        let spec = crate::config::without_secrets(spec, &image.manifest);
        let release = PastRelease { image: image.digest, config, suite: image.suite, settled: None };
        let origins = origins.remove(&name);
        Ok((name, Wish { spec, evidence, release, origins }))
    };
    fleet.groups.into_iter().map(&mut wish).collect()
}

/// The table as the earlier daemon left it, so that no route is missing from the first one of this.
fn former_routes(loaded: &Loaded) -> BTreeMap<GroupName, Vec<Route>> {
    let routes = |row: &crate::db::GroupRow| {
        let servers = loaded.servers.get(&row.name).into_iter().flatten();
        group::routes_of(row, servers)
    };
    loaded.groups.iter().map(|row| (row.name.clone(), routes(row))).collect()
}
