//! `GET /v1/loss` and `/v1/loss/{id}`.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
};
use jiff::Timestamp;
use kiln_api::{
    ApiError, ErrorCode,
    loss::{FileLoss, GroupLoss, LossReport, PlaceLoss, ServerLoss},
};
use kiln_model::{
    ServerId,
    fleet::LossPolicy,
    loss::{Written, WrittenFile},
};
use tokio::time::timeout;

use super::{
    super::{App, error::Failure},
    Shared,
};
use crate::loss::{GroupStake, Look, ServerStake};

/// The gateway and the engine say within this time who is connected.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn all(State(app): Shared) -> Result<Json<LossReport>, Failure> {
    report(&app, None).await
}

pub(super) async fn one(State(app): Shared, Path(id): Path<String>) -> Result<Json<LossReport>, Failure> {
    report(&app, Some(&id)).await
}

/// Of a group or a server of this name, or of all.
async fn report(app: &App, of: Option<&str>) -> Result<Json<LossReport>, Failure> {
    let named = |group: &str, server: &ServerId| of.is_none_or(|of| of == group || of == server.as_str());
    let stakes = app.control.at_stake(&[], |group, server| named(group.as_str(), &server.id), Look::All).await?;
    let known = |stake: &GroupStake| of.is_none_or(|of| of == stake.group.as_str()) || !stake.servers.is_empty();
    let stakes: Vec<_> = stakes.into_iter().filter(known).collect();
    if let (Some(of), true) = (of, stakes.is_empty()) {
        let error = ApiError::new(ErrorCode::NotFound, format!("there is no server or group `{of}`"));
        return Err(error.help("run `kiln status` to see what there is").into());
    }
    let in_flight = in_flight(app).await;
    let mut groups = Vec::new();
    for stake in stakes {
        groups.push(group(app, stake, in_flight.as_ref()).await);
    }
    Ok(Json(LossReport { groups }))
}

/// What the gateway has under way at each server.
async fn in_flight(app: &App) -> Option<BTreeMap<ServerId, u64>> {
    let carried = timeout(PATIENCE, app.control.traffic_load()).await.ok()?.ok()?;
    let mut servers = BTreeMap::new();
    for carried in carried {
        *servers.entry(carried.server).or_default() += carried.in_flight;
    }
    Some(servers)
}

async fn group(app: &App, stake: GroupStake, in_flight: Option<&BTreeMap<ServerId, u64>>) -> GroupLoss {
    let policy = stake.policy;
    let servers = stake.servers.into_iter().map(|server| async move {
        let in_flight = in_flight.map(|all| all.get(&server.server).copied().unwrap_or(0));
        let connections = connections(app, &server.server).await;
        ServerLoss { in_flight, connections, ..describe(policy, server) }
    });
    GroupLoss {
        name: stake.group.to_string(),
        limit_logs: policy.logs,
        limit_data: policy.data.as_bytes(),
        collector: stake.collector,
        servers: futures::future::join_all(servers).await,
    }
}

async fn connections(app: &App, server: &ServerId) -> Option<u64> {
    timeout(PATIENCE, app.engine.inside()?.connections(server)).await.ok()?.ok()
}

fn describe(policy: LossPolicy, server: ServerStake) -> ServerLoss {
    let ServerStake { server, state, stake } = server;
    let above = policy.excess(&stake).iter().map(ToString::to_string).collect();
    let (files, bytes) = (stake.files(), stake.bytes());
    ServerLoss {
        id: server.to_string(),
        state: state.word().to_owned(),
        places: stake.written.into_iter().map(place).collect(),
        files,
        bytes,
        lines: stake.lines,
        in_flight: None,
        connections: None,
        above,
        unknown: stake.unknown,
    }
}

fn place(written: Written) -> PlaceLoss {
    PlaceLoss {
        path: written.place.path,
        kind: written.place.kind.word().to_owned(),
        files: written.files,
        bytes: written.bytes,
        held: written.held,
        oldest: written.oldest_ms.and_then(time),
        newest: written.newest_ms.and_then(time),
        largest: written.largest.into_iter().map(file).collect(),
        at_least: !written.whole,
    }
}

fn file(file: WrittenFile) -> FileLoss {
    FileLoss { path: file.path, bytes: file.bytes, changed: time(file.changed_ms) }
}

/// None for a time that no calendar has: the service set it.
fn time(milliseconds: i64) -> Option<String> {
    Timestamp::from_millisecond(milliseconds).ok().map(|at| at.to_string())
}
