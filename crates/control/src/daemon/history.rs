//! What happened lately, numbered and with its time, for readers that come late or come back.
//!
//! Everything that control tells goes through here, and what requests tell beside it: suites and channels. Numbers only grow,
//! also over restarts of the daemon, because they begin at the time of its start: a reader that comes back gets what it has
//! missed, as far as it is kept, and nothing twice.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use kiln_api::{Event, event::Happened};
use tokio::sync::broadcast;

use super::metrics::Metrics;

/// So many events are kept.
const KEPT: usize = 1_000;

/// The last events, and whoever waits for the next.
pub(crate) struct History {
    kept: Mutex<Kept>,
    sender: broadcast::Sender<Arc<Happened>>,
    /// Counts what happens.
    pub(crate) metrics: Metrics,
}

struct Kept {
    next: u64,
    recent: VecDeque<Arc<Happened>>,
}

impl History {
    /// Empty, with numbers from the time of the start on, in microseconds.
    pub(crate) fn new(started_at: Timestamp) -> Self {
        let next = u64::try_from(started_at.as_microsecond()).unwrap_or_default().max(1);
        let kept = Mutex::new(Kept { next, recent: VecDeque::new() });
        Self { kept, sender: broadcast::channel(KEPT).0, metrics: Metrics::default() }
    }

    /// Takes note of an event, and tells everybody who waits.
    pub(crate) fn note(&self, event: Event, at: Timestamp) {
        self.metrics.note(&event, at);
        let mut kept = self.kept();
        let happened = Arc::new(Happened { id: kept.next, at: at.to_string(), event });
        kept.next += 1;
        if kept.recent.len() == KEPT {
            kept.recent.pop_front();
        }
        kept.recent.push_back(Arc::clone(&happened));
        // Nobody need be waiting. Told under the lock, so that the order is that of the numbers.
        self.sender.send(happened).ok();
    }

    /// What is kept of the events after a number, and a receiver of those that come: none is missed, and none comes twice.
    pub(crate) fn after(&self, id: u64) -> (VecDeque<Arc<Happened>>, broadcast::Receiver<Arc<Happened>>) {
        let kept = self.kept();
        let missed = kept.recent.iter().filter(|happened| happened.id > id).cloned().collect();
        (missed, self.sender.subscribe())
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes note of everything that control tells. Goes on until control ends.
pub(super) async fn collect(history: Arc<History>, mut events: broadcast::Receiver<Event>) {
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                Event::Warning { message: format!("{missed} events were not taken note of") }
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        history.note(event, Timestamp::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(number: usize) -> Event {
        Event::Warning { message: number.to_string() }
    }

    #[test]
    fn unit_a_reader_that_comes_back_gets_what_it_missed_and_nothing_twice() {
        let start = Timestamp::from_second(1).unwrap();
        let history = History::new(start);
        (0..3).for_each(|number| history.note(warning(number), start));
        let (all, mut live) = history.after(0);
        assert_eq!(all.iter().map(|happened| happened.id).collect::<Vec<_>>(), [1_000_000, 1_000_001, 1_000_002]);
        history.note(warning(3), start);
        assert_eq!(live.try_recv().unwrap().id, 1_000_003);
        let (missed, _) = history.after(1_000_001);
        assert_eq!(missed.iter().map(|happened| happened.event.clone()).collect::<Vec<_>>(), [warning(2), warning(3)]);
        let later = History::new(Timestamp::from_second(2).unwrap());
        later.note(warning(4), start);
        assert!(later.after(1_000_003).0[0].id > 1_000_003, "after a restart numbers go on");
    }

    #[test]
    fn unit_only_so_many_events_are_kept() {
        let start = Timestamp::UNIX_EPOCH;
        let history = History::new(start);
        (0..KEPT + 5).for_each(|number| history.note(warning(number), start));
        let (all, _) = history.after(0);
        assert_eq!((all.len(), all[0].event.clone()), (KEPT, warning(5)));
    }
}
