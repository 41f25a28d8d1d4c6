//! Keeps the sources of one group under watch, and proposes a new release when they have changed.
//!
//! What a source says wanders into [`Shared`], where a newer value takes the place of an older one, so a source that flaps costs
//! nothing but its last value. A proposal is made only when every source of the group has a good value, when nothing has
//! changed for [`Damping::quiet`], and at most once in [`Damping::interval`]. While a source is away or says something wrong
//! the group's state says so ([`SourcesState`]); servers, launches and healing go on with what was frozen.
//!
//! Nothing is kept on disk: a keeper that starts anew proposes what it sees first, and whoever freezes it finds that it is what
//! runs, or that it is not.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kiln_model::{
    BindingName, ConfigDigest, Group, GroupName,
    config::{ConfigKey, ConfigSource},
    fleet::OnSourceChange,
};
use tokio::{
    sync::{Notify, watch as channel},
    time::{Instant, sleep_until},
};

use super::{SourceError, Watched, watch};

/// A value of a group's configuration: a key, or a field of a binding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The binding whose field it is.
    pub binding: Option<BindingName>,
    /// The key.
    pub key: ConfigKey,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.binding {
            Some(binding) => write!(f, "{binding}.{}", self.key),
            None => write!(f, "{}", self.key),
        }
    }
}

/// How changes are slowed down.
#[derive(Debug, Clone, Copy)]
pub struct Damping {
    /// So long nothing must have changed.
    pub quiet: Duration,
    /// So long at least between two proposals of a group.
    pub interval: Duration,
}

impl Default for Damping {
    fn default() -> Self {
        Self { quiet: Duration::from_secs(1), interval: Duration::from_secs(30) }
    }
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposed {
    /// It is what the group runs.
    Same,
    /// It is another configuration, and the group only reports.
    Reported(ConfigDigest),
    /// It was tested, and the group is on its way to it or there.
    RolledOut(ConfigDigest),
    /// It does not fit the image, did not pass its tests, or could not be rolled out.
    Failed(String),
}

/// Freezes what the sources say, compares it with what runs, and does what the group's policy says.
#[async_trait::async_trait]
pub trait Proposer: Send + Sync + 'static {
    /// Proposes the configuration that the group's sources give now. `values` are the texts that the keeper saw.
    async fn propose(&self, group: &GroupName, policy: OnSourceChange, values: &BTreeMap<Place, String>) -> Proposed;
}

/// What is to be seen of a group's sources. No value is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourcesState {
    /// Sources that give no value now, and why.
    pub failing: BTreeMap<Place, SourceError>,
    /// What became of the last proposal.
    pub last: Option<Proposed>,
    /// Proposals made so far.
    pub proposals: u64,
}

/// Every value of a group that has a source which can be watched.
pub fn watched(group: &Group) -> BTreeMap<Place, ConfigSource> {
    let own = group.config.iter().map(|(key, source)| (Place { binding: None, key: key.clone() }, source));
    let fields = group.bindings.iter().flat_map(|(name, fields)| {
        fields.iter().map(|(key, source)| (Place { binding: Some(name.clone()), key: key.clone() }, source))
    });
    let can = |source: &ConfigSource| {
        matches!(source, ConfigSource::File(_) | ConfigSource::Zookeeper(_) | ConfigSource::Etcd(_))
    };
    own.chain(fields).filter(|(_, source)| can(source)).map(|(place, source)| (place, source.clone())).collect()
}

/// What the sources have said.
#[derive(Default)]
struct Shared {
    said: Mutex<BTreeMap<Place, Watched>>,
    changed: Notify,
}

impl Shared {
    fn said(&self) -> MutexGuard<'_, BTreeMap<Place, Watched>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, place: &Place, told: Watched) {
        let mut said = self.said();
        if said.get(place) != Some(&told) {
            said.insert(place.clone(), told);
            self.changed.notify_one();
        }
    }

    fn failing(&self) -> BTreeMap<Place, SourceError> {
        self.said().iter().filter_map(|(place, told)| Some((place.clone(), told.as_ref().err()?.clone()))).collect()
    }

    /// The values, if every one of so many sources has a good one.
    fn values(&self, sources: usize) -> Option<BTreeMap<Place, String>> {
        let said = self.said();
        let good = said.iter().filter_map(|(place, told)| Some((place.clone(), told.as_ref().ok()?.clone())));
        Some(good.collect::<BTreeMap<_, _>>()).filter(|values| values.len() == sources)
    }
}

/// One group's keeper.
pub struct Keeper {
    /// The group.
    pub name: GroupName,
    /// What it does with changes.
    pub policy: OnSourceChange,
    /// What is watched.
    pub sources: BTreeMap<Place, ConfigSource>,
    /// Where relative paths begin.
    pub directory: PathBuf,
    /// How changes are slowed down.
    pub damping: Damping,
}

impl Keeper {
    /// Watches until it is dropped.
    pub async fn keep(self, proposer: Arc<dyn Proposer>, state: channel::Sender<SourcesState>) {
        if self.sources.is_empty() || self.policy == OnSourceChange::Ignore {
            return std::future::pending().await;
        }
        let shared = Shared::default();
        let watches = self.sources.iter().map(|(place, source)| follow(place, source, &self.directory, &shared));
        let watches = futures::future::join_all(watches);
        tokio::select! {
            _never = watches => {}
            () = self.propose(&shared, proposer.as_ref(), &state) => {}
        }
    }

    async fn propose(&self, shared: &Shared, proposer: &dyn Proposer, state: &channel::Sender<SourcesState>) {
        let (mut last, mut earliest) = (None, Instant::now());
        loop {
            shared.changed.notified().await;
            self.settle(shared, state, earliest).await;
            let Some(values) = shared.values(self.sources.len()).filter(|values| last.as_ref() != Some(values)) else {
                continue;
            };
            let outcome = proposer.propose(&self.name, self.policy, &values).await;
            earliest = Instant::now() + self.damping.interval;
            last = Some(values);
            state.send_modify(|state| {
                state.last = Some(outcome);
                state.proposals += 1;
            });
        }
    }

    /// Returns when nothing has changed for a while and the next proposal may be made.
    async fn settle(&self, shared: &Shared, state: &channel::Sender<SourcesState>, earliest: Instant) {
        loop {
            let failing = shared.failing();
            state.send_if_modified(|state| {
                let differs = state.failing != failing;
                state.failing = failing;
                differs
            });
            let due = (Instant::now() + self.damping.quiet).max(earliest);
            tokio::select! {
                () = sleep_until(due) => return,
                () = shared.changed.notified() => {}
            }
        }
    }
}

async fn follow(place: &Place, source: &ConfigSource, directory: &Path, shared: &Shared) {
    watch(source, directory, |told| shared.note(place, told)).await;
}
