//! `POST /v1/recovery`.

use axum::{extract::State, response::Response};
use kiln_api::{
    ApiError, ErrorCode,
    recovery::{Drill, RecoveryRequest},
};

use super::{
    super::{
        apply,
        error::{Body, Failure},
        recovery,
        stream::{self, Ended},
    },
    Shared,
};

/// Why a drill is made that somebody asks for.
const ASKED: &str = "somebody asked for it";

pub(super) async fn drill(State(app): Shared, Body(request): Body<RecoveryRequest>) -> Response {
    stream::work(&app.clone(), |sink| async move {
        let drilled = async {
            match &request {
                RecoveryRequest::Group { group, toll, loss } => {
                    recovery::servers(&app, group, *toll, *loss, ASKED).await
                }
                RecoveryRequest::Gateway {} => recovery::gateway(&app, ASKED).await,
                RecoveryRequest::Daemon {} => recovery::daemon(&app, ASKED).await,
            }
        };
        match apply::with_events(&app, &sink, drilled).await {
            Ok(drill) if drill.state == "met" => Ended::default(),
            Ok(drill) => Ended::failed(missed(&drill)),
            Err(Failure(error)) => Ended::failed(error),
        }
    })
}

fn missed(drill: &Drill) -> ApiError {
    let message = format!("the drill of {} is not as the fleet wants it: {}", drill.target(), drill.missed.join("; "));
    ApiError::new(ErrorCode::ObjectivesMissed, message).help(
        "`kiln status` shows the figures, `kiln events` what happened in between, `[group.NAME.drill]` what is wanted",
    )
}
