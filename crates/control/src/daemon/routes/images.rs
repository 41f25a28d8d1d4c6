//! `GET /v1/images`, `POST /v1/test` and `POST /v1/promote`.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State, response::Response};
use jiff::Timestamp;
use kiln_api::{
    ApiError, ErrorCode, Event,
    host::{Collected, ImagesInUse},
    report::TestReport,
    request::{PromoteRequest, Promoted, TestRequest},
};
use kiln_model::{
    ChannelName, Group, ImageManifest,
    config::{ConfigSource, ConfigType, ConfigValue},
    fleet::{EvidencePolicy, ImageRef},
    manifest::BindingTest,
};
use serde_json::json;

use super::{
    super::{
        App,
        error::{Body, Failure, IntoApi},
        stream::{self, Ended, Sink},
    },
    Shared,
};
use crate::{
    releases::{ImageInfo, NotAdmitted, ReleasesError},
    reports::blocking,
};

pub(super) async fn in_use(State(app): Shared) -> Result<Json<ImagesInUse>, Failure> {
    let images = app.control.images_in_use().await?;
    Ok(Json(ImagesInUse { images: images.iter().map(ToString::to_string).collect() }))
}

/// A secret that nothing names is removed when it was not wanted for so long: a release under test is not recorded yet.
const SECRET_KEPT: Duration = Duration::from_secs(86_400);

pub(super) async fn collect(State(app): Shared) -> Result<Json<Collected>, Failure> {
    let keep = app.control.secrets_in_use().await?;
    let secrets = app.secrets.clone();
    let removed = tokio::task::spawn_blocking(move || secrets.collect(&keep, SECRET_KEPT)).await;
    let secrets = removed.expect("removing secrets does not panic").map_err(crate::config::ConfigError::from)?;
    Ok(Json(Collected { secrets }))
}

pub(super) async fn test(State(app): Shared, Body(request): Body<TestRequest>) -> Response {
    stream::work(&app.clone(), |sink| async move {
        match run_test(&app, &request, &sink).await {
            Ok(ended) => ended,
            Err(Failure(error)) => Ended::failed(error),
        }
    })
}

async fn run_test(app: &Arc<App>, request: &TestRequest, sink: &Sink) -> Result<Ended, Failure> {
    super::super::apply::room(&app.options.state_dir)?;
    let (library, reference) = (app.library.clone(), request.image.clone());
    let image = blocking(move || library.resolve(&reference)).await?;
    let events = |event| sink.tell(event);
    let policy = EvidencePolicy::default();
    let alone = || Box::new(alone(&request.image, &image.manifest));
    let group = request.group.clone().unwrap_or_else(alone);
    let config = app.freezer.freeze(&group, &image.manifest, &request.directory).await?.config;
    let proof = app.prover.prove(&image, &config, policy, request.fresh, &events).await?;
    super::super::apply::record_proof(app, &proof).await?;
    let error = (!proof.passed()).then(|| super::super::apply::tests_failed(&proof.report));
    if request.move_dev && error.is_none() {
        sink.tell(super::super::apply::move_dev(app, &image).await?);
    }
    Ok(Ended { reports: vec![TestReport::from(&proof.report)], error, endpoints: Vec::new() })
}

/// A group of an image that is tested without a fleet. Bindings that throwaway services stand in for need no values of a fleet.
fn alone(image: &ImageRef, manifest: &ImageManifest) -> Group {
    let mut group = Group::new(image.clone());
    let throwaway = manifest.bindings.iter().filter(|(_, binding)| binding.test == BindingTest::Throwaway);
    for (name, binding) in throwaway {
        let texts = binding.fields.required().filter(|(_, spec)| matches!(spec.kind, ConfigType::String { .. }));
        let stand_in = || ConfigSource::Literal(ConfigValue::Text("throwaway".to_owned()));
        group.bindings.insert(name.clone(), texts.map(|(key, _)| (key.clone(), stand_in())).collect());
    }
    group
}

pub(super) async fn promote(
    State(app): Shared,
    Body(request): Body<PromoteRequest>,
) -> Result<Json<Promoted>, Failure> {
    let (library, reference) = (app.library.clone(), request.image.clone());
    let image = blocking(move || library.resolve(&reference)).await?;
    let (library, of) = (app.library.clone(), image.clone());
    let vouched = tokio::task::spawn_blocking(move || library.vouched(&of, Timestamp::now())).await;
    match vouched.expect("looking at reports does not panic") {
        Ok(()) => {}
        Err(NotAdmitted::Refused(refusal)) => {
            let name = &image.name;
            let message = format!("{name} {} is not promoted: {refusal}", image.digest.short());
            return Err(ApiError::new(ErrorCode::Refused, message)
                .help(format!("run `kiln test` on {name} first"))
                .into());
        }
        Err(NotAdmitted::Unreadable(error)) => return Err(error.into()),
    }
    let inputs = json!({"image": image.digest, "name": image.name, "channel": request.to});
    app.control.record("promote", inputs, "its newest suite passed, as a trusted key says").await?;
    let before = set_channel(&app, &image, request.to.clone()).await?;
    Ok(Json(Promoted {
        name: image.name.to_string(),
        channel: request.to.to_string(),
        image: image.digest.to_string(),
        before: before.map(|digest| digest.to_string()),
    }))
}

async fn set_channel(
    app: &Arc<App>,
    image: &ImageInfo,
    channel: ChannelName,
) -> Result<Option<kiln_model::ImageDigest>, ReleasesError> {
    let (library, image) = (app.library.clone(), image.clone());
    blocking(move || {
        let before = library.channel(&image.name, &channel)?;
        library.set_channel(&image.name, &channel, &image.digest)?;
        Ok(before)
    })
    .await
}

/// Told when a channel was moved.
pub(in super::super) fn moved(image: &ImageInfo, channel: &ChannelName) -> Event {
    Event::Channel { name: image.name.to_string(), channel: channel.to_string(), image: image.digest.to_string() }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        failure.0.into_api()
    }
}
