//! A small world to plan in: servers that start slowly, fail and leave, and a check of every plan.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use kiln_model::{
    Digest, ReleaseId, ServerId, ServerState,
    fleet::{HealingPolicy, RolloutPolicy, Strategy},
    plan::{
        Action, Admission, Failure, GroupDesired, GroupObserved, Plan, PlannedAction, RolloutProgress, RolloutState,
        SPARE_AGE, ServerView, plan,
    },
};

/// Release number `n`.
pub fn release(n: u8) -> ReleaseId {
    ReleaseId(Digest::of(&[n]))
}

/// A deterministic source of chance.
#[derive(Debug, Clone)]
pub struct Chance(pub u64);

impl Chance {
    pub fn percent(&mut self, percent: u64) -> bool {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % 100 < percent
    }
}

/// How the world treats servers, in percent per round.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    pub fails: u64,
    pub becomes_ready: u64,
    pub finishes: u64,
}

/// Everything goes well, though not at once.
pub const FAIR: Weather = Weather { fails: 0, becomes_ready: 60, finishes: 70 };

#[derive(Debug, Clone)]
pub struct World {
    pub desired: GroupDesired,
    pub observed: GroupObserved,
    pub progress: Option<RolloutProgress>,
    pub now: Timestamp,
    pub chance: Chance,
    launched: u32,
    pending: Vec<(ServerId, Action)>,
    pub log: Vec<PlannedAction>,
}

impl World {
    pub fn new(count: u32, strategy: Strategy) -> Self {
        let policy = RolloutPolicy { strategy, ..RolloutPolicy::default() };
        let admissions = (0..8).map(|n| (release(n), Admission::Admitted)).collect();
        Self {
            desired: GroupDesired {
                group: "web".parse().unwrap(),
                revision: 1,
                release: release(1),
                count,
                policy,
                slots: false,
                unmade: BTreeSet::new(),
                healing: HealingPolicy::default(),
                spares: 0,
                spare_age: SPARE_AGE,
                admissions,
            },
            observed: GroupObserved::default(),
            progress: None,
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            chance: Chance(7),
            launched: 0,
            pending: Vec::new(),
            log: Vec::new(),
        }
    }
    pub fn rolling(count: u32, max_surge: u32, max_unavailable: u32) -> Self {
        Self::new(count, Strategy::Rolling { max_surge, max_unavailable })
    }
    pub fn want(&mut self, release: ReleaseId, count: u32) {
        (self.desired.release, self.desired.count) = (release, count);
        self.desired.revision += 1;
    }
    pub fn pass(&mut self, time: Duration) {
        self.now = self.now.checked_add(time).unwrap();
    }
    /// Plans, checks the plan and begins its steps.
    pub fn plan(&mut self) -> Plan {
        let next = plan(&self.desired, &self.observed, self.progress.as_ref(), self.now);
        let again = plan(&self.desired, &self.observed, self.progress.as_ref(), self.now);
        assert_eq!(next, again, "the same input must give the same plan");
        self.check(&next);
        self.progress = Some(next.rollout.clone());
        next.steps.iter().for_each(|step| self.begin(&step.action));
        self.log.extend(next.steps.iter().cloned());
        next
    }
    /// One round of the world, then a plan. Returns whether nothing was left to do.
    pub fn round(&mut self, weather: Weather) -> bool {
        self.live(weather);
        let next = self.plan();
        let idle = next.steps.is_empty()
            && self.observed.servers.iter().all(|s| !s.busy && (s.state == ServerState::Ready || s.spare && s.staged));
        match next.wake_at {
            // Spares become old for ever: that is no end.
            Some(wake) if idle && wake.duration_since(self.now).as_hours() < 2 => self.now = wake,
            _ => self.pass(Duration::from_millis(100)),
        }
        idle && self.progress.as_ref().is_some_and(RolloutProgress::is_over)
    }
    /// Rounds until nothing is left to do; fails if there is no end.
    pub fn settle(&mut self, weather: Weather) -> RolloutState {
        let mut rests = 0;
        for _ in 0..4_000 {
            rests = if self.round(weather) { rests + 1 } else { 0 };
            if rests == 3 {
                return self.progress.clone().unwrap().state;
            }
        }
        panic!("no end: {:?}\n{:?}", self.progress, self.observed.servers);
    }
    pub fn on(&self, release: ReleaseId) -> usize {
        self.observed.servers.iter().filter(|s| s.release == release && serves(s)).count()
    }
    pub fn words(&self) -> Vec<&'static str> {
        self.log.iter().map(|step| step.action.word()).collect()
    }

    /// What happens to the servers in one round.
    fn live(&mut self, weather: Weather) {
        for at in 0..self.observed.servers.len() {
            let (failing, ready) = (self.chance.percent(weather.fails), self.chance.percent(weather.becomes_ready));
            let server = &mut self.observed.servers[at];
            if failing && server.state.may_become(ServerState::Failed) {
                let failure = Failure {
                    release: server.release,
                    at: self.now,
                    launched_at: server.launched_at,
                    killed: false,
                    unready: server.ready_at.is_none(),
                    drill: false,
                    spare: server.spare,
                };
                (server.state, server.busy, server.running) = (ServerState::Failed, false, ready);
                self.pending.retain(|(id, _)| *id != server.id);
                self.observed.failures.push(failure);
            } else if server.state == ServerState::Starting && ready {
                (server.state, server.ready_at) = (ServerState::Ready, Some(self.now));
            }
        }
        for (server, action) in std::mem::take(&mut self.pending) {
            if self.chance.percent(weather.finishes) {
                self.finish(&server, &action);
            } else {
                self.pending.push((server, action));
            }
        }
        self.observed.servers.retain(|s| s.state != ServerState::Gone);
    }
    fn server(&mut self, id: &ServerId) -> &mut ServerView {
        self.observed.servers.iter_mut().find(|s| s.id == *id).expect("actions are about servers that exist")
    }
    fn finish(&mut self, id: &ServerId, action: &Action) {
        let server = self.server(id);
        server.busy = false;
        let state = match action {
            Action::Launch { .. } | Action::LaunchIn { .. } | Action::HandOver { .. } | Action::Take { .. } => {
                ServerState::Starting
            }
            Action::Drain { .. } => ServerState::Drained,
            Action::Stop { .. } => ServerState::Stopped,
            Action::Destroy { .. } => ServerState::Gone,
            Action::SwitchTraffic { from, .. } if from.contains(id) => ServerState::Draining,
            _ => server.state,
        };
        server.in_traffic = match action {
            Action::AddToTraffic { .. } | Action::SwitchTraffic { .. } => true,
            Action::RemoveFromTraffic { .. } | Action::Drain { .. } => false,
            _ => server.in_traffic,
        };
        server.running &= !matches!(action, Action::Stop { .. });
        server.staged |= matches!(action, Action::Stage { .. } | Action::Spare { .. });
        if server.state != state {
            server.state = server.state.step(state).unwrap();
        }
    }
    fn begin(&mut self, action: &Action) {
        let servers = match action {
            Action::Launch { release, servers } => (0..*servers).map(|_| self.launch(*release)).collect(),
            Action::Spare { release, servers } => {
                let made: Vec<_> = (0..*servers).map(|_| self.launch(*release)).collect();
                made.iter().for_each(|id| self.server(id).spare = true);
                made
            }
            Action::LaunchIn { release, slot } | Action::Stage { release, slot } => {
                let id = self.launch(*release);
                self.server(&id).slot = Some(*slot);
                vec![id]
            }
            Action::SwitchTraffic { to, from } => to.iter().chain(from).cloned().collect(),
            other => other.server().cloned().into_iter().collect::<Vec<_>>(),
        };
        for id in servers {
            let server = self.server(&id);
            let new = matches!(
                action,
                Action::Launch { .. } | Action::LaunchIn { .. } | Action::Stage { .. } | Action::Spare { .. }
            );
            assert!(!server.busy || new, "{id} is busy: {action:?}");
            server.busy = true;
            server.staged &= !matches!(action, Action::HandOver { .. } | Action::Take { .. });
            server.spare &= !matches!(action, Action::Take { .. });
            let state = match action {
                Action::Drain { .. } => ServerState::Draining,
                Action::Stop { .. } => ServerState::Stopping,
                _ => server.state,
            };
            if server.state != state {
                server.state = server.state.step(state).unwrap();
            }
            self.pending.push((id, action.clone()));
        }
    }
    fn launch(&mut self, release: ReleaseId) -> ServerId {
        self.launched += 1;
        let id: ServerId = format!("web-{}", self.launched).parse().unwrap();
        self.observed.servers.push(ServerView {
            id: id.clone(),
            release,
            state: ServerState::Launching,
            launched_at: self.now,
            ready_at: None,
            in_traffic: false,
            busy: true,
            running: true,
            slot: None,
            staged: false,
            replace: false,
            spare: false,
        });
        id
    }

    /// What every plan keeps.
    fn check(&self, next: &Plan) {
        let live = self.observed.servers.iter().filter(|s| s.state.is_live() && !s.spare).count() as u32;
        let taken = next.steps.iter().filter(|step| matches!(step.action, Action::Take { .. })).count() as u32;
        assert!(taken == 0 || live + taken <= self.desired.ceiling(), "{taken} taken, more than the surge");
        self.check_spares(next);
        let mut touched = Vec::new();
        let mut going = 0;
        for PlannedAction { action, why } in &next.steps {
            assert!(why.len() > 10, "{action:?} has no reason");
            touched.extend(action.server().cloned());
            match action {
                Action::Launch { release, servers } => {
                    assert!(
                        *servers > 0 && live + taken + servers <= self.desired.ceiling(),
                        "{servers} more than the surge"
                    );
                    assert!(self.desired.admits(release), "a release that is not admitted");
                }
                Action::LaunchIn { release, slot } | Action::Stage { release, slot } => {
                    let (staged, most) = (self.observed.servers.iter(), self.desired.ceiling() - self.desired.count);
                    let staged = staged
                        .filter(|s| s.staged && s.state == ServerState::Launching && s.slot < Some(self.desired.count));
                    let staged = staged.filter(|s| s.release == next.rollout.target() && !s.replace);
                    let given = |s: &&ServerView| {
                        next.steps
                            .iter()
                            .any(|step| matches!(&step.action, Action::HandOver { server } if *server == s.id))
                    };
                    let staged = staged.filter(|s| !given(s)).count() as u32;
                    let free = matches!(action, Action::LaunchIn { .. });
                    assert!(free || staged < most, "more successors than the surge");
                    assert!(self.desired.admits(release), "a release that is not admitted");
                    assert!(*slot < self.desired.count, "a slot that is not wanted");
                    assert!(!free || self.holders(*slot).is_empty(), "slot {slot}: {:?}", self.holders(*slot));
                }
                Action::HandOver { server } => {
                    let slot = self.observed.servers.iter().find(|s| s.id == *server).unwrap().slot.unwrap();
                    assert!(self.holders(slot).is_empty(), "slot {slot}: {:?}", self.holders(slot));
                }
                Action::Drain { server } | Action::Stop { server } => {
                    going += u32::from(self.counts_as_available(server, next));
                }
                Action::SwitchTraffic { to, from } => {
                    touched.extend(to.iter().chain(from).cloned());
                    assert!(to.len() as u32 >= self.desired.count, "a switch to too few servers");
                    for id in to {
                        let server = self.observed.servers.iter().find(|s| s.id == *id).unwrap();
                        assert_eq!(server.state, ServerState::Ready);
                    }
                }
                _ => {}
            }
        }
        let ids = self.observed.servers.iter().map(|s| &s.id);
        let available = ids.filter(|id| self.counts_as_available(id, next)).count() as u32;
        assert!(going == 0 || available - going >= self.desired.floor(), "{available} - {going} is below the floor");
        touched.sort();
        let all = touched.len();
        touched.dedup();
        assert_eq!(all, touched.len(), "two steps for one server: {:?}", next.steps);
        if next.steps.is_empty() {
            let again = plan(&self.desired, &self.observed, Some(&next.rollout), self.now);
            assert_eq!(again, *next, "with nothing to do the plan must stay as it is");
        }
    }
    /// What every plan keeps of spares.
    fn check_spares(&self, next: &Plan) {
        let target = next.rollout.target();
        let spares = self.observed.servers.iter().filter(|s| s.spare && s.state.is_live());
        let spare = |id: &ServerId| self.observed.servers.iter().find(|s| s.id == *id && s.spare);
        let mut held = spares.clone().count() as u32;
        for step in &next.steps {
            match &step.action {
                Action::Take { server } => {
                    let spare = spare(server).expect("only a spare is taken");
                    assert!(spare.staged && !spare.busy && !spare.replace, "{spare:?}");
                    assert_eq!(spare.release, target, "a spare of another release is taken");
                    assert!(self.desired.admits(&target), "a release that is not admitted");
                    assert!(spare.launched_at + self.desired.spare_age > self.now, "one that is too old");
                    held -= 1;
                }
                Action::Stop { server } => held -= u32::from(spare(server).is_some_and(|s| s.state.is_live())),
                Action::Spare { release, servers } => {
                    assert_eq!(*release, target);
                    assert!(next.rollout.is_over() && self.desired.admits(release));
                    let members = self.observed.servers.iter().filter(|s| !s.spare && s.state.is_live());
                    let whole = members.clone().count() as u32 == self.desired.count && members.clone().all(serves);
                    assert!(whole, "a spare is made while servers are missing");
                    held += servers;
                    assert!(held <= self.desired.spares, "{held} spares");
                }
                Action::AddToTraffic { server } | Action::HandOver { server } | Action::Drain { server } => {
                    assert_eq!(spare(server), None, "a spare that nobody took");
                }
                _ => {}
            }
        }
    }
    /// The servers of a slot that may have its volumes: PID 1 was given them and is not known to have ended.
    pub fn holders(&self, slot: u32) -> Vec<&ServerId> {
        let of_slot = self.observed.servers.iter().filter(|s| s.slot == Some(slot) && !s.staged);
        let ended = |s: &&ServerView| match s.state {
            ServerState::Stopped | ServerState::Gone => true,
            ServerState::Failed => !s.running,
            _ => false,
        };
        of_slot.filter(|s| !ended(s)).map(|s| &s.id).collect()
    }
    fn counts_as_available(&self, id: &ServerId, next: &Plan) -> bool {
        let server = self.observed.servers.iter().find(|s| s.id == *id).unwrap();
        let healthy = server.ready_at.is_some_and(|at| at + self.desired.policy.min_healthy_time <= self.now);
        let new = server.release == next.rollout.target() && !server.replace;
        serves(server) && (healthy || !new)
    }
}

pub fn serves(server: &ServerView) -> bool {
    server.state == ServerState::Ready && server.in_traffic
}
