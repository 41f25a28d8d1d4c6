//! `GET /v1/host`.

use axum::{Json, extract::State};
use kiln_api::host::{DaemonStatus, HostInventory};

use super::{
    super::{App, HostError, error::Failure},
    Shared,
};
use crate::keys::KeysError;

pub(super) async fn inventory(State(app): Shared) -> Result<Json<HostInventory>, Failure> {
    let host = app.host.clone();
    let listed = tokio::task::spawn_blocking(move || host.inventory()).await;
    let items = listed.unwrap_or_else(|panic| {
        Err(HostError { action: "list what Kiln made on this host".to_owned(), source: Box::new(panic) })
    })?;
    let gateway = match &app.gateway {
        Some(gateway) => gateway.status().await,
        None => None,
    };
    Ok(Json(HostInventory { daemon: daemon(&app)?, gateway, items }))
}

fn daemon(app: &App) -> Result<DaemonStatus, KeysError> {
    Ok(DaemonStatus {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: app.options.state_dir.display().to_string(),
        run: app.options.run_dir.display().to_string(),
        started_at: app.started_at.to_string(),
        engine: app.engine.name().to_owned(),
        key: app.keys.id()?,
        revival: app.options.revival.word().to_owned(),
    })
}
