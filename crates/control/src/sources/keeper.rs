//! Keeps the sources of one group under watch, and proposes a new release when they have changed.
//!
//! What a source says wanders into [`Shared`], where a newer value takes the place of an older one, so a source that flaps costs
//! nothing but its last value. A proposal is made only when every source of the group has a good value, when nothing has
//! changed for [`Damping::quiet`], and at most once in [`Damping::interval`]. While a source is away or says something wrong
//! the group's state says so ([`SourcesState`]); servers, launches and healing go on with what was frozen.
//!
//! Nothing is kept on disk: a keeper that starts anew proposes what it sees first, and whoever freezes it finds that it is what
//! runs, or that it is not. A keeper may be dropped at any time; a proposal that has begun is carried to its end.

mod state;

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use kiln_model::{
    BindingName, ConfigDigest, Group, GroupName,
    config::{ConfigKey, ConfigSource},
    fleet::OnSourceChange,
};
use tokio::{
    sync::watch as channel,
    time::{Instant, sleep_until, timeout_at},
};

use self::state::Shared;
pub use self::state::{Doing, Source, SourceIs, SourcesState};
use super::watch;

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
    /// It was tested, and the group is there.
    RolledOut(ConfigDigest),
    /// Somebody took the group back from this configuration: only a person brings it there again.
    Declined(ConfigDigest),
    /// These values do not fit the image, and why.
    Unfit(BTreeMap<Place, String>),
    /// It did not pass its tests, or could not be rolled out.
    Failed(ConfigDigest, String),
    /// It could not be tried now. It is tried again.
    Delayed(String),
}

/// Freezes what the sources say, compares it with what runs, and does what the group's policy says.
#[async_trait::async_trait]
pub trait Proposer: Send + Sync + 'static {
    /// Returns when the group is not on its way to another release.
    async fn free(&self, _group: &GroupName) {}
    /// Proposes the configuration that the group's sources give now. `values` are the texts that the keeper saw.
    async fn propose(&self, group: &GroupName, policy: OnSourceChange, values: &BTreeMap<Place, String>) -> Proposed;
}

/// Every value of a group that has a source which can be watched.
pub fn watched(group: &Group) -> BTreeMap<Place, ConfigSource> {
    watched_of(&group.config, &group.bindings)
}

pub(crate) fn watched_of(
    config: &BTreeMap<ConfigKey, ConfigSource>,
    bindings: &BTreeMap<BindingName, BTreeMap<ConfigKey, ConfigSource>>,
) -> BTreeMap<Place, ConfigSource> {
    let own = config.iter().map(|(key, source)| (Place { binding: None, key: key.clone() }, source));
    let fields = bindings.iter().flat_map(|(name, fields)| {
        fields.iter().map(|(key, source)| (Place { binding: Some(name.clone()), key: key.clone() }, source))
    });
    let can = |source: &ConfigSource| {
        matches!(source, ConfigSource::File(_) | ConfigSource::Zookeeper(_) | ConfigSource::Etcd(_))
    };
    own.chain(fields).filter(|(_, source)| can(source)).map(|(place, source)| (place, source.clone())).collect()
}

/// One group's keeper.
#[derive(Debug)]
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
        let shared = Shared::new(&self.sources, state);
        tokio::select! {
            () = watch(&self.sources, &self.directory, |place, told| shared.note(place, told)) => {}
            () = self.propose(&shared, &proposer) => {}
        }
    }

    async fn propose(&self, shared: &Shared, proposer: &Arc<dyn Proposer>) {
        let (mut last, mut earliest, mut again) = (None, Instant::now(), None);
        loop {
            wait(shared, again.take()).await;
            settle(shared, self.damping.quiet, earliest).await;
            proposer.free(&self.name).await;
            let Some(values) = shared.values().filter(|values| last.as_ref() != Some(values)) else {
                shared.unchanged();
                continue;
            };
            shared.now(Doing::Proposing);
            let outcome = self.carry(proposer.clone(), values.clone()).await;
            if outcome != Proposed::Same {
                earliest = Instant::now() + self.damping.interval;
            }
            let delayed = matches!(outcome, Proposed::Delayed(_));
            again = delayed.then_some(earliest);
            last = (!delayed).then_some(values);
            shared.proposed(outcome);
        }
    }

    /// In a task of its own: it may have test servers, which must not be left behind when this keeper is dropped.
    async fn carry(&self, proposer: Arc<dyn Proposer>, values: BTreeMap<Place, String>) -> Proposed {
        let (name, policy) = (self.name.clone(), self.policy);
        let task = tokio::spawn(async move { proposer.propose(&name, policy, &values).await });
        task.await.unwrap_or_else(|broken| Proposed::Delayed(broken.to_string()))
    }
}

/// Returns when something has changed, or at this time.
async fn wait(shared: &Shared, at: Option<Instant>) {
    match at {
        Some(at) => drop(timeout_at(at, shared.changed()).await),
        None => shared.changed().await,
    }
}

/// Returns when nothing has changed for a while and the next proposal may be made.
async fn settle(shared: &Shared, quiet: Duration, earliest: Instant) {
    shared.now(Doing::Settling);
    loop {
        let due = (Instant::now() + quiet).max(earliest);
        tokio::select! {
            () = sleep_until(due) => return,
            () = shared.changed() => {}
        }
    }
}
