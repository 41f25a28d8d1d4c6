//! Answers that are streams of events: one JSON object to a line, or server-sent events.
//!
//! The work is a task of its own: a reader that leaves does not stop it. While there is nothing to say an empty line is
//! sent every [`QUIET`], so that readers can tell a slow daemon from a dead one.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use kiln_api::{
    ApiError, ErrorCode, Event,
    client::Follow,
    event::{Happened, Outcome},
    report::TestReport,
};
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::timeout,
};

use super::{App, history::History};

/// Longest silence.
const QUIET: Duration = Duration::from_secs(5);

/// Takes the events of one stream. Clones lead to the same stream.
#[derive(Clone)]
pub(super) struct Sink {
    reader: mpsc::UnboundedSender<Event>,
    history: Arc<History>,
}

impl Sink {
    /// Sends an event that control does not tell of, and takes note of it.
    pub(super) fn tell(&self, event: Event) {
        self.history.note(event.clone(), jiff::Timestamp::now());
        self.send(event);
    }

    /// Sends an event; nobody reads it where the reader has left.
    pub(super) fn send(&self, event: Event) {
        if self.reader.send(event).is_err() {
            tracing::trace!("the reader of a stream has left");
        }
    }
}

/// What a piece of work came to.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Where groups can be reached.
    pub(super) endpoints: Vec<String>,
    /// Reports made or used.
    pub(super) reports: Vec<TestReport>,
    /// Why it failed, if it did.
    pub(super) error: Option<ApiError>,
}

impl Ended {
    pub(super) fn failed(error: ApiError) -> Self {
        Self { error: Some(error), ..Self::default() }
    }
}

/// Starts a piece of work and answers with its events and, as the last line, its result.
pub(super) fn work<F>(app: &App, work: impl FnOnce(Sink) -> F) -> Response
where
    F: Future<Output = Ended> + Send + 'static,
{
    let start = Instant::now();
    let (sender, receiver) = mpsc::unbounded_channel();
    let sink = Sink { reader: sender, history: app.history.clone() };
    let task = tokio::spawn(work(sink.clone()));
    tokio::spawn(async move {
        let ended = task.await.unwrap_or_else(|panic| Ended::failed(broken(&panic)));
        sink.send(result(ended, start.elapsed()));
    });
    answer(futures::stream::unfold(receiver, next))
}

fn broken(panic: &tokio::task::JoinError) -> ApiError {
    tracing::error!(%panic, "a request's work broke off");
    ApiError::new(ErrorCode::Internal, "a mistake in Kiln broke this off; daemon.log in the state directory says more")
}

fn result(ended: Ended, took: Duration) -> Event {
    Event::Result {
        result: if ended.error.is_none() { Outcome::Ok } else { Outcome::Failed },
        seconds: (took.as_secs_f64() * 1000.0).round() / 1000.0,
        endpoints: ended.endpoints,
        reports: ended.reports,
        error: ended.error,
    }
}

async fn next(mut receiver: mpsc::UnboundedReceiver<Event>) -> Option<(Line, mpsc::UnboundedReceiver<Event>)> {
    match timeout(QUIET, receiver.recv()).await {
        Ok(Some(event)) => Some((line(&event), receiver)),
        Ok(None) => None,
        Err(_) => Some((Ok("\n".to_owned()), receiver)),
    }
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON, one to a line.
    Lines,
    /// Server-sent events (WHATWG HTML, section 9.2).
    ServerSent,
}

impl Format {
    fn kind(self) -> &'static str {
        match self {
            Self::Lines => "application/jsonl",
            Self::ServerSent => "text/event-stream",
        }
    }
    fn nothing(self) -> &'static str {
        match self {
            Self::Lines => "\n",
            Self::ServerSent => ":\n\n",
        }
    }
    fn write(self, happened: &Happened) -> String {
        let json = serde_json::to_string(happened).expect("events always serialise");
        match self {
            Self::Lines => json + "\n",
            Self::ServerSent => format!("id: {}\nevent: {}\ndata: {json}\n\n", happened.id, happened.event.kind()),
        }
    }
}

/// What a reader of the history gets.
struct Reader {
    missed: VecDeque<Arc<Happened>>,
    live: Option<broadcast::Receiver<Arc<Happened>>>,
    ending: watch::Receiver<bool>,
    format: Format,
    last: u64,
}

/// Answers with what is kept of the events after a number, then, if it follows, with everything that happens until the reader
/// leaves or the daemon ends.
pub(super) fn follow(history: &History, after: u64, follow: Follow, format: Format, app: &App) -> Response {
    let (missed, live) = history.after(after);
    let live = (follow == Follow::Yes).then_some(live);
    let reader = Reader { missed, live, ending: app.ending(), format, last: after };
    let lines = futures::stream::unfold(reader, |mut reader| async move {
        let line = reader.next().await?;
        Some((Ok::<_, Infallible>(line), reader))
    });
    ([(header::CONTENT_TYPE, format.kind())], Body::from_stream(lines)).into_response()
}

impl Reader {
    async fn next(&mut self) -> Option<String> {
        if let Some(happened) = self.missed.pop_front() {
            return Some(self.write(&happened));
        }
        let live = self.live.as_mut()?;
        let received = tokio::select! {
            received = timeout(QUIET, live.recv()) => received,
            _ended = self.ending.wait_for(|ending| *ending) => return None,
        };
        match received {
            Ok(Ok(happened)) => Some(self.write(&happened)),
            Ok(Err(broadcast::error::RecvError::Lagged(missed))) => {
                let message = format!("{missed} events were left out: this reader is too slow");
                let event = Event::Warning { message };
                Some(self.write(&Happened { id: self.last, at: jiff::Timestamp::now().to_string(), event }))
            }
            Ok(Err(broadcast::error::RecvError::Closed)) => None,
            Err(_) => Some(self.format.nothing().to_owned()),
        }
    }

    fn write(&mut self, happened: &Happened) -> String {
        self.last = happened.id;
        self.format.write(happened)
    }
}

type Line = Result<String, Infallible>;

fn line(event: &Event) -> Line {
    Ok(serde_json::to_string(event).expect("events always serialise") + "\n")
}

fn answer(lines: impl futures::Stream<Item = Line> + Send + 'static) -> Response {
    ([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(lines)).into_response()
}
