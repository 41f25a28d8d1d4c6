//! A group's sources under watch: a flapping one is damped, a wrong one is shown, none of them is rolled out unseen.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use kiln_control::sources::{
    SourceError,
    keeper::{Damping, Keeper, Place, Proposed, Proposer, SourceIs, SourcesState, watched},
};
use kiln_model::{
    ConfigDigest, Digest, Group, GroupName,
    config::{ConfigSource, ConfigValue},
    fleet::OnSourceChange,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::registry::ZooKeeper;

/// Notes what is proposed; what does not parse as a number does not fit.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

#[async_trait::async_trait]
impl Proposer for Notes {
    async fn propose(&self, _: &GroupName, _: OnSourceChange, values: &BTreeMap<Place, String>) -> Proposed {
        let text = values.values().cloned().collect::<Vec<_>>().join(" ");
        self.0.lock().unwrap().push(text.clone());
        match text.parse::<u32>() {
            Ok(_) => Proposed::Reported(ConfigDigest(Digest::of(text.as_bytes()))),
            Err(error) => Proposed::Unfit(values.keys().map(|place| (place.clone(), error.to_string())).collect()),
        }
    }
}

struct Kept {
    notes: Arc<Notes>,
    state: watch::Receiver<SourcesState>,
    task: JoinHandle<()>,
}

impl Kept {
    fn new(source: ConfigSource, directory: &Path, damping: Damping) -> Self {
        let mut group = Group::new("web".parse().unwrap());
        group.on_source_change = OnSourceChange::Rollout;
        group.config.insert("limit".parse().unwrap(), source);
        group.config.insert("other".parse().unwrap(), ConfigSource::Literal(ConfigValue::Integer(1)));
        let keeper = Keeper {
            name: "web".parse().unwrap(),
            policy: group.on_source_change,
            sources: watched(&group),
            directory: directory.to_owned(),
            damping,
        };
        assert_eq!(keeper.sources.len(), 1, "what the fleet holds itself is not watched");
        let (sender, state) = watch::channel(SourcesState::default());
        let notes = Arc::new(Notes::default());
        let task = tokio::spawn(keeper.keep(notes.clone(), sender));
        Self { notes, state, task }
    }

    async fn until(&mut self, wanted: impl Fn(&SourcesState) -> bool) -> SourcesState {
        let seen = timeout(Duration::from_secs(40), self.state.wait_for(wanted)).await;
        seen.expect("the state came in time").unwrap().clone()
    }

    fn proposed(&self) -> Vec<String> {
        self.notes.0.lock().unwrap().clone()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_three_quick_changes_are_one_proposal_and_a_wrong_value_is_a_state() {
    let zookeeper = ZooKeeper::new();
    zookeeper.kazoo("zk.create('/limit', b'10')");
    let damping = Damping { quiet: Duration::from_secs(1), interval: Duration::from_secs(2) };
    let mut kept = Kept::new(zookeeper.source("/limit"), Path::new("/"), damping);
    kept.until(|state| state.proposals == 1).await;
    zookeeper.kazoo("zk.set('/limit', b'11'); zk.set('/limit', b'12'); zk.set('/limit', b'13')");
    kept.until(|state| state.proposals == 2).await;
    assert_eq!(kept.proposed(), ["10", "13"]);

    zookeeper.kazoo("zk.set('/limit', b'many')");
    let state = kept.until(|state| state.proposals == 3).await;
    let is = |state: &SourcesState| state.sources.values().next().unwrap().is.clone();
    assert!(matches!(is(&state), SourceIs::Unfit(reason) if reason.contains("digit")), "{state:?}");
    zookeeper.kazoo("zk.set('/limit', b'\\xff')");
    let state = kept.until(|state| state.failing().next().is_some()).await;
    assert!(matches!(is(&state), SourceIs::Wrong(SourceError::NotText { .. })), "{state:?}");
    tokio::time::sleep(damping.interval + damping.quiet + Duration::from_millis(500)).await;
    assert_eq!(kept.proposed(), ["10", "13", "many"], "what is no text is not proposed");
    zookeeper.kazoo("zk.set('/limit', b'14')");
    let state = kept.until(|state| state.proposals == 4).await;
    assert!(is(&state) == SourceIs::Fresh && matches!(state.last, Some(Proposed::Reported(_))), "{state:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_registry_that_was_away_is_shown_and_proposes_nothing_new_when_it_is_back() {
    let mut zookeeper = ZooKeeper::new();
    zookeeper.kazoo("zk.create('/limit', b'10')");
    let damping = Damping { quiet: Duration::from_millis(200), interval: Duration::from_millis(200) };
    let mut kept = Kept::new(zookeeper.source("/limit"), Path::new("/"), damping);
    kept.until(|state| state.proposals == 1).await;
    zookeeper.process.kill();
    let state = kept.until(|state| state.failing().next().is_some()).await;
    assert_eq!(state.failing().next().unwrap().0.to_string(), "limit", "{state:?}");
    assert!(matches!(state.sources.values().next().unwrap().is, SourceIs::Away(_)), "{state:?}");
    zookeeper.process.start();
    kept.until(|state| state.failing().next().is_none()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(kept.proposed(), ["10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_file_that_flaps_is_proposed_at_most_once_in_an_interval() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("limit");
    std::fs::write(&path, "0").unwrap();
    let damping = Damping { quiet: Duration::from_millis(100), interval: Duration::from_secs(60) };
    let mut kept = Kept::new(ConfigSource::File("limit".to_owned()), directory.path(), damping);
    kept.until(|state| state.proposals == 1).await;
    for value in 1..8 {
        std::fs::write(&path, value.to_string()).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(kept.proposed(), ["0"]);
}
