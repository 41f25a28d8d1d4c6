//! Sources under watch: changed, killed, stopped, started again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use kiln_control::{
    config::{HostSources, Sources as _},
    sources::{SourceError, Watched, watch},
};
use kiln_model::config::{ConfigSource, ConfigValue};
use rustix::process::Signal;
use tokio::{sync::mpsc, time::timeout};

use crate::registry::{Etcd, ZooKeeper};

struct Watch {
    told: mpsc::UnboundedReceiver<Watched>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    fn new(source: ConfigSource, directory: &Path) -> Self {
        let (sender, told) = mpsc::unbounded_channel();
        let directory: PathBuf = directory.to_owned();
        let task = tokio::spawn(async move {
            let sources = [((), source)].into();
            watch(&sources, &directory, |(), value| sender.send(value).unwrap_or_default()).await;
        });
        Self { told, task }
    }

    /// Waits until this is told; returns what was told before.
    async fn until(&mut self, wanted: impl Fn(&Watched) -> bool) -> Vec<Watched> {
        let mut before = Vec::new();
        loop {
            let told = timeout(Duration::from_secs(40), self.told.recv()).await;
            let told = told.unwrap_or_else(|_| panic!("nothing more was told after {before:?}")).unwrap();
            if wanted(&told) {
                return before;
            }
            before.push(told);
        }
    }

    async fn value(&mut self, value: &str) -> Vec<Watched> {
        self.until(|told| told.as_deref() == Ok(value)).await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_zookeeper_is_watched_through_kill_and_restart_stop_and_expiry() {
    let mut zookeeper = ZooKeeper::new();
    let mut watch = Watch::new(zookeeper.source("/app/greeting"), Path::new("/"));
    watch.until(|told| matches!(told, Err(SourceError::Missing { .. }))).await;
    zookeeper.kazoo("zk.create('/app/greeting', b'one', makepath=True)");
    watch.value("one").await;
    zookeeper
        .kazoo("zk.set('/app/greeting', b'two'); zk.set('/app/greeting', b'three'); zk.set('/app/greeting', b'four')");
    watch.value("four").await;
    zookeeper.kazoo("zk.set('/app/greeting', b'\\xff')");
    watch.until(|told| matches!(told, Err(SourceError::NotText { .. }))).await;
    zookeeper.kazoo("zk.delete('/app/greeting')");
    watch.until(|told| matches!(told, Err(SourceError::Missing { .. }))).await;
    zookeeper.kazoo("zk.create('/app/greeting', b'five')");
    watch.value("five").await;

    zookeeper.process.kill();
    watch.until(|told| matches!(told, Err(SourceError::Down { .. }))).await;
    zookeeper.process.start();
    watch.value("five").await;
    zookeeper.kazoo("zk.set('/app/greeting', b'six')");
    watch.value("six").await;

    // Stopped for longer than the session lives (2 s with these ticks): it expires, and the watch of it with it.
    zookeeper.process.signal(Signal::STOP);
    watch.until(|told| matches!(told, Err(SourceError::Down { .. } | SourceError::Silent { .. }))).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    zookeeper.process.signal(Signal::CONT);
    watch.value("six").await;
    zookeeper.kazoo("zk.set('/app/greeting', b'seven')");
    watch.value("seven").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_etcd_is_watched_through_kill_and_restart() {
    let mut etcd = Etcd::new();
    let mut watch = Watch::new(etcd.source("/app/greeting"), Path::new("/"));
    watch.until(|told| matches!(told, Err(SourceError::Missing { .. }))).await;
    etcd.control(&["put", "/app/greeting", "one"]);
    watch.value("one").await;
    etcd.process.kill();
    watch.until(|told| matches!(told, Err(SourceError::Down { .. }))).await;
    etcd.process.start();
    watch.value("one").await;
    etcd.control(&["put", "/app/greeting", "two"]);
    watch.value("two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_file_is_watched_also_when_another_takes_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("value");
    let mut watch = Watch::new(ConfigSource::File("value".to_owned()), directory.path());
    watch.until(|told| matches!(told, Err(SourceError::File { .. }))).await;
    std::fs::write(&path, "one\n").unwrap();
    watch.value("one").await;
    std::fs::write(directory.path().join("next"), "two\n").unwrap();
    std::fs::rename(directory.path().join("next"), &path).unwrap();
    watch.value("two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_many_nodes_are_watched_in_one_session_and_a_bad_one_harms_no_other() {
    let zookeeper = ZooKeeper::with_connections(4);
    zookeeper.kazoo("for n in range(60): zk.create('/n%d' % n, b'0')");
    zookeeper.kazoo("zk.set('/n58', b'x' * 200000)");
    zookeeper.kazoo("zk.set_acls('/n59', [make_digest_acl('kiln', 'right', all=True)])");
    let sources: BTreeMap<u32, ConfigSource> = (0..60).map(|n| (n, zookeeper.source(&format!("/n{n}")))).collect();
    let said: Arc<Mutex<BTreeMap<u32, Watched>>> = Arc::default();
    let note = said.clone();
    let task = tokio::spawn(async move {
        let tell = |n: &u32, told| drop(note.lock().unwrap().insert(*n, told));
        watch(&sources, Path::new("/"), tell).await;
    });
    let until = async |what: &str, good: &dyn Fn(&BTreeMap<u32, Watched>) -> bool| {
        let end = tokio::time::Instant::now() + Duration::from_secs(40);
        while !good(&said.lock().unwrap()) {
            assert!(tokio::time::Instant::now() < end, "never: {what}: {:?}", said.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let all = |value: &'static str| {
        move |said: &BTreeMap<u32, Watched>| {
            (0..58).all(|n| said.get(&n).is_some_and(|told| told.as_deref() == Ok(value)))
        }
    };
    until("all are told", &all("0")).await;
    let bad = |said: &BTreeMap<u32, Watched>| {
        matches!(said.get(&58), Some(Err(SourceError::TooLarge { .. })))
            && matches!(said.get(&59), Some(Err(SourceError::Unauthorised { .. })))
    };
    until("the bad ones are told", &bad).await;
    zookeeper.kazoo("for n in range(58): zk.set('/n%d' % n, b'1')");
    until("every change is told", &all("1")).await;
    zookeeper.kazoo("zk.set('/n58', b'small')");
    until("a large one that is smaller now", &|said| said[&58].as_deref() == Ok("small")).await;
    zookeeper
        .kazoo("zk.add_auth('digest', 'kiln:right'); zk.set_acls('/n59', [make_acl('world', 'anyone', all=True)])");
    until("one that may be read now", &|said| said[&59].as_deref() == Ok("0")).await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn host_many_values_are_asked_for_within_what_a_registry_takes() {
    let zookeeper = ZooKeeper::with_connections(60);
    zookeeper.kazoo("for n in range(600): zk.create('/n%d' % n, b'0')");
    let sources = HostSources::default();
    let values = (0..600).map(|n| {
        let (sources, source) = (&sources, zookeeper.source(&format!("/n{n}")));
        async move { sources.resolve(&source, Path::new("/")).await }
    });
    for value in futures::future::join_all(values).await {
        assert_eq!(value.unwrap(), ConfigValue::Text("0".into()));
    }
}
