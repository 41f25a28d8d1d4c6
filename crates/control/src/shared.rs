//! What all reconcilers share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use kiln_api::Event;
use kiln_engine::Engine;
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

use crate::{
    config::SecretStore, db::Db, failpoint::FailPoint, live::Live, logs::Logs, recovery::Drills, releases::Releases,
    routes::RoutesHandle, traces::Sink, traffic::Traffic, volumes::Book,
};

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What all reconcilers share.
pub(crate) struct Shared {
    pub db: Db,
    pub live: Arc<Live>,
    pub book: Book,
    /// The last recovery drills.
    pub drills: Drills,
    pub logs: Logs,
    pub engine: Arc<dyn Engine>,
    /// Turns of starting: more at once than the engine can use make every one late.
    pub starts: Arc<Semaphore>,
    /// Turns of starting what is held then, fewer than [`Self::starts`]: a launch must find the engine free.
    pub warming: Semaphore,
    pub releases: Arc<dyn Releases>,
    pub secrets: Option<Arc<SecretStore>>,
    pub traffic: Arc<dyn Traffic>,
    pub routes: RoutesHandle,
    pub events: broadcast::Sender<Event>,
    /// Where spans go, if somebody wants traces.
    pub traces: Option<Sink>,
    pub clock: Clock,
    /// The load of a group that follows it is read so often.
    pub load_every: Duration,
    /// Volumes are looked after so often.
    pub tend_every: Duration,
    pub fail: Arc<dyn FailPoint>,
    /// Cancelled at the end, in order or not: every task stops where it stands.
    pub end: CancellationToken,
    pub next_intention: AtomicI64,
}

impl Shared {
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }
    pub fn emit(&self, event: Event) {
        // Nobody need be listening.
        self.events.send(event).ok();
    }
    pub fn intention(&self) -> i64 {
        self.next_intention.fetch_add(1, Ordering::Relaxed)
    }
    /// A place where the daemon might be killed. If it is, this never returns, and nothing else of the core goes on.
    pub async fn fail_point(&self, place: impl FnOnce() -> String) {
        if !self.end.is_cancelled() && self.fail.dies_at(&place()) {
            self.end.cancel();
        }
        if self.end.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }
    /// Runs a task until it or the core ends.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
        let end = self.end.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = task => {}
            }
        })
    }
}
