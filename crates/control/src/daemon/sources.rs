//! The daemon's keepers: one for each group whose values come from sources that are watched.
//!
//! [`keep`] compares the groups that control has with the keepers that run, and starts and drops keepers until they are the
//! same: at start, after every change that somebody asks for, and from time to time. A keeper that is made anew sees everything
//! again and finds that it is what runs; so nothing of it is kept on disk.

mod propose;
mod show;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kiln_api::{error::chain, request::ApplyRequest, status::Status};
use kiln_model::{GroupName, config::SecretHash, fleet::OnSourceChange};
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::AbortHandle,
};

use self::propose::Propose;
use super::{App, error::Failure};
use crate::{
    Sourced,
    config::{Origins, SecretsError},
    sources::keeper::{Keeper, SourcesState},
};

/// The groups are looked at so often, also where nobody says that something changed.
const LOOK: Duration = Duration::from_secs(10);

/// So many proposals are tested at a time, though one key may be the key of a hundred groups.
const TESTS: usize = 4;

/// A keeper that runs.
struct Kept {
    origins: SecretHash,
    policy: OnSourceChange,
    state: watch::Receiver<SourcesState>,
    task: AbortHandle,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The keepers that run.
pub(crate) struct Keepers {
    all: Mutex<BTreeMap<GroupName, Kept>>,
    changed: Notify,
    /// Held by proposals that are tested.
    tests: Semaphore,
}

impl Default for Keepers {
    fn default() -> Self {
        Self { all: Mutex::default(), changed: Notify::new(), tests: Semaphore::new(TESTS) }
    }
}

impl Keepers {
    fn all(&self) -> MutexGuard<'_, BTreeMap<GroupName, Kept>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody asked something of these groups, or of all: their keepers are made anew.
    pub(super) fn renew(&self, groups: &[GroupName]) {
        self.all().retain(|name, _| !groups.is_empty() && !groups.contains(name));
        self.changed.notify_one();
    }

    /// Ends them all.
    pub(super) fn end(&self) {
        self.all().clear();
    }

    /// Puts what they see into a status.
    pub(super) fn show(&self, status: &mut Status) {
        let all = self.all();
        for group in &mut status.groups {
            let kept = all.iter().find(|(name, _)| name.as_str() == group.name);
            group.sources = kept.map(|(_, kept)| show::status(kept.policy, &kept.state.borrow()));
        }
    }
}

/// Seals where the values of an apply's groups come from.
pub(super) async fn seal(app: &Arc<App>, request: &ApplyRequest) -> Result<BTreeMap<GroupName, SecretHash>, Failure> {
    let groups = request.fleet.groups.iter();
    let all: Vec<(GroupName, Origins)> = groups
        .filter_map(|(name, group)| Some((name.clone(), Origins::of(group, request.directory.clone())?)))
        .collect();
    let secrets = app.secrets.clone();
    let sealed = tokio::task::spawn_blocking(move || {
        all.into_iter().map(|(name, origins)| Ok((name.clone(), origins.seal(&name, &secrets)?))).collect()
    });
    let sealed: Result<_, SecretsError> = sealed.await.expect("sealing does not panic");
    sealed.map_err(|error| crate::config::ConfigError::from(error).into())
}

/// Goes on for ever.
pub(super) async fn keep(app: Arc<App>) {
    loop {
        match app.control.sourced(&[]).await {
            Ok(wanted) => reconcile(&app, &wanted),
            Err(error) => tracing::debug!(reason = chain(&error), "no sources can be watched now"),
        }
        tokio::select! {
            () = app.keepers.changed.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn reconcile(app: &Arc<App>, wanted: &[Sourced]) {
    let mut all = app.keepers.all();
    let same = |name: &GroupName, kept: &Kept| {
        let of = wanted.iter().find(|of| of.group == *name);
        of.is_some_and(|of| of.origins == kept.origins && of.policy == kept.policy)
    };
    all.retain(|name, kept| same(name, kept));
    for of in wanted {
        if all.contains_key(&of.group) {
            continue;
        }
        match start(app, of) {
            Ok(kept) => drop(all.insert(of.group.clone(), kept)),
            Err(error) => {
                tracing::warn!(group = %of.group, reason = chain(&error), "its sources cannot be watched");
            }
        }
    }
}

fn start(app: &Arc<App>, of: &Sourced) -> Result<Kept, SecretsError> {
    let origins = Origins::open(&of.origins, &app.secrets)?;
    let (sender, state) = watch::channel(SourcesState::default());
    let keeper = Keeper {
        name: of.group.clone(),
        policy: of.policy,
        sources: origins.watched(),
        directory: origins.directory,
        damping: app.options.damping,
    };
    let (group, policy, told, app) = (of.group.clone(), of.policy, state.clone(), app.clone());
    let task = tokio::spawn(async move {
        let tell = show::tell(&app, &group, policy, told);
        tokio::join!(keeper.keep(Arc::new(Propose(app.clone())), sender), tell);
    });
    Ok(Kept { origins: of.origins.clone(), policy: of.policy, state, task: task.abort_handle() })
}
