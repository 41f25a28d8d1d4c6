//! Unused connections to one server, kept per worker so that no lock is contended and no request wakes another
//! thread.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

use super::body::RequestBody;
use crate::{upstream::Upstream, worker::Connection};

/// One connection to a server.
pub type Sender = SendRequest<RequestBody>;

struct Unused {
    sender: Sender,
    since: Instant,
}

/// The unused connections to one server.
pub struct Pool {
    closed: AtomicBool,
    per_worker: Box<[Mutex<Vec<Unused>>]>,
}

impl Pool {
    pub fn new(workers: usize) -> Self {
        Self { closed: AtomicBool::new(false), per_worker: (0..workers).map(|_| Mutex::default()).collect() }
    }

    /// Closes the connections, and those that come back later.
    pub fn close(&self) {
        self.closed.store(true, SeqCst);
        for unused in &self.per_worker {
            unused.lock().expect("no panic while held").clear();
        }
    }

    pub fn reopen(&self) {
        self.closed.store(false, SeqCst);
    }

    /// The connection used last, if one is alive. Older ones are closed when they were unused for too long.
    pub fn take(&self, worker: usize, idle_timeout: Duration) -> Option<Sender> {
        let mut unused = self.per_worker[worker].lock().expect("no panic while held");
        while let Some(last) = unused.pop() {
            if last.since.elapsed() > idle_timeout {
                unused.clear();
                return None;
            }
            if last.sender.is_ready() {
                return Some(last.sender);
            }
        }
        None
    }

    /// Keeps a connection whose response has ended, unless it is closed or the server is draining.
    pub fn give_back(&self, connection: &Connection, mut sender: Sender, upstream: &Arc<Upstream>) {
        if sender.is_closed() || self.closed.load(SeqCst) {
            return;
        }
        if sender.is_ready() {
            return self.keep(connection.worker.index, connection.limits().pool_size, sender);
        }
        // The connection's task has not yet seen that the response ended.
        let (upstream, worker, size) = (upstream.clone(), connection.worker.index, connection.limits().pool_size);
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                upstream.pool.keep(worker, size, sender);
            }
        });
    }

    fn keep(&self, worker: usize, size: usize, sender: Sender) {
        let mut unused = self.per_worker[worker].lock().expect("no panic while held");
        // Looked at under the lock: `close` sets the flag before it empties the list.
        if !self.closed.load(SeqCst) && unused.len() < size {
            unused.push(Unused { sender, since: Instant::now() });
        }
    }

    /// Closes what was unused for too long.
    pub fn expire(&self, idle_timeout: Duration) {
        for unused in &self.per_worker {
            unused
                .lock()
                .expect("no panic while held")
                .retain(|u| u.since.elapsed() <= idle_timeout && !u.sender.is_closed());
        }
    }
}
