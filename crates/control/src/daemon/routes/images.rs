//! `GET /v1/images` and `POST /v1/test`.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State, response::Response};
use kiln_api::{
    ApiError,
    host::{Collected, ImagesInUse},
    report::TestReport,
    request::TestRequest,
};
use kiln_model::{
    Group, ImageManifest,
    config::{ConfigSource, ConfigType, ConfigValue},
    fleet::{EvidencePolicy, ImageRef},
    manifest::BindingTest,
};

use super::{
    super::{
        App,
        error::{Body, Failure, IntoApi},
        stream::{self, Ended, Sink},
    },
    Shared,
};
use crate::reports::blocking;

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
    super::super::apply::record_proof(app, &proof, "test", super::super::apply::PROVEN).await?;
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

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        failure.0.into_api()
    }
}
