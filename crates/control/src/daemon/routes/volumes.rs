//! `GET /v1/volumes`, `POST /v1/volume` and `POST /v1/drill`.

use axum::{Json, extract::State, response::Response};
use kiln_api::volume::{DrillRequest, VolumeDone, VolumeRequest, Volumes};
use kiln_model::GroupName;

use super::{
    super::{
        apply, drill,
        error::{Body, Failure},
        loss,
        stream::{self, Ended},
    },
    Shared,
};
use crate::loss::ServerAtStake;

pub(super) async fn list(State(app): Shared) -> Result<Json<Volumes>, Failure> {
    Ok(Json(app.control.volumes().await?))
}

pub(super) async fn change(
    State(app): Shared,
    Body(request): Body<VolumeRequest>,
) -> Result<Json<VolumeDone>, Failure> {
    let put_back = match &request {
        VolumeRequest::Restore { snapshot, loss } => snapshot.volume.slot().map(|slot| (slot, *loss)),
        _ => None,
    };
    let Some(((group, _, slot), accepted)) = put_back else {
        return Ok(Json(VolumeDone { done: app.control.volume(&request).await? }));
    };
    // The server that has it is replaced.
    let of = |name: &GroupName, server: &ServerAtStake| *name == group && server.slot == Some(slot);
    let lost = loss::weigh(&app, &[], of, accepted).await?;
    let done = app.control.volume(&request).await?;
    lost.record(&app, "volume restore").await?;
    app.control.put_back(&group, slot).await?;
    Ok(Json(VolumeDone { done }))
}

pub(super) async fn try_out(State(app): Shared, Body(request): Body<DrillRequest>) -> Response {
    stream::work(&app.clone(), |sink| async move {
        let drilled = async { drill::drill(&app, request.group.as_ref()).await };
        match apply::with_events(&app, &sink, drilled).await {
            Ok(()) => Ended::default(),
            Err(error) => Ended::failed(error.0),
        }
    })
}
