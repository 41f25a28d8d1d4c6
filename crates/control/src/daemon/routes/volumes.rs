//! `GET /v1/volumes`, `POST /v1/volume` and `POST /v1/drill`.

use axum::{Json, extract::State, response::Response};
use kiln_api::volume::{DrillRequest, VolumeDone, VolumeRequest, Volumes};

use super::{
    super::{
        apply, drill,
        error::{Body, Failure},
        stream::{self, Ended},
    },
    Shared,
};

pub(super) async fn list(State(app): Shared) -> Result<Json<Volumes>, Failure> {
    Ok(Json(app.control.volumes().await?))
}

pub(super) async fn change(
    State(app): Shared,
    Body(request): Body<VolumeRequest>,
) -> Result<Json<VolumeDone>, Failure> {
    let done = app.control.volume(&request).await?;
    if let VolumeRequest::Restore { snapshot } = &request
        && let Some((group, _, slot)) = snapshot.volume.slot()
    {
        app.control.put_back(&group, slot).await?;
    }
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
