//! The endpoints, one file for each group of them.

mod config;
mod events;
mod groups;
mod host;
mod images;
mod loss;
mod promote;
mod recovery;
mod revoke;
mod servers;
mod volumes;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    routing::{get, post},
};
use kiln_api::{ApiError, ErrorCode, identity::JwkSet, request::Done, status::Status};

use super::{App, error::Failure};

/// A request body is at most this long, in bytes.
const MAX_BODY: usize = 4 << 20;

/// The shared state of handlers.
pub(super) type Shared = State<Arc<App>>;

/// Every endpoint of [`kiln_api::openapi::ENDPOINTS`].
pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/metrics", get(events::metrics))
        .route("/v1/events", get(events::follow))
        .route("/v1/images", get(images::in_use))
        .route("/v1/jwks", get(jwks))
        .route("/v1/shutdown", post(shutdown))
        .route("/v1/servers/{id}", get(servers::details))
        .route("/v1/touch", post(servers::touch))
        .route("/v1/loss", get(loss::all))
        .route("/v1/loss/{id}", get(loss::one))
        .route("/v1/host", get(host::inventory))
        .route("/v1/test", post(images::test))
        .route("/v1/gc", post(images::collect))
        .route("/v1/promote", post(promote::promote))
        .route("/v1/revoke", post(revoke::revoke))
        .route("/v1/apply", post(groups::apply))
        .route("/v1/config/diff", post(config::diff))
        .route("/v1/live", post(config::set))
        .route("/v1/live/{id}", get(config::live))
        .route("/v1/rollback", post(groups::rollback))
        .route("/v1/rebuild", post(groups::rebuild))
        .route("/v1/heal", post(groups::heal))
        .route("/v1/recovery", post(recovery::drill))
        .route("/v1/down", post(groups::down))
        .route("/v1/volumes", get(volumes::list))
        .route("/v1/volume", post(volumes::change))
        .route("/v1/drill", post(volumes::try_out))
        .fallback(async || Failure(ApiError::new(ErrorCode::NotFound, "there is no such endpoint")))
        .method_not_allowed_fallback(async || {
            Failure(ApiError::new(ErrorCode::Invalid, "this endpoint has another method"))
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(app)
}

/// What anybody may read who reaches the address of `--metrics`.
pub(super) fn offered(app: Arc<App>) -> Router {
    Router::new().route("/metrics", get(events::metrics)).route("/v1/jwks", get(jwks)).with_state(app)
}

async fn status(State(app): Shared) -> Result<axum::Json<Status>, Failure> {
    let mut status = app.control.status().await?;
    app.keepers.show(&mut status);
    Ok(axum::Json(status))
}

async fn jwks(State(app): Shared) -> axum::Json<JwkSet> {
    axum::Json(app.identity.key_set())
}

async fn shutdown(State(app): Shared) -> axum::Json<Done> {
    app.end();
    axum::Json(Done {})
}

pub(super) use promote::{move_channel, moved};
