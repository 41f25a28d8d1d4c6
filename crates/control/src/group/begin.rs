//! From planned steps to actions under way: first what is known changes, then, once that is on disk, the work begins.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use kiln_api::Event;
use kiln_engine::{EngineError, LaunchSpec, Observed, Times};
use kiln_model::{
    GroupName, ReleaseId, ServerId, ServerState, VerifiedRelease,
    config::Secrets,
    plan::{Action, PlannedAction},
};
use rand::RngExt as _;
use serde_json::json;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{Ended, GroupTask, Message, Place, Server, TrafficChange, Turn, lost::Lost, slots, wish::step_event};
use crate::{
    bound,
    db::{Batch, Intention, IntentionId, Record, ServerRow},
    liveness,
    logs::HandOver,
    readiness,
    routes::Routed,
    shared::Shared,
    traffic::Route,
    volumes::{Farewell, bid_farewell},
};

/// A server that takes longer to become ready lets others begin meanwhile.
const LONGEST_TURN: Duration = Duration::from_secs(1);

/// What is left to be done outside once a pass is on disk.
pub(super) enum Work {
    Launch {
        release: Box<VerifiedRelease>,
        spec: Box<LaunchSpec>,
        prepare: bool,
        /// What is done to its volumes first.
        volumes: slots::Before,
        intention: IntentionId,
    },
    /// Make a server up to the point where its services start.
    Stage {
        release: Box<VerifiedRelease>,
        spec: Box<LaunchSpec>,
        prepare: bool,
        /// What whoever has them is asked to do then.
        farewells: Vec<Farewell>,
        intention: IntentionId,
    },
    /// Make a server whose services are ready, and hold it.
    Warm {
        release: Box<VerifiedRelease>,
        spec: Box<LaunchSpec>,
        prepare: bool,
        intention: IntentionId,
    },
    /// A new table for the gateway, on behalf of these.
    Route {
        table: Vec<Route>,
        changes: Vec<(TrafficChange, ServerId, IntentionId)>,
        drains: Vec<Drain>,
    },
    Stop {
        server: ServerId,
        generation: u64,
        limit: Duration,
        lost: Lost,
        intention: IntentionId,
    },
    Destroy {
        group: GroupName,
        server: ServerId,
        generation: u64,
        lost: Lost,
        intention: IntentionId,
    },
}

/// A server that is drained once the gateway has the table that says so.
pub(super) struct Drain {
    server: ServerId,
    limit: Duration,
    intention: IntentionId,
}

/// Traffic steps of one pass, which go out in one table.
#[derive(Default)]
struct TrafficSteps {
    changes: Vec<(TrafficChange, ServerId, IntentionId)>,
    drains: Vec<Drain>,
}

impl Work {
    /// For messages.
    pub fn describe(&self) -> String {
        match self {
            Self::Launch { spec, .. } => format!("launch {}", spec.server),
            Self::Stage { spec, .. } => format!("stage {}", spec.server),
            Self::Warm { spec, .. } => format!("warm {}", spec.server),
            Self::Route { changes, drains, .. } => {
                let changes = changes.iter().map(|(change, server, _)| format!("{change:?} {server}"));
                let drains = drains.iter().map(|drain| format!("Drain {}", drain.server));
                format!("route ({})", changes.chain(drains).collect::<Vec<_>>().join(", "))
            }
            Self::Stop { server, .. } => format!("stop {server}"),
            Self::Destroy { server, .. } => format!("destroy {server}"),
        }
    }
}

impl GroupTask {
    /// Changes what is known of the servers as the steps say, and returns the work that is left.
    pub(super) fn begin(&mut self, steps: &[PlannedAction], now: Timestamp) -> Vec<Work> {
        let mut works = Vec::new();
        let mut traffic = TrafficSteps::default();
        for step in steps {
            self.shared.emit(step_event(&self.row.name, step.clone()));
            match &step.action {
                Action::Launch { release, servers } => {
                    works.extend((0..*servers).filter_map(|_| self.launch(*release, &step.why, now)));
                }
                Action::LaunchIn { release, slot } => works.extend(self.launch_in(*release, *slot, &step.why, now)),
                Action::Stage { release, slot } => works.extend(self.stage(*release, *slot, &step.why, now)),
                Action::Spare { release, servers } => {
                    works.extend((0..*servers).filter_map(|_| self.spare(*release, &step.why, now)));
                }
                Action::Take { server } => works.extend(self.take_spare(server, &step.why, now)),
                Action::HandOver { server } => works.extend(self.hand_over(server, &step.why, now)),
                Action::Stop { server } => works.push(self.stop(server, &step.why, now)),
                Action::Destroy { server } => works.push(self.destroy(server, &step.why, now)),
                Action::MarkRolloutDone | Action::MarkRolloutFailed | Action::Revert { .. } => {
                    self.record(step.action.word(), None, json!({"release": self.row.release}), step.why.clone());
                }
                other => self.traffic_step(other, &step.why, now, &mut traffic),
            }
        }
        works.extend(self.route(traffic));
        works
    }

    fn launch(&mut self, release: ReleaseId, why: &str, now: Timestamp) -> Option<Work> {
        let (verified, spec) = self.new_spec(release, None)?;
        self.servers.insert(spec.server.clone(), self.new_server(&spec, release, None, now));
        let intention = self.intend(&spec.server, "launch", why, now);
        let prepare = self.prepared.insert(verified.release().image);
        let volumes = slots::Before::default();
        Some(Work::Launch { release: Box::new(verified), spec: Box::new(spec), prepare, volumes, intention })
    }

    /// What a new server of a release is launched with, without volumes.
    pub(super) fn new_spec(&self, release: ReleaseId, slot: Option<u32>) -> Option<(VerifiedRelease, LaunchSpec)> {
        let verified = self.admitted.get(&release)?.result.as_ref().ok()?.clone();
        let image = self.images.get(&verified.release().image)?.clone();
        let shared = self.shared_by(&image.manifest);
        let spec = LaunchSpec {
            server: self.new_id(),
            generation: 1,
            group: Some(self.row.name.clone()),
            slot,
            manifest: image.manifest,
            limits: self.row.spec.limits,
            secrets: Arc::default(),
            volumes: Vec::new(),
            shared,
            times: if self.story.is_told() { Times::kept() } else { Times::default() },
        };
        Some((verified, spec))
    }

    pub(super) fn new_server(
        &self,
        spec: &LaunchSpec,
        release: ReleaseId,
        slot: Option<u32>,
        now: Timestamp,
    ) -> Server {
        let row = ServerRow {
            id: spec.server.clone(),
            group: self.row.name.clone(),
            generation: spec.generation,
            release,
            limits: spec.limits,
            shared: self.row.spec.shared.clone(),
            state: ServerState::Launching,
            address: None,
            pid: None,
            launched_at: now,
            ready_at: None,
            ready: None,
            in_traffic: false,
            rebuild: false,
            touched: false,
            reason: None,
            slot,
            spare: false,
        };
        Server::new(row, true)
    }

    /// Group name, `-`, six random letters and digits. Never used twice: 36⁶ are possible, and those known are avoided.
    fn new_id(&self) -> ServerId {
        const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let group: String = self.row.name.as_str().chars().take(56).collect();
        let mut random = rand::rng();
        loop {
            let suffix: String = (0..6).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect();
            let id: ServerId = format!("{group}-{suffix}").parse().expect("a group name and a suffix is a valid id");
            if !self.servers.contains_key(&id) {
                return id;
            }
        }
    }

    fn stop(&mut self, id: &ServerId, why: &str, now: Timestamp) -> Work {
        self.step_to(id, ServerState::Stopping);
        if let Some(slot) = self.servers[id].row.slot {
            self.stopped.entry(slot).or_insert_with(Instant::now);
        }
        let intention = self.intend(id, "stop", why, now);
        let (generation, limit) = (self.servers[id].row.generation, self.stop_limit(id));
        let lost = self.lost_with(id, why);
        Work::Stop { server: id.clone(), generation, limit, lost, intention }
    }

    fn stop_limit(&self, id: &ServerId) -> Duration {
        let release = self.releases.get(&self.servers[id].row.release);
        let image = release.and_then(|release| self.images.get(&release.image));
        image.map_or(Duration::from_secs(30), |image| readiness::stop_limit(&image.manifest))
    }

    fn destroy(&mut self, id: &ServerId, why: &str, now: Timestamp) -> Work {
        let intention = self.intend(id, "destroy", why, now);
        let (group, generation) = (self.row.name.clone(), self.servers[id].row.generation);
        let lost = self.lost_with(id, why);
        Work::Destroy { group, server: id.clone(), generation, lost, intention }
    }

    fn traffic_step(&mut self, action: &Action, why: &str, now: Timestamp, traffic: &mut TrafficSteps) {
        let (change, place, id) = match action {
            Action::AddToTraffic { server } => (TrafficChange::Add, Place::In, server),
            Action::RemoveFromTraffic { server } => (TrafficChange::Remove, Place::Out, server),
            Action::SwitchTraffic { to, from } => {
                let from: BTreeSet<&ServerId> = from.iter().collect();
                for id in &from {
                    self.put(id, Place::Draining);
                }
                for id in to.iter().chain(from) {
                    let intention = self.intend(id, "switch", why, now);
                    traffic.changes.push((TrafficChange::Switch, id.clone(), intention));
                }
                to.iter().for_each(|id| self.put(id, Place::In));
                return;
            }
            Action::Drain { server } => return self.drain(server, why, now, traffic),
            _ => return,
        };
        self.put(id, place);
        let intention = self.intend(id, action.word(), why, now);
        traffic.changes.push((change, id.clone(), intention));
    }

    fn drain(&mut self, id: &ServerId, why: &str, now: Timestamp, traffic: &mut TrafficSteps) {
        self.step_to(id, ServerState::Draining);
        self.put(id, Place::Draining);
        let intention = self.intend(id, "drain", why, now);
        traffic.drains.push(Drain { server: id.clone(), limit: self.row.spec.rollout.drain, intention });
    }

    fn put(&mut self, id: &ServerId, place: Place) {
        if let Some(server) = self.servers.get_mut(id) {
            server.place = place;
        }
    }

    fn route(&mut self, traffic: TrafficSteps) -> Option<Work> {
        let TrafficSteps { changes, drains } = traffic;
        let changed = std::mem::take(&mut self.routes_changed) && !self.row.spec.publish.is_empty();
        let needed = changed || !changes.is_empty() || !drains.is_empty();
        needed.then(|| Work::Route { table: self.routes(), changes, drains })
    }

    /// Takes a step of a server's life, writes and tells it.
    pub(super) fn step_to(&mut self, id: &ServerId, state: ServerState) {
        let Some(server) = self.servers.get_mut(id).filter(|server| server.row.state != state) else { return };
        match server.row.state.step(state) {
            Ok(state) => server.row.state = state,
            Err(error) => return self.warn(format!("server {id}: {error}; this is a mistake in Kiln")),
        }
        if matches!(state, ServerState::Draining | ServerState::Stopping) {
            server.watch.take().inspect(tokio::task::AbortHandle::abort);
        }
        self.batch.server(&server.row);
        let event = self.server_event(&self.servers[id]);
        self.shared.emit(event);
    }

    /// Marks a server as busy and writes down what is about to be done to it.
    pub(super) fn intend(&mut self, id: &ServerId, action: &'static str, why: &str, at: Timestamp) -> IntentionId {
        let number = self.shared.intention();
        self.trace_step(number, action, id, why, at);
        if let Some(server) = self.servers.get_mut(id) {
            server.busy = Some(number);
            self.batch.server(&server.row);
            self.batch.open(Intention {
                id: number,
                group: self.row.name.clone(),
                server: id.clone(),
                generation: server.row.generation,
                action,
                why: why.to_owned(),
                inputs: json!({"generation": server.row.generation, "release": server.row.release}),
                at,
            });
        }
        number
    }

    /// Begins what is on disk.
    pub(super) fn start(&mut self, work: Work) {
        let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
        let name = work.describe();
        self.routing += u32::from(matches!(work, Work::Route { .. }));
        // Tables go to the gateway in the order in which they were made.
        let routed = match &work {
            Work::Route { table, .. } if self.row.spec.publish.is_empty() && table.is_empty() => None,
            Work::Route { table, .. } => Some(self.shared.routes.update(self.row.name.clone(), table.clone())),
            _ => None,
        };
        self.shared.spawn(async move {
            shared.fail_point(|| format!("{name}: before action")).await;
            let tell = |ended| drop(mailbox.send(Message::Ended(ended)));
            carry_out(&shared, work, routed, &name, tell).await;
        });
    }

    /// Waits for a new server to become ready.
    pub(super) fn watch(&mut self, id: &ServerId, turn: Option<Turn>) {
        let Some((watched, bound)) = self.watched(id) else { return };
        let (mailbox, server, launched) = (self.mailbox.clone(), id.clone(), watched.launched);
        let task = self.shared.spawn(async move {
            let ready = async {
                readiness::wait(watched).await?;
                bound::wait(&bound, bound::WITHIN).await
            };
            tokio::pin!(ready);
            let early = timeout_at(launched + LONGEST_TURN, &mut ready).await;
            drop(turn);
            let result = match early {
                Ok(result) => result,
                Err(_) => ready.await,
            };
            let result = result.map(|()| launched.elapsed());
            drop(mailbox.send(Message::Ended(Ended::Readiness { server, result })));
        });
        self.keep_watch(id, &task);
    }

    /// Watches whether a server that is ready still works.
    pub(super) fn watch_over(&mut self, id: &ServerId) {
        let Some((watched, _)) = self.watched(id).filter(|(watched, _)| liveness::wanted(watched)) else { return };
        let (mailbox, server) = (self.mailbox.clone(), id.clone());
        let task = self.shared.spawn(async move {
            let reason = liveness::wait(&watched).await;
            drop(mailbox.send(Message::Ended(Ended::Unhealthy { server, reason })));
        });
        self.keep_watch(id, &task);
    }

    fn keep_watch(&mut self, id: &ServerId, task: &tokio::task::JoinHandle<()>) {
        if let Some(server) = self.servers.get_mut(id) {
            server.watch = Some(task.abort_handle());
        }
    }

    /// What there is to be watched, and the bound services that must answer before a server is ready.
    fn watched(&self, id: &ServerId) -> Option<(readiness::Watched, Vec<bound::Bound>)> {
        let server = self.servers.get(id)?;
        let release = self.releases.get(&server.row.release)?;
        let image = self.images.get(&release.image)?;
        let bound = bound::needed(&image.manifest, Some(&release.config));
        let watched = readiness::Watched {
            engine: self.shared.engine.clone(),
            server: id.clone(),
            address: server.row.address,
            manifest: image.manifest.clone(),
            launched: server.launched,
        };
        Some((watched, bound))
    }
}

impl Server {
    /// A server as its row says, with nothing under way.
    pub(super) fn new(row: ServerRow, running: bool) -> Self {
        let place = Place::of(&row);
        Self {
            row,
            place,
            busy: None,
            running,
            known_since: Instant::now(),
            launched: Instant::now(),
            waiting: None,
            watch: None,
            drill: false,
            taken_at: None,
        }
    }
}

async fn carry_out(
    shared: &Shared,
    work: Work,
    routed: Option<oneshot::Receiver<Routed>>,
    name: &str,
    tell: impl Fn(Ended),
) {
    let done = async || shared.fail_point(|| format!("{name}: after action")).await;
    match work {
        Work::Stage { release, spec, prepare, farewells, intention } => {
            let result = stage(shared, &release, &spec, prepare).await;
            if result.is_ok() {
                futures::future::join_all(farewells.iter().map(|farewell| bid_farewell(shared, farewell))).await;
            }
            done().await;
            tell(Ended::Staged { server: spec.server, intention, result });
        }
        Work::Warm { release, spec, prepare, intention } => {
            let result = super::warm::hold(shared, &release, &spec, prepare, name).await;
            done().await;
            tell(Ended::Staged { server: spec.server, intention, result });
        }
        Work::Launch { release, spec, prepare, volumes, intention } => {
            let held = shared.starts.clone().acquire_owned().await.ok();
            let turn = Turn { begun: Instant::now(), _held: held };
            let ready = slots::prepare(shared, &volumes).await;
            spec.times.note("prepare");
            let prepared = ready.is_ok();
            let result = match ready {
                Ok(()) => launch(shared, &release, &spec, prepare).await,
                Err(error) => Err(error),
            };
            done().await;
            tell(Ended::Launched { server: spec.server, intention, prepared, turn, times: spec.times, result });
        }
        Work::Route { changes, drains, .. } => {
            let result = match routed {
                Some(answer) => answer.await.unwrap_or_else(|_| Err("the daemon is shutting down".to_owned())),
                None => Ok(Vec::new()),
            };
            done().await;
            tell(Ended::Routed { changes, result });
            let drains = drains.into_iter().map(|drain| self::drain(shared, drain, &tell));
            futures::future::join_all(drains).await;
        }
        Work::Stop { server, generation, limit, lost, intention } => {
            lost.note(shared).await;
            let result = shared.engine.stop(&server, generation, limit).await;
            done().await;
            tell(Ended::Stopped { server, intention, result });
        }
        Work::Destroy { group, server, generation, lost, intention } => {
            lost.note(shared).await;
            hand_over_logs(shared, &group, &server).await;
            destroy(shared, &server, generation).await;
            shared.logs.forget(&group, &server);
            done().await;
            tell(Ended::Destroyed { server, intention });
        }
    }
}

/// Launches one server. An answer may be lost although the server runs: the engine is asked once more, which launches it
/// only if it does not.
async fn launch(
    shared: &Shared,
    release: &VerifiedRelease,
    spec: &LaunchSpec,
    prepare: bool,
) -> Result<Observed, EngineError> {
    if prepare {
        shared.engine.prepare(release.release().image).await?;
    }
    let mut spec = spec.clone();
    spec.secrets = secrets(shared, release).await?;
    match shared.engine.launch(release, &spec).await {
        Err(EngineError::Failed { .. }) => shared.engine.launch(release, &spec).await,
        answer => answer,
    }
}

/// Makes a server up to the point where its services start.
async fn stage(
    shared: &Shared,
    release: &VerifiedRelease,
    spec: &LaunchSpec,
    prepare: bool,
) -> Result<Observed, EngineError> {
    if prepare {
        shared.engine.prepare(release.release().image).await?;
    }
    let mut spec = spec.clone();
    spec.secrets = secrets(shared, release).await?;
    let staging = shared.engine.staging().ok_or(EngineError::Unsupported { ability: "make servers ahead" })?;
    staging.stage(release, &spec).await
}

/// The secrets that a release's configuration names.
pub(super) async fn secrets(shared: &Shared, release: &VerifiedRelease) -> Result<Arc<Secrets>, EngineError> {
    let config = release.config();
    let Some(store) = shared.secrets.clone().filter(|_| config.secrets().next().is_some()) else {
        return Ok(Arc::default());
    };
    let failed = |source| EngineError::Failed { action: "find the secrets of the release".to_owned(), source };
    let config = config.clone();
    let found = tokio::task::spawn_blocking(move || store.of(&config)).await;
    found.map_err(|error| failed(error.into()))?.map(Arc::new).map_err(|error| failed(error.into()))
}

/// Drains one server. A gateway that does not answer is asked again: it knows what is in flight, nobody else does.
async fn drain(shared: &Shared, drain: Drain, tell: &impl Fn(Ended)) {
    let Drain { server, limit, intention } = drain;
    let begun = Instant::now();
    let mut pause = Duration::from_millis(20);
    let cut = loop {
        match shared.traffic.drain(&server, limit.saturating_sub(begun.elapsed())).await {
            Ok(drained) => break drained.cut,
            Err(_) if begun.elapsed() > limit => break 0,
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    };
    tell(Ended::Drained { server, intention, cut });
}

/// Waits until the collector has the last line of a server that has ended. What it does not get in time is lost, and said.
async fn hand_over_logs(shared: &Shared, group: &GroupName, server: &ServerId) {
    let Some(HandOver::Lost(lines)) = shared.logs.hand_over(group, server).await else { return };
    let reason = "its collector did not have them in time".to_owned();
    let mut batch = Batch::default();
    let (at, inputs) = (shared.now(), json!({"lines": lines}));
    let (group, server) = (group.clone(), server.clone());
    let event = Event::LogsLost { group: group.to_string(), server: server.to_string(), lines, reason: reason.clone() };
    let (group, server) = (Some(group), Some(server));
    batch.record(Record { at, action: "logs-lost", group, server, inputs, reason });
    shared.emit(event);
    if let Err(error) = shared.db.write(Arc::new(batch)).await {
        let error = kiln_api::error::chain(&error);
        tracing::warn!(lines, error, "lost log lines could not be entered in the audit log");
    }
}

/// Destroys a server, however often that takes.
pub(crate) async fn destroy(shared: &Shared, server: &ServerId, generation: u64) {
    let mut pause = Duration::from_millis(50);
    while let Err(error) = shared.engine.destroy(server, generation).await {
        if pause == Duration::from_millis(50) {
            let message = format!("server {server} cannot be destroyed yet: {}", kiln_api::error::chain(&error));
            shared.emit(kiln_api::Event::Warning { message });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}
