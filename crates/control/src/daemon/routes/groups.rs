//! `POST /v1/apply`, `/v1/rollback`, `/v1/rebuild`, `/v1/heal` and `/v1/down`.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use kiln_api::{
    ErrorCode,
    request::{ApplyRequest, DownRequest, HealRequest, Healed, Rebuild, RebuildRequest, RollbackRequest},
};
use kiln_model::GroupName;

use super::{
    super::{
        App, HostError, apply,
        error::{Body, Failure},
        loss,
        stream::{self, Ended, Sink},
    },
    Shared,
};
use crate::{Data, RebuildTarget, loss::ServerAtStake};

pub(super) async fn apply(State(app): Shared, Body(request): Body<ApplyRequest>) -> Response {
    stream::work(&app.clone(), |sink| async move { apply::apply(&app, request, &sink).await })
}

pub(super) async fn rollback(State(app): Shared, Body(request): Body<RollbackRequest>) -> Response {
    stream::work(&app.clone(), |sink| async move {
        let data = if request.with_data { Data::OfThen } else { Data::Kept };
        let groups = [request.group];
        let rolled = async {
            // Those of the release before may be among them; they are few, and nobody knows yet which release that is.
            let lost = loss::weigh(&app, &groups, |_, _| true, request.loss).await?;
            lost.record(&app, "rollback").await?;
            app.control.rollback(&groups[0], data).await?;
            app.keepers.renew(&groups);
            Ok::<_, Failure>(())
        };
        apply::follow(&app, &sink, rolled, |()| groups.to_vec()).await
    })
}

pub(super) async fn rebuild(State(app): Shared, Body(request): Body<RebuildRequest>) -> Response {
    let target = match request.what {
        Rebuild::Group(group) => RebuildTarget::Group(group),
        Rebuild::Server(server) => RebuildTarget::Server(server),
    };
    stream::work(&app.clone(), |sink| async move {
        let rebuilt = async {
            let (groups, one) = match &target {
                RebuildTarget::Group(group) => (vec![group.clone()], None),
                RebuildTarget::Server(server) => (Vec::new(), Some(server)),
            };
            let of = |_: &GroupName, server: &ServerAtStake| one.is_none_or(|one| *one == server.id);
            let lost = loss::weigh(&app, &groups, of, request.loss).await?;
            lost.record(&app, "rebuild").await?;
            Ok::<_, Failure>(app.control.rebuild(&target).await?)
        };
        apply::follow(&app, &sink, rebuilt, |groups| groups).await
    })
}

pub(super) async fn heal(State(app): Shared, Body(request): Body<HealRequest>) -> Result<axum::Json<Healed>, Failure> {
    Ok(axum::Json(Healed { forgotten: app.control.heal(&request.group).await? }))
}

pub(super) async fn down(State(app): Shared, Body(request): Body<DownRequest>) -> Response {
    if request.purge && !request.groups.is_empty() {
        let message = "`purge` removes everything, so it cannot be limited to some groups";
        return axum::response::IntoResponse::into_response(Failure(kiln_api::ApiError::new(
            ErrorCode::Invalid,
            message,
        )));
    }
    stream::work(&app.clone(), |sink| async move {
        match run_down(&app, &request, &sink).await {
            Ok(()) => Ended::default(),
            Err(Failure(error)) => Ended::failed(error),
        }
    })
}

async fn run_down(app: &Arc<App>, request: &DownRequest, sink: &Sink) -> Result<(), Failure> {
    let (groups, purge) = (&request.groups, request.purge);
    let lost = loss::weigh(app, groups, |_, _| true, request.loss).await?;
    lost.record(app, if purge { "down --purge" } else { "down" }).await?;
    apply::with_events(app, sink, app.control.down(groups)).await?;
    app.keepers.renew(groups);
    if purge {
        app.control.record("purge", serde_json::json!({}), "somebody asked for it").await?;
        app.control.close().await;
        if let Some(gateway) = &app.gateway {
            gateway
                .stop()
                .await
                .map_err(|e| HostError { action: "end the gateway".to_owned(), source: Box::new(e) })?;
        }
        let host = app.host.clone();
        let purged = tokio::task::spawn_blocking(move || host.purge()).await;
        purged.unwrap_or_else(|panic| {
            Err(HostError { action: "remove what Kiln made on this host".to_owned(), source: Box::new(panic) })
        })?;
        app.end();
    }
    Ok(())
}
