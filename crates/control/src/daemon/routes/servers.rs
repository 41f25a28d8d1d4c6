//! `GET /v1/servers/{id}` and `POST /v1/touch`.

use axum::{
    Json,
    extract::{Path, State},
};
use kiln_api::{
    ApiError, ErrorCode,
    host::{ServerDetails, ServiceDetails},
    request::{Done, TouchRequest},
    status::{GroupStatus, ServerStatus},
};
use kiln_engine::ServiceStatus;
use kiln_model::ServerId;

use super::{
    super::error::{Body, Failure},
    Shared,
};

pub(super) async fn details(State(app): Shared, Path(id): Path<String>) -> Result<Json<ServerDetails>, Failure> {
    let id: ServerId =
        id.parse().map_err(|e: kiln_model::id::InvalidName| ApiError::new(ErrorCode::Invalid, e.to_string()))?;
    let status = app.control.status().await?;
    let found = status.groups.into_iter().find_map(|group| {
        let server = group.servers.iter().find(|server| server.id == id.as_str())?.clone();
        Some((group, server))
    });
    let (group, server) = found.ok_or_else(|| not_found(&id))?;
    let inside = app.engine.inside();
    let services = match inside {
        // Of one that has ended or is about to, PID 1 says nothing.
        Some(inside) => inside.services(&id).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let control_socket = inside.and_then(|inside| inside.control_socket(&id));
    let log = inside.and_then(|inside| inside.spool(&id)).unwrap_or_default();
    Ok(Json(ServerDetails {
        control_socket: control_socket.map(|path| path.display().to_string()),
        log: log.iter().map(|path| path.display().to_string()).collect(),
        ..describe(group, server, services)
    }))
}

fn not_found(id: &ServerId) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no server `{id}`"))
        .help("run `kiln status` to see what there is")
}

fn describe(group: GroupStatus, status: ServerStatus, services: Vec<ServiceStatus>) -> ServerDetails {
    let on_wanted = status.release == group.release;
    ServerDetails {
        group: group.name,
        config: if on_wanted { group.config } else { String::new() },
        status,
        services: services.into_iter().map(service).collect(),
        control_socket: None,
        log: Vec::new(),
    }
}

fn service(service: ServiceStatus) -> ServiceDetails {
    let ServiceStatus { name, up, starts, last_exit } = service;
    ServiceDetails { name: name.to_string(), up, starts, last_exit }
}

pub(super) async fn touch(State(app): Shared, Body(request): Body<TouchRequest>) -> Result<Json<Done>, Failure> {
    app.control.touch(&request.server, &request.command).await?;
    tracing::warn!(server = %request.server, command = ?request.command, "somebody runs a command inside a server");
    Ok(Json(Done {}))
}
