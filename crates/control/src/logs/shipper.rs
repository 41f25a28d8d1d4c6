//! The task that sends a group's lines: it reads them from its servers' spools, a piece of each in turn, keeps those under way in a
//! window, and remembers what has arrived. It is the only one that has the connection and the only one that waits for it.
//!
//! Order: a server's lines are read, sent and taken as arrived in their order. When a connection ends, everything that has not
//! arrived is read again from the spool and sent again over the next one, so the window is what can be sent twice. What has arrived
//! is written down soon ([`WRITE_AFTER`], [`WRITE_LINES`]), not at once: after a crash so much more can be sent twice.

mod followed;
mod telling;
mod under_way;

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use kiln_model::{GroupName, ServerId, fleet::LogsPolicy};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};

use self::followed::{Ending, Follow};
use super::{
    HandOver,
    hub::{Command, Counts, Outside},
    lines::{LineId, Place},
    link::{self, Heard, Link},
    relp,
};
use crate::db::Batch;

/// Lines under way that a collector has not acknowledged.
pub(super) const WINDOW: usize = 1024;
/// Lines read and not under way yet.
const QUEUE: usize = 4096;
/// Bytes given to the kernel at once.
const OUT: usize = 256 << 10;
/// What has arrived is written down after this time ...
const WRITE_AFTER: Duration = Duration::from_secs(1);
/// ... or so many lines.
pub(super) const WRITE_LINES: u64 = 8192;
/// A collector that takes and acknowledges nothing for so long is called again.
const STALLED: Duration = Duration::from_secs(90);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Lines that wait are counted so often while they cannot be sent.
const COUNT_AGAIN: Duration = Duration::from_secs(1);
/// A loss that goes on is told so often.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// A line that was read.
pub(super) struct Ready {
    pub server: ServerId,
    pub id: LineId,
    /// Where reading goes on once this has arrived; only after the last line of a frame.
    pub place: Option<Place>,
    pub message: Vec<u8>,
}

/// A line under way.
struct Flight {
    server: ServerId,
    id: LineId,
    place: Option<Place>,
    txnr: u32,
    /// Bytes of it that are not written yet, where that makes it arrive.
    left: usize,
    arrived: bool,
}

type Connecting = Pin<Box<dyn Future<Output = Result<Link, String>> + Send>>;

/// What happened next.
enum Next {
    Command(Option<Command>),
    News,
    Connected(Result<Link, String>),
    Heard(Result<Heard, String>),
    Time,
}

/// See the module.
pub(super) struct Shipper {
    group: GroupName,
    policy: LogsPolicy,
    counts: Arc<Counts>,
    inbox: mpsc::UnboundedReceiver<Command>,
    news: Arc<Notify>,
    outside: Outside,
    servers: BTreeMap<ServerId, Follow>,
    /// The server that was read last: the next one is first.
    turn: Option<ServerId>,
    link: Option<Link>,
    connecting: Option<Connecting>,
    retry_at: Instant,
    pause: Duration,
    queue: VecDeque<Ready>,
    flights: VecDeque<Flight>,
    /// What is given to the kernel ...
    out: Vec<u8>,
    /// ... less so many bytes that it has taken.
    out_at: usize,
    /// Lengths of the lines in it, less what is taken.
    lengths: VecDeque<usize>,
    flush: bool,
    txnr: u32,
    moved: Instant,
    /// Lines that have arrived and are not written down, and since when.
    unwritten: u64,
    write_at: Option<Instant>,
    count_at: Option<Instant>,
    untold: BTreeMap<ServerId, u64>,
    told: Option<Instant>,
}

impl Shipper {
    pub fn new(
        group: GroupName,
        policy: LogsPolicy,
        counts: Arc<Counts>,
        inbox: mpsc::UnboundedReceiver<Command>,
        news: Arc<Notify>,
        outside: Outside,
    ) -> Self {
        let now = Instant::now();
        Self {
            group,
            policy,
            counts,
            inbox,
            news,
            outside,
            servers: BTreeMap::new(),
            turn: None,
            link: None,
            connecting: None,
            retry_at: now,
            pause: FIRST_PAUSE,
            queue: VecDeque::new(),
            flights: VecDeque::new(),
            out: Vec::new(),
            out_at: 0,
            lengths: VecDeque::new(),
            flush: false,
            txnr: 1,
            moved: now,
            unwritten: 0,
            write_at: None,
            count_at: None,
            untold: BTreeMap::new(),
            told: None,
        }
    }

    /// Runs until nobody can tell it anything any more.
    pub async fn run(mut self) {
        loop {
            self.connect_when_needed();
            self.fill().await;
            self.end_servers().await;
            self.write_when_due();
            self.tell_losses(false);
            self.count_when_due().await;
            match self.next().await {
                Next::Command(None) => {
                    self.say_good_bye();
                    return self.write();
                }
                Next::Command(Some(command)) => self.command(command),
                Next::News => {}
                Next::Time => self.servers.values_mut().for_each(Follow::look),
                Next::Connected(Ok(link)) => self.connected(link),
                Next::Connected(Err(reason)) => self.away(reason),
                Next::Heard(Ok(heard)) => self.heard(heard),
                Next::Heard(Err(reason)) => self.away(reason),
            }
        }
    }

    async fn next(&mut self) -> Next {
        let wake = self.wake();
        let first = self.lengths.front().copied().unwrap_or(0);
        let (link, out, flush, connecting) =
            (self.link.as_mut(), &self.out[self.out_at..], self.flush, self.connecting.as_mut());
        let heard = async {
            match link {
                Some(link) => link.go_on(out, first, flush).await,
                None => std::future::pending().await,
            }
        };
        let connecting = async {
            match connecting {
                Some(connecting) => connecting.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            command = self.inbox.recv() => Next::Command(command),
            () = self.news.notified() => Next::News,
            connected = connecting => Next::Connected(connected),
            heard = heard => Next::Heard(heard),
            () = tokio::time::sleep_until(wake) => Next::Time,
        }
    }

    /// When to look again although nothing happens. An idle group sleeps.
    fn wake(&self) -> Instant {
        let idle = Instant::now() + Duration::from_secs(3600);
        let endings = self.servers.values().filter_map(|server| server.ending.as_ref().map(|ending| ending.until));
        let retry = (self.link.is_none() && self.connecting.is_none() && self.wanted()).then_some(self.retry_at);
        let stalled = (self.link.is_some() && !self.flights.is_empty()).then(|| self.moved + STALLED);
        let unwatched = self.servers.values().any(Follow::is_unwatched).then(|| Instant::now() + COUNT_AGAIN);
        let untold = self.told.filter(|_| !self.untold.is_empty()).map(|told| told + TELL_AGAIN);
        let times = [retry, stalled, unwatched, untold, self.write_at, self.count_at].into_iter().flatten();
        times.chain(endings).min().unwrap_or(idle).min(idle)
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Policy(policy) => {
                self.policy = policy;
                self.say_good_bye();
                self.disconnect();
                (self.retry_at, self.pause) = (Instant::now(), FIRST_PAUSE);
            }
            Command::Follow(followed) => {
                let follow = Follow::new(self.group.clone(), followed, self.outside.news.as_ref(), &self.news);
                self.servers.insert(follow.server().clone(), follow);
            }
            Command::End(server, answer) => self.end(&server, answer),
            Command::Forget(server) => self.forget(&server),
            Command::Left(up_to, answer) => self.tell_left(&up_to, answer),
        }
    }

    fn end(&mut self, server: &ServerId, answer: oneshot::Sender<HandOver>) {
        // One that is not known has nothing to hand over: the answer is dropped.
        if let Some(follow) = self.servers.get_mut(server) {
            follow.end(Ending { until: Instant::now() + self.policy.receipt, looked: false, answer });
        }
    }

    fn forget(&mut self, server: &ServerId) {
        self.servers.remove(server);
        self.tell_losses(true);
    }

    /// Whether there is something to send.
    fn wanted(&self) -> bool {
        self.servers.values().any(Follow::has_news)
    }

    fn connect_when_needed(&mut self) {
        if self.link.is_none() && self.connecting.is_none() && self.wanted() && Instant::now() >= self.retry_at {
            self.connecting = Some(Box::pin(link::connect(self.policy.clone())));
        }
        let stalled = self.link.is_some() && !self.flights.is_empty() && self.moved.elapsed() >= STALLED;
        if stalled {
            self.away(format!("it took nothing for {} s", STALLED.as_secs()));
        }
    }

    fn say_good_bye(&mut self) {
        if let Some(link) = self.link.take() {
            // In the middle of a line nothing can be said.
            let whole = self.out_at == self.out.len();
            let txnr = relp::after(self.txnr);
            tokio::spawn(async move {
                if whole {
                    link.close(txnr).await
                }
            });
        }
    }

    /// Everything that has not arrived is read again.
    fn disconnect(&mut self) {
        (self.link, self.connecting) = (None, None);
        self.queue.clear();
        self.flights.clear();
        self.out.clear();
        self.out_at = 0;
        self.lengths.clear();
        self.flush = false;
        self.servers.values_mut().for_each(Follow::rewind);
    }

    /// Reads from servers that have news, a piece of each in turn, and puts lines under way.
    async fn fill(&mut self) {
        if self.link.is_none() {
            return;
        }
        while self.queue.len() < QUEUE {
            let after = |turn: &ServerId| (std::ops::Bound::Excluded(turn.clone()), std::ops::Bound::Unbounded);
            let later = self.turn.as_ref().and_then(|turn| self.servers.range(after(turn)).find(|(_, s)| s.has_news()));
            let found = later.or_else(|| self.servers.iter().find(|(_, server)| server.has_news()));
            let Some(id) = found.map(|(id, _)| id.clone()) else { break };
            self.turn = Some(id.clone());
            let Some(follow) = self.servers.remove(&id) else { break };
            let (follow, read) = follow.read().await;
            self.servers.insert(id.clone(), follow);
            self.note_loss(&id, read.lost);
            self.queue.extend(read.lines);
        }
        self.put_under_way();
    }

    /// Servers that have ended and handed over everything, or whose time is over.
    async fn end_servers(&mut self) {
        self.end_without_connection().await;
        let now = Instant::now();
        let over = |server: &Follow| {
            server.ending.as_ref().is_some_and(|ending| ending.until <= now || server.is_handed_over())
        };
        let ids: Vec<ServerId> = self.servers.iter().filter(|(_, s)| over(s)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            let Some(mut follow) = self.servers.remove(&id) else { continue };
            let lost = if follow.is_handed_over() { 0 } else { follow.count_left().await };
            self.counts.lost.fetch_add(lost, Ordering::Relaxed);
            self.tell_losses(true);
            let handed = if lost == 0 { HandOver::Complete } else { HandOver::Lost(lost) };
            if let Some(ending) = follow.ending.take() {
                // Whoever asked may have left.
                ending.answer.send(handed).ok();
            }
        }
    }

    /// A server that has nothing left needs no collector for its end.
    async fn end_without_connection(&mut self) {
        if self.link.is_some() {
            return;
        }
        for follow in self.servers.values_mut() {
            if let Some(ending) = follow.ending.as_mut().filter(|ending| !ending.looked) {
                ending.looked = true;
                if follow.count_left().await == 0 {
                    follow.is_finished();
                }
            }
        }
    }

    fn write_when_due(&mut self) {
        if self.unwritten >= WRITE_LINES || self.write_at.is_some_and(|at| at <= Instant::now()) {
            self.write();
        }
    }

    /// Writes down what has arrived. What a full disk does not take is written with what arrives next.
    fn write(&mut self) {
        (self.unwritten, self.write_at) = (0, None);
        let mut batch = Batch::default();
        let mut known = self.outside.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, follow) in &mut self.servers {
            if let Some(arrived) = follow.take_changed() {
                batch.arrived(id, &arrived);
                known.insert(id.clone(), arrived);
            }
        }
        drop(known);
        let (db, group) = (self.outside.db.clone(), self.group.clone());
        tokio::spawn(async move {
            if let Err(error) = db.write(Arc::new(batch)).await {
                let error = kiln_api::error::chain(&error);
                tracing::warn!(%group, error, "could not write down which log lines have arrived");
            }
        });
    }

    /// Lines that wait. Where they can be sent, those under way are all that do; else they are counted in the spools now and then.
    async fn count_when_due(&mut self) {
        let behind = self.wanted() && (self.link.is_none() || self.queue.len() >= QUEUE);
        if !behind {
            self.count_at = None;
            let waiting = self.queue.len() + self.flights.len();
            return self.counts.waiting.store(waiting as u64, Ordering::Relaxed);
        }
        let due = *self.count_at.get_or_insert_with(|| Instant::now() + COUNT_AGAIN);
        if due > Instant::now() {
            return;
        }
        let mut waiting = 0;
        for id in self.servers.keys().cloned().collect::<Vec<_>>() {
            let Some(follow) = self.servers.remove(&id) else { continue };
            let (follow, behind) = follow.behind().await;
            waiting += behind;
            self.servers.insert(id, follow);
        }
        self.count_at = Some(Instant::now() + COUNT_AGAIN);
        self.counts.waiting.store(waiting, Ordering::Relaxed);
    }
}
