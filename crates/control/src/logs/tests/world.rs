//! What a daemon has of all this.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kiln_api::Event;
use kiln_model::{Digest, GroupName, ReleaseId, ServerId};
use tempfile::TempDir;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::Writer;
use crate::{
    db::Db,
    logs::{HandOver, Logs, Origin},
};

/// What the daemon has: a state file, and shippers.
pub struct World {
    pub directory: Arc<TempDir>,
    end: CancellationToken,
    pub logs: Logs,
    pub events: broadcast::Receiver<Event>,
}

pub fn web() -> GroupName {
    "web".parse().unwrap()
}

pub fn release() -> ReleaseId {
    ReleaseId(Digest::of(b"release"))
}

pub fn server(name: &str) -> ServerId {
    name.parse().unwrap()
}

impl World {
    pub fn new() -> Self {
        Self::open(Arc::new(tempfile::tempdir().unwrap()))
    }

    fn open(directory: Arc<TempDir>) -> Self {
        let (db, loaded) = Db::open(&directory.path().join("kiln.db")).unwrap();
        let (events, end) = (broadcast::channel(1024).0, CancellationToken::new());
        let told = events.subscribe();
        let logs = Logs::new(db, events, Arc::new(Timestamp::now), loaded.arrived, end.clone());
        Self { directory, end, logs, events: told }
    }

    /// Everything stops where it stands; another daemon begins with what is on disk.
    pub async fn kill_and_restart(self) -> Self {
        self.end.cancel();
        let directory = self.directory.clone();
        drop(self);
        // The thread that writes the state ends when nobody can write any more.
        tokio::time::sleep(Duration::from_millis(100)).await;
        Self::open(directory)
    }

    pub fn follow(&self, name: &str, writer: &Writer, origin: Origin) {
        self.logs.follow(&web(), &server(name), &release(), writer.paths(), origin);
    }

    /// The server has ended.
    pub async fn hand_over(&self, name: &str) -> Option<HandOver> {
        let handed = self.logs.hand_over(&web(), &server(name)).await;
        self.logs.forget(&web(), &server(name));
        handed
    }

    /// The lines of all events about lost lines so far.
    pub fn told_lost(&mut self) -> u64 {
        let mut lost = 0;
        while let Ok(event) = self.events.try_recv() {
            if let Event::LogsLost { lines, .. } = event {
                lost += lines;
            }
        }
        lost
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end.cancel();
    }
}
