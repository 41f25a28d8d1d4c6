//! One server behind one route, as it is served: who is in flight there, whether it may get more.
//!
//! A [`Lease`] is the only way to send it something, and counts as in flight until it is dropped. Taking a lease
//! raises the count before it looks at `draining`; draining sets the flag before it looks at the count. So either
//! the taker sees the flag, or the drainer sees the taker.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use kiln_model::ServerId;
use tokio::{sync::Notify, task::AbortHandle};

use crate::{http::pool::Pool, latency::Latencies, proto::BackendStatus, table::Backend};

/// A server of a route.
pub struct Upstream {
    pub server: ServerId,
    pub address: SocketAddr,
    /// Unused HTTP connections to it.
    pub pool: Pool,
    draining: AtomicBool,
    down: AtomicBool,
    in_flight: AtomicUsize,
    served: AtomicU64,
    latencies: Latencies,
    settled: Notify,
    /// Whether it is in no table any more.
    left: AtomicBool,
    leaving: Notify,
    open: Mutex<HashMap<u64, AbortHandle>>,
    next_open: AtomicU64,
}

impl Upstream {
    pub fn new(backend: &Backend, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            server: backend.server.clone(),
            address: backend.address,
            pool: Pool::new(workers),
            draining: AtomicBool::new(backend.draining),
            down: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            served: AtomicU64::new(0),
            latencies: Latencies::default(),
            settled: Notify::new(),
            left: AtomicBool::new(false),
            leaving: Notify::new(),
            open: Mutex::default(),
            next_open: AtomicU64::new(0),
        })
    }

    /// Whether it may get something new.
    pub fn is_available(&self) -> bool {
        !self.down.load(Relaxed) && !self.draining.load(Relaxed)
    }

    /// Requests and connections that came through a lease and have not ended.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(SeqCst)
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(SeqCst)
    }

    /// From now on nothing new goes there, or it does again.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, SeqCst);
        if draining {
            self.pool.close();
            self.settled.notify_waiters();
        } else {
            self.pool.reopen();
        }
    }

    /// The table has it no more: nothing new goes there, and who still tries to reach it gives up.
    pub fn leave(&self) {
        self.set_draining(true);
        self.left.store(true, SeqCst);
        self.leaving.notify_waiters();
    }

    /// Returns when the table has it no more.
    pub async fn left(&self) {
        loop {
            let leaving = self.leaving.notified();
            tokio::pin!(leaving);
            leaving.as_mut().enable();
            if self.left.load(SeqCst) {
                return;
            }
            leaving.await;
        }
    }

    /// Marks it as refusing connections. True for the caller that should watch for its return.
    pub fn mark_down(&self) -> bool {
        !self.down.swap(true, Relaxed)
    }

    pub fn mark_up(&self) {
        self.down.store(false, Relaxed);
    }

    /// Waits until nothing is in flight, at most `limit`; then cuts what is left and says how much that was.
    pub async fn drained(&self, limit: Duration) -> usize {
        let settle = async {
            loop {
                let settled = self.settled.notified();
                tokio::pin!(settled);
                settled.as_mut().enable();
                if self.in_flight() == 0 {
                    return;
                }
                settled.await;
            }
        };
        if tokio::time::timeout(limit, settle).await.is_ok() {
            return 0;
        }
        let cut = self.in_flight();
        self.cut();
        cut
    }

    /// Ends every connection to the server.
    pub fn cut(&self) {
        for task in self.open.lock().expect("no panic while held").values() {
            task.abort();
        }
    }

    /// Runs a connection to the server as a task that [`Self::cut`] can end.
    pub fn spawn(self: &Arc<Self>, connection: impl Future<Output = ()> + Send + 'static) {
        let id = self.next_open.fetch_add(1, Relaxed);
        let entry = OpenEntry { upstream: self.clone(), id };
        // Entered under the lock, so that a task that ends at once does not leave its entry behind.
        let mut open = self.open.lock().expect("no panic while held");
        let task = tokio::spawn(async move {
            let _entry = entry;
            connection.await;
        });
        open.insert(id, task.abort_handle());
    }

    pub fn status(&self) -> BackendStatus {
        BackendStatus {
            server: self.server.clone(),
            draining: self.is_draining(),
            down: self.down.load(Relaxed),
            in_flight: self.in_flight(),
            served: self.served.load(Relaxed),
            latency: self.latencies.now(),
        }
    }
}

struct OpenEntry {
    upstream: Arc<Upstream>,
    id: u64,
}

impl Drop for OpenEntry {
    fn drop(&mut self) {
        self.upstream.open.lock().expect("no panic while held").remove(&self.id);
    }
}

/// The right to send one request, or hold one connection, to a server.
pub struct Lease(Arc<Upstream>, Instant);

impl Lease {
    /// `None` when the server is draining.
    pub fn take(upstream: &Arc<Upstream>) -> Option<Self> {
        upstream.in_flight.fetch_add(1, SeqCst);
        let lease = Self(upstream.clone(), Instant::now());
        (!upstream.is_draining()).then_some(lease)
    }

    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.0
    }

    /// Counts it as served.
    pub fn served(&self) {
        self.0.served.fetch_add(1, Relaxed);
    }

    /// Counts it as served, and how long the head of the answer took.
    pub fn answered(&self) {
        self.served();
        self.0.latencies.add(self.1.elapsed());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, SeqCst) == 1 && self.0.is_draining() {
            self.0.settled.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream() -> Arc<Upstream> {
        let backend =
            Backend { server: "web-a".parse().unwrap(), address: "127.0.0.1:1".parse().unwrap(), draining: false };
        Upstream::new(&backend, 1)
    }

    #[tokio::test]
    async fn drain_answers_when_the_last_lease_ends() {
        let upstream = upstream();
        let lease = Lease::take(&upstream).unwrap();
        upstream.set_draining(true);
        assert!(Lease::take(&upstream).is_none(), "nothing new");
        let waiting = tokio::spawn({
            let upstream = upstream.clone();
            async move { upstream.drained(Duration::from_secs(5)).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(lease);
        assert_eq!(waiting.await.unwrap(), 0);
        assert_eq!(upstream.in_flight(), 0);
    }

    #[tokio::test]
    async fn drain_cuts_at_the_limit() {
        let upstream = upstream();
        let lease = Lease::take(&upstream).unwrap();
        upstream.set_draining(true);
        upstream.spawn(async move {
            let _lease = lease;
            std::future::pending::<()>().await;
        });
        assert_eq!(upstream.drained(Duration::from_millis(20)).await, 1);
        assert_eq!(upstream.drained(Duration::from_secs(5)).await, 0, "the cut connection is gone");
    }
}
