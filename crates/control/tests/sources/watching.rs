//! Sources under watch: changed, killed, stopped, started again.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kiln_control::sources::{SourceError, Watched, watch};
use kiln_model::config::ConfigSource;
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
            watch(&source, &directory, |value| sender.send(value).unwrap_or_default()).await;
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
