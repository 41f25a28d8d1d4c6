//! `GET /v1/events` and `GET /metrics`.

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use kiln_api::{ApiError, ErrorCode, client::Follow};
use serde::Deserialize;

use super::{
    super::{
        error::Failure,
        metrics,
        stream::{self, Format},
    },
    Shared,
};

/// What a reader may ask for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// Events after this number; without it only those that come.
    after: Option<u64>,
    /// Whether to go on with what happens; it does where nothing is said.
    follow: Option<bool>,
}

/// A browser, or whatever else reads server-sent events, comes back with the number of the last event that it saw.
pub(super) async fn follow(
    State(app): Shared,
    query: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let invalid = |error: QueryRejection| Failure(ApiError::new(ErrorCode::Invalid, error.body_text()));
    let Query(asked) = query.map_err(invalid)?;
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let last = text("last-event-id").and_then(|id| id.parse().ok());
    let server_sent = text(header::ACCEPT.as_str()).is_some_and(|accept| accept.contains("text/event-stream"));
    let format = if server_sent { Format::ServerSent } else { Format::Lines };
    let follow = if asked.follow.unwrap_or(true) { Follow::Yes } else { Follow::No };
    Ok(stream::follow(&app.history, last.or(asked.after).unwrap_or(u64::MAX), follow, format, &app))
}

/// In the text format of Prometheus.
pub(super) async fn metrics(State(app): Shared) -> Result<Response, Failure> {
    let gateway = match &app.gateway {
        Some(gateway) => gateway.status().await,
        None => None,
    };
    let text = metrics::page(&app.history.metrics, &app.control.status().await?, gateway.as_ref());
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
