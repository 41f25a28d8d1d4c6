//! Answers that are streams of events, one JSON object to a line.
//!
//! The work is a task of its own: a reader that leaves does not stop it. While there is nothing to say an empty line is
//! sent every [`QUIET`], so that readers can tell a slow daemon from a dead one.

use std::{
    convert::Infallible,
    future::Future,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use kiln_api::{ApiError, ErrorCode, Event, event::Outcome, report::TestReport};
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::timeout,
};

/// Longest silence.
const QUIET: Duration = Duration::from_secs(5);

/// Takes the events of one stream. Clones lead to the same stream.
#[derive(Debug, Clone)]
pub(super) struct Sink(mpsc::UnboundedSender<Event>);

impl Sink {
    /// Sends an event; nobody reads it where the reader has left.
    pub(super) fn send(&self, event: Event) {
        if self.0.send(event).is_err() {
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
pub(super) fn work<F>(work: impl FnOnce(Sink) -> F) -> Response
where
    F: Future<Output = Ended> + Send + 'static,
{
    let start = Instant::now();
    let (sender, receiver) = mpsc::unbounded_channel();
    let task = tokio::spawn(work(Sink(sender.clone())));
    tokio::spawn(async move {
        let ended = task.await.unwrap_or_else(|panic| Ended::failed(broken(&panic)));
        Sink(sender).send(result(ended, start.elapsed()));
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

/// Answers with everything that happens from now on, until the reader leaves or the daemon ends.
pub(super) fn follow(events: broadcast::Receiver<Event>, ending: watch::Receiver<bool>) -> Response {
    answer(futures::stream::unfold((events, ending), |(mut events, mut ending)| async move {
        let line = tokio::select! {
            line = next_of_all(&mut events) => line?,
            _ended = ending.wait_for(|ending| *ending) => return None,
        };
        Some((line, (events, ending)))
    }))
}

async fn next_of_all(events: &mut broadcast::Receiver<Event>) -> Option<Line> {
    match timeout(QUIET, events.recv()).await {
        Ok(Ok(event)) => Some(line(&event)),
        Ok(Err(broadcast::error::RecvError::Lagged(missed))) => {
            let message = format!("{missed} events were left out: this reader is too slow");
            Some(line(&Event::Warning { message }))
        }
        Ok(Err(broadcast::error::RecvError::Closed)) => None,
        Err(_) => Some(Ok("\n".to_owned())),
    }
}

type Line = Result<String, Infallible>;

fn line(event: &Event) -> Line {
    Ok(serde_json::to_string(event).expect("events always serialise") + "\n")
}

fn answer(lines: impl futures::Stream<Item = Line> + Send + 'static) -> Response {
    ([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(lines)).into_response()
}
