//! Finds a group's shipper, and keeps what others may know of it.
//!
//! Servers are known here from their launch (or their adoption) to their end, whether their group has a collector or not: it may
//! get one any time.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::Timestamp;
use kiln_api::{Event, status::LogsStatus};
use kiln_model::{GroupName, ReleaseId, ServerId, fleet::LogsPolicy};
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Arrived, HandOver,
    left::{Left, UpTo},
    news::News,
    shipper::Shipper,
};
use crate::{db::Db, shared::Clock};

/// Whether a server was just launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was: its first line is number 1.
    Launched,
    /// An earlier daemon launched it.
    Found,
}

/// What is counted of a group since the daemon's start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub sent: AtomicU64,
    pub arrived: AtomicU64,
    pub lost: AtomicU64,
    pub waiting: AtomicU64,
    /// Why the collector is away, if it is, and since when.
    pub away: Mutex<Option<(Timestamp, String)>>,
}

/// What a shipper is told.
pub(super) enum Command {
    Policy(LogsPolicy),
    Follow(Followed),
    /// The server has ended: hand over what is left.
    End(ServerId, oneshot::Sender<HandOver>),
    Forget(ServerId),
    /// Count what has not arrived, up to these lines where one is named.
    Left(UpTo, oneshot::Sender<BTreeMap<ServerId, Left>>),
}

/// A server whose lines are to be sent.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    pub server: ServerId,
    pub release: String,
    pub paths: [PathBuf; 2],
    pub arrived: Arrived,
}

struct Running {
    policy: LogsPolicy,
    commands: mpsc::UnboundedSender<Command>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Group {
    running: Option<Running>,
    servers: BTreeMap<ServerId, (String, [PathBuf; 2])>,
    /// Those that have ended and wait for their collector.
    waiting: BTreeSet<ServerId>,
}

/// What shippers take from outside.
#[derive(Clone)]
pub(super) struct Outside {
    pub db: Db,
    pub events: broadcast::Sender<Event>,
    pub clock: Clock,
    pub news: Option<Arc<News>>,
    pub arrived: Arc<Mutex<BTreeMap<ServerId, Arrived>>>,
    pub end: CancellationToken,
}

/// All shippers.
pub(crate) struct Logs {
    groups: Mutex<BTreeMap<GroupName, Group>>,
    outside: Outside,
}

impl Logs {
    /// Begins where an earlier daemon has come to. Must be called in a tokio runtime.
    pub fn new(
        db: Db,
        events: broadcast::Sender<Event>,
        clock: Clock,
        arrived: BTreeMap<ServerId, Arrived>,
        end: CancellationToken,
    ) -> Self {
        let news = News::new().map(Arc::new);
        if let Err(error) = &news {
            tracing::warn!(%error, "the kernel does not tell of new log lines: they are looked for by the clock");
        }
        let news = news.ok();
        if let Some(news) = news.clone() {
            let end = end.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = news.tell() => {}
                    () = end.cancelled() => {}
                }
            });
        }
        let arrived = Arc::new(Mutex::new(arrived));
        Self { groups: Mutex::default(), outside: Outside { db, events, clock, news, arrived, end } }
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<GroupName, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, server: &ServerId) -> Option<Arrived> {
        self.outside.arrived.lock().unwrap_or_else(PoisonError::into_inner).get(server).cloned()
    }

    /// Where a group's lines go from now on.
    pub fn policy(&self, name: &GroupName, policy: Option<&LogsPolicy>) {
        let mut groups = self.groups();
        let group = groups.entry(name.clone()).or_default();
        match (policy, &mut group.running) {
            // Its servers' hand-overs are over with it: nobody wants their lines.
            (None, running) => *running = None,
            (Some(policy), Some(running)) => {
                if running.policy != *policy {
                    running.policy = policy.clone();
                    running.commands.send(Command::Policy(policy.clone())).unwrap_or_default();
                }
            }
            (Some(policy), running @ None) => {
                let started = running.insert(self.start(name, policy));
                for (server, (release, paths)) in &group.servers {
                    let arrived = self.known(server).unwrap_or_else(|| Arrived::nothing(None));
                    let (server, release, paths) = (server.clone(), release.clone(), paths.clone());
                    let followed = Followed { server, release, paths, arrived };
                    started.commands.send(Command::Follow(followed)).unwrap_or_default();
                }
            }
        }
    }

    fn start(&self, name: &GroupName, policy: &LogsPolicy) -> Running {
        let (commands, inbox) = mpsc::unbounded_channel();
        let counts = Arc::new(Counts::default());
        let shipper = Shipper::new(
            name.clone(),
            policy.clone(),
            counts.clone(),
            inbox,
            Arc::new(Notify::new()),
            self.outside.clone(),
        );
        let end = self.outside.end.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = shipper.run() => {}
            }
        });
        Running { policy: policy.clone(), commands, counts }
    }

    /// A server of a group that writes to these files.
    pub fn follow(
        &self,
        name: &GroupName,
        server: &ServerId,
        release: &ReleaseId,
        paths: [PathBuf; 2],
        origin: Origin,
    ) {
        let mut groups = self.groups();
        let group = groups.entry(name.clone()).or_default();
        let release = release.short();
        if group.servers.insert(server.clone(), (release.clone(), paths.clone())).is_some() {
            return;
        }
        let Some(running) = &group.running else { return };
        // Whoever was launched while its group had a collector is missed from its first line on.
        let known = if origin == Origin::Found { self.known(server) } else { None };
        let arrived = known.unwrap_or_else(|| Arrived::nothing(Some(1)));
        let followed = Followed { server: server.clone(), release, paths, arrived };
        running.commands.send(Command::Follow(followed)).unwrap_or_default();
    }

    /// Waits until the collector has the last line of a server that has ended, or its time is over. None where nobody waits.
    pub async fn hand_over(&self, name: &GroupName, server: &ServerId) -> Option<HandOver> {
        let (answer, answered) = oneshot::channel();
        {
            let mut groups = self.groups();
            let group = groups.get_mut(name).filter(|group| group.servers.contains_key(server))?;
            group.running.as_ref()?.commands.send(Command::End(server.clone(), answer)).ok()?;
            group.waiting.insert(server.clone());
        }
        let handed = answered.await.ok();
        if let Some(group) = self.groups().get_mut(name) {
            group.waiting.remove(server);
        }
        handed
    }

    /// Tells a group's shipper something; none where there is none.
    pub(super) fn ask(&self, name: &GroupName, command: Command) -> Option<Arc<Counts>> {
        let groups = self.groups();
        let running = groups.get(name)?.running.as_ref()?;
        running.commands.send(command).ok()?;
        Some(running.counts.clone())
    }

    /// Whether a server that has ended waits for its collector.
    pub fn is_waiting(&self, name: &GroupName, server: &ServerId) -> bool {
        self.groups().get(name).is_some_and(|group| group.waiting.contains(server))
    }

    /// A server is gone, with its files.
    pub fn forget(&self, name: &GroupName, server: &ServerId) {
        let mut groups = self.groups();
        if let Some(group) = groups.get_mut(name) {
            group.servers.remove(server);
            if let Some(running) = &group.running {
                running.commands.send(Command::Forget(server.clone())).unwrap_or_default();
            }
        }
        self.outside.arrived.lock().unwrap_or_else(PoisonError::into_inner).remove(server);
    }

    /// A group is gone.
    pub fn forget_group(&self, name: &GroupName) {
        self.groups().remove(name);
    }

    /// What is known of a group's lines; none where they go nowhere.
    pub fn status(&self, name: &GroupName) -> Option<LogsStatus> {
        let groups = self.groups();
        let running = groups.get(name)?.running.as_ref()?;
        let counts = &running.counts;
        let away = counts.away.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Some(LogsStatus {
            to: running.policy.to.to_string(),
            away: away.as_ref().map(|(_, reason)| reason.clone()),
            since: away.map(|(since, _)| since.to_string()),
            sent: count(&counts.sent),
            acknowledged: count(&counts.arrived),
            lost: count(&counts.lost),
            waiting: count(&counts.waiting),
        })
    }
}
