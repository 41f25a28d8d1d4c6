//! The other end of the queue: spans leave in batches, one request at a time.
//!
//! A batch that a collector does not take now is kept for [`KEPT`] and tried again, after the time it asks for if it says one.
//! What comes meanwhile waits in the queue, which is bounded. That a collector is away is said once, and once that it is back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::body::Bytes;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Counts, TraceSettings, otlp,
    send::{Answer, post},
    span::Span,
};

/// Spans of one request.
const BATCH: usize = 512;
/// The first span of a batch waits so long for others.
const GATHER: Duration = Duration::from_secs(1);
/// A batch is tried for so long.
const KEPT: Duration = Duration::from_secs(60);
/// Pauses between two tries.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// What waits at the end of the daemon has this time to leave.
const FAREWELL: Duration = Duration::from_millis(500);

/// Sends spans until `end`, and then what waits, as far as a short time allows.
pub(crate) async fn keep_sending(
    settings: TraceSettings,
    mut spans: mpsc::Receiver<Span>,
    counts: Arc<Counts>,
    end: CancellationToken,
) {
    let mut sender = Sender { settings, counts, ailing: None };
    while let Some(batch) = gather(&mut spans, &end).await {
        tokio::select! {
            () = sender.deliver(&batch) => {}
            () = cut_off(&end) => {
                sender.counts.add_dropped(batch.len() as u64);
                return;
            }
        }
    }
}

/// Returns a while after the end.
async fn cut_off(end: &CancellationToken) {
    end.cancelled().await;
    tokio::time::sleep(FAREWELL).await;
}

/// The next batch; none when all is over.
async fn gather(spans: &mut mpsc::Receiver<Span>, end: &CancellationToken) -> Option<Vec<Span>> {
    let mut batch = Vec::new();
    tokio::select! {
        biased;
        count = spans.recv_many(&mut batch, BATCH) => if count == 0 { return None },
        () = end.cancelled() => return None,
    }
    let more = async {
        loop {
            let room = BATCH - batch.len();
            if room == 0 || spans.recv_many(&mut batch, room).await == 0 {
                return;
            }
        }
    };
    tokio::select! {
        _ = timeout(GATHER, more) => {}
        () = end.cancelled() => {}
    }
    Some(batch)
}

struct Sender {
    settings: TraceSettings,
    counts: Arc<Counts>,
    /// Since when spans do not arrive, and how many are gone since.
    ailing: Option<Ailing>,
}

struct Ailing {
    since: Instant,
    dropped: u64,
}

impl Sender {
    /// Sends a batch, or gives it up.
    async fn deliver(&mut self, batch: &[Span]) {
        let body = Bytes::from(otlp::body(&self.settings.resource, batch));
        let (begun, mut pause) = (Instant::now(), SHORTEST_PAUSE);
        loop {
            match post(&self.settings.collector, body.clone()).await {
                Answer::Taken { rejected, said } => return self.taken(batch.len() as u64, rejected, &said),
                Answer::Refused { why } => {
                    self.ail(&why);
                    return self.drop_some(batch.len() as u64);
                }
                Answer::Later { why, after } => {
                    self.ail(&why);
                    let wait = after.unwrap_or(pause).max(SHORTEST_PAUSE);
                    if begun.elapsed() + wait > KEPT {
                        return self.drop_some(batch.len() as u64);
                    }
                    tokio::time::sleep(wait).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn taken(&mut self, all: u64, rejected: u64, said: &str) {
        let rejected = rejected.min(all);
        self.counts.add_sent(all - rejected);
        if rejected > 0 {
            self.ail(&format!("it did not want some spans: {said}"));
            return self.drop_some(rejected);
        }
        if let Some(Ailing { since, dropped }) = self.ailing.take() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(collector = %self.settings.collector.url, seconds, dropped, "the collector of traces takes spans again");
        }
    }

    /// Said once, until all is well again.
    fn ail(&mut self, why: &str) {
        if self.ailing.is_none() {
            let collector = &self.settings.collector.url;
            tracing::warn!(%collector, why, "the collector of traces does not take spans; those that do not arrive are counted in kiln_spans_dropped_total");
            self.ailing = Some(Ailing { since: Instant::now(), dropped: 0 });
        }
    }

    fn drop_some(&mut self, spans: u64) {
        self.counts.add_dropped(spans);
        if let Some(ailing) = &mut self.ailing {
            ailing.dropped += spans;
        }
    }
}
