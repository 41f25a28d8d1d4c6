//! A route as it is served: which servers may get the next request, and who waits for one.

use std::{
    net::SocketAddr,
    sync::{
        Arc, RwLock,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use kiln_model::{GroupName, manifest::Protocol};
use tokio::{sync::Notify, time::Instant};

use crate::{
    bell::Bell,
    options::Limits,
    table::Backend,
    upstream::{Lease, Upstream},
};

/// A route in force.
pub struct LiveRoute {
    pub group: GroupName,
    pub protocol: Protocol,
    upstreams: RwLock<Vec<Arc<Upstream>>>,
    changed: Notify,
    waiting: AtomicUsize,
    /// So long a request waits for a group that may have no server, milliseconds; 0 for a group that has some always.
    hold_ms: AtomicU32,
    bell: Bell,
    failed: AtomicU64,
}

/// Why there is no server for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoServer {
    /// Too many wait already.
    Full,
    /// None became available in time.
    Late,
}

impl LiveRoute {
    pub fn new(group: GroupName, protocol: Protocol, bell: Bell) -> Arc<Self> {
        Arc::new(Self {
            group,
            protocol,
            upstreams: RwLock::default(),
            changed: Notify::new(),
            waiting: AtomicUsize::new(0),
            hold_ms: AtomicU32::new(0),
            bell,
            failed: AtomicU64::new(0),
        })
    }

    /// Sets how long requests wait where the group may have no server.
    pub fn hold(&self, hold_ms: Option<u32>) {
        self.hold_ms.store(hold_ms.unwrap_or(0), Relaxed);
    }

    /// Whether the group may have no server.
    pub fn holds(&self) -> bool {
        self.hold_ms.load(Relaxed) > 0
    }

    /// How long a request waits for a server.
    pub fn patience(&self, limits: &Limits) -> Duration {
        match self.hold_ms.load(Relaxed) {
            0 => limits.queue_timeout,
            held => Duration::from_millis(held.into()),
        }
    }

    /// Requests and connections that wait for a server.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Counts a request that no server answered whole.
    pub fn fail(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// How many there were.
    pub fn failures(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    pub fn upstreams(&self) -> Vec<Arc<Upstream>> {
        self.upstreams.read().expect("no panic while held").clone()
    }

    /// Puts other servers in force. A server that stays keeps what is in flight; one that is reached under the same
    /// name and address counts as up again. Returns those that left.
    pub fn replace(&self, backends: &[Backend], workers: usize) -> Vec<Arc<Upstream>> {
        let mut upstreams = self.upstreams.write().expect("no panic while held");
        let mut old = std::mem::take(&mut *upstreams);
        for backend in backends {
            let same = old.iter().position(|u| u.server == backend.server && u.address == backend.address);
            upstreams.push(match same {
                Some(index) => kept(old.swap_remove(index), backend),
                None => Upstream::new(backend, workers),
            });
        }
        drop(upstreams);
        old.iter().for_each(|gone| gone.leave());
        self.wake();
        old
    }

    /// Lets those who wait for a server look again.
    pub fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// The available server with the fewest in flight; among equals the next one from `turn` on. Those in `avoid` are
    /// left out.
    pub fn pick(&self, turn: &AtomicUsize, avoid: &[SocketAddr]) -> Option<Lease> {
        let upstreams = self.upstreams.read().expect("no panic while held");
        if upstreams.is_empty() {
            return None;
        }
        let start = turn.fetch_add(1, Relaxed) % upstreams.len();
        let (before, from) = upstreams.split_at(start);
        let candidates = || from.iter().chain(before).filter(|u| u.is_available() && !avoid.contains(&u.address));
        let least = candidates().min_by_key(|u| u.in_flight())?;
        Lease::take(least).or_else(|| candidates().find_map(Lease::take))
    }

    /// Like [`Self::pick`], but waits for a server to become available, until `deadline`. Fails at once when too many wait
    /// already. The daemon hears of it where the group may have no server.
    pub async fn wait(&self, turn: &AtomicUsize, limits: &Limits, deadline: Instant) -> Result<Lease, NoServer> {
        let _place = Place::take(&self.waiting, limits.queue_size).ok_or(NoServer::Full)?;
        if self.holds() {
            self.bell.ring();
        }
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(lease) = self.pick(turn, &[]) {
                return Ok(lease);
            }
            tokio::time::timeout_at(deadline, changed).await.map_err(|_| NoServer::Late)?;
        }
    }
}

fn kept(upstream: Arc<Upstream>, backend: &Backend) -> Arc<Upstream> {
    upstream.set_draining(backend.draining);
    upstream.mark_up();
    upstream
}

/// A place in the bounded queue of those who wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, size: usize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Relaxed) < size).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(name: &str, port: u16) -> Backend {
        Backend { server: name.parse().unwrap(), address: ([127, 0, 0, 1], port).into(), draining: false }
    }

    fn route(names: &[&str]) -> Arc<LiveRoute> {
        let route = LiveRoute::new("web".parse().unwrap(), Protocol::Http, Bell::default());
        let backends: Vec<_> = names.iter().zip(1..).map(|(name, port)| backend(name, port)).collect();
        route.replace(&backends, 1);
        route
    }

    #[test]
    fn ties_go_round_and_the_least_busy_wins() {
        let (route, turn) = (route(&["a", "b", "c"]), AtomicUsize::new(0));
        let leases: Vec<_> = (0..3).map(|_| route.pick(&turn, &[]).unwrap()).collect();
        let mut names: Vec<_> = leases.iter().map(|l| l.upstream().server.to_string()).collect();
        names.sort();
        assert_eq!(names, ["a", "b", "c"]);
        let freed = leases.into_iter().nth(1).unwrap();
        let freed_name = freed.upstream().server.clone();
        let _busy = route.pick(&turn, &[freed.upstream().address]).unwrap();
        drop(freed);
        assert_eq!(route.pick(&turn, &[]).map(|l| l.upstream().in_flight()), Some(1), "{freed_name} has none");
    }

    #[test]
    fn down_draining_and_avoided_get_nothing() {
        let (route, turn) = (route(&["a", "b", "c"]), AtomicUsize::new(0));
        let upstreams = route.upstreams();
        upstreams[0].mark_down();
        upstreams[1].set_draining(true);
        for _ in 0..5 {
            assert_eq!(route.pick(&turn, &[]).unwrap().upstream().server.as_str(), "c");
        }
        assert!(route.pick(&turn, &[upstreams[2].address]).is_none());
    }

    #[test]
    fn a_server_that_stays_keeps_its_count_and_comes_up() {
        let (route, turn) = (route(&["a"]), AtomicUsize::new(0));
        let lease = route.pick(&turn, &[]).unwrap();
        lease.upstream().mark_down();
        let gone = route.replace(&[backend("a", 1), backend("b", 2)], 1);
        assert!(gone.is_empty());
        assert_eq!(route.upstreams()[0].in_flight(), 1);
        assert!(route.upstreams()[0].is_available());
        let gone = route.replace(&[backend("b", 2)], 1);
        assert!(gone[0].is_draining(), "who left gets nothing new");
    }

    #[tokio::test]
    async fn waiting_ends_with_a_server_or_the_deadline() {
        let (route, turn) = (route(&[]), AtomicUsize::new(0));
        let limits = Limits::default();
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(route.wait(&turn, &limits, soon).await.err(), Some(NoServer::Late));
        let later = Instant::now() + Duration::from_secs(5);
        let (lease, _) = tokio::join!(route.wait(&turn, &limits, later), async {
            tokio::task::yield_now().await;
            route.replace(&[backend("a", 1)], 1)
        });
        assert_eq!(lease.ok().unwrap().upstream().server.as_str(), "a");
        let full = Limits { queue_size: 0, ..limits };
        assert_eq!(route.wait(&turn, &full, later).await.err(), Some(NoServer::Full), "no place to wait");
    }

    #[tokio::test]
    async fn who_waits_for_a_group_that_may_have_no_server_rings_and_is_counted() {
        let (route, turn, limits) = (route(&[]), AtomicUsize::new(0), Limits::default());
        let silent = route.bell.heard(0, Duration::ZERO).await;
        let soon = || Instant::now() + Duration::from_millis(20);
        assert_eq!(route.wait(&turn, &limits, soon()).await.err(), Some(NoServer::Late));
        assert_eq!(route.bell.heard(silent, Duration::ZERO).await, silent, "it is to have servers always");
        route.hold(Some(30_000));
        assert_eq!((route.patience(&limits), route.waiting()), (Duration::from_secs(30), 0));
        let (waited, number) = tokio::join!(route.wait(&turn, &limits, soon()), async {
            let number = route.bell.heard(silent, Duration::from_secs(5)).await;
            assert_eq!(route.waiting(), 1);
            number
        });
        assert_eq!((waited.err(), route.waiting()), (Some(NoServer::Late), 0));
        assert_ne!(number, silent);
    }
}
