//! Traces of what becomes of groups, sent to a collector by OTLP/HTTP in its JSON encoding, so that a slow step can be seen.
//!
//! ```text
//! story     what happens to one group: a rollout, a heal or a change of its number is one trace
//! span      one step, with its times
//! settings  where spans go, and what is said of this daemon with each
//! otlp      spans in the encoding of opentelemetry-proto 1 (`trace.proto`, `trace_service.proto`)
//! send      one request to the collector
//! export    the queue: in batches, bounded in memory and in time
//! ```
//!
//! Spans go into a queue that is never waited for: when it is full, or the collector does not take them, they are dropped and
//! counted. Nothing that is done to a server depends on a collector.

mod export;
mod otlp;
mod send;
mod settings;
mod span;
mod story;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) use self::story::{Cause, Change, Story};
pub use self::{
    settings::{Collector, SettingsError, TraceSettings},
    span::{Moment, Span, SpanId, TraceId, Value},
};

/// Spans that wait to be sent.
pub(crate) const WAITING: usize = 4096;
/// At its end the daemon waits so long for what is sent.
const LAST: Duration = Duration::from_secs(2);

/// What became of spans since the daemon's start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
}

impl Counts {
    /// Taken by the collector.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
    /// Gone without having arrived.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
    fn add_sent(&self, spans: u64) {
        self.sent.fetch_add(spans, Ordering::Relaxed);
    }
    fn add_dropped(&self, spans: u64) {
        self.dropped.fetch_add(spans, Ordering::Relaxed);
    }
}

/// Where finished spans go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sink {
    queue: mpsc::Sender<Span>,
    counts: Arc<Counts>,
}

impl Sink {
    /// A queue, and its other end.
    pub fn new() -> (Self, mpsc::Receiver<Span>) {
        let (queue, spans) = mpsc::channel(WAITING);
        (Self { queue, counts: Arc::default() }, spans)
    }

    /// Gives a span away. Never waits: what has no place is dropped.
    pub(crate) fn give(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.counts.add_dropped(1);
        }
    }

    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

/// The task that sends spans.
pub struct Sending {
    task: tokio::task::JoinHandle<()>,
    end: CancellationToken,
}

impl Sending {
    /// Begins to send what is given to the sink.
    pub fn start(settings: TraceSettings) -> (Self, Sink) {
        let (sink, spans) = Sink::new();
        let end = CancellationToken::new();
        tracing::info!(collector = %settings.collector.url, "traces are sent");
        let task = tokio::spawn(export::keep_sending(settings, spans, sink.counts.clone(), end.clone()));
        (Self { task, end }, sink)
    }

    /// Sends what waits, as far as a short time allows, and ends.
    pub async fn end(self) {
        self.end.cancel();
        if tokio::time::timeout(LAST, self.task).await.is_err() {
            tracing::warn!("some spans of traces could not be sent before the end");
        }
    }
}

#[cfg(test)]
mod tests;
