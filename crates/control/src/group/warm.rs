//! Holding a server that is ready: it is made, started and watched as any other that is launched, and stands still then.

use kiln_engine::{EngineError, LaunchSpec, Observed};
use kiln_model::VerifiedRelease;
use tokio::time::Instant;

use super::begin::secrets;
use crate::{bound, logs::Origin, readiness, shared::Shared};

/// Its services were not ready in time.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotReady(String);

/// Makes a server whose services are ready, and freezes it. Those that are made at once wait for each other, so that no launch
/// waits for them.
pub(super) async fn hold(
    shared: &Shared,
    release: &VerifiedRelease,
    spec: &LaunchSpec,
    prepare: bool,
    name: &str,
) -> Result<Observed, EngineError> {
    let _turn = shared.warming.acquire().await;
    if prepare {
        shared.engine.prepare(release.release().image).await?;
    }
    let mut spec = spec.clone();
    spec.secrets = secrets(shared, release).await?;
    let holding = shared.engine.holding().ok_or(EngineError::Unsupported { ability: "hold servers that are ready" })?;
    let launched = Instant::now();
    let seen = holding.warm(release, &spec).await?;
    shared.fail_point(|| format!("{name}: after its start")).await;
    follow_logs(shared, release, &spec);
    let watched = readiness::Watched {
        engine: shared.engine.clone(),
        server: spec.server.clone(),
        address: seen.address,
        manifest: spec.manifest.clone(),
        launched,
    };
    let ready = async {
        readiness::wait(watched).await?;
        bound::wait(&bound::needed(&spec.manifest, Some(release.config())), bound::WITHIN).await
    };
    let late = |reason| EngineError::Failed { action: "hold it".to_owned(), source: Box::new(NotReady(reason)) };
    ready.await.map_err(late)?;
    shared.fail_point(|| format!("{name}: before it is frozen")).await;
    holding.freeze(&spec.server, spec.generation).await?;
    Ok(seen)
}

/// What its services say before anybody takes it goes where the group's lines go.
fn follow_logs(shared: &Shared, release: &VerifiedRelease, spec: &LaunchSpec) {
    let paths = shared.engine.inside().and_then(|inside| inside.spool(&spec.server));
    if let (Some(paths), Some(group)) = (paths.and_then(|paths| paths.try_into().ok()), &spec.group) {
        shared.logs.follow(group, &spec.server, &release.release().id(), paths, Origin::Launched);
    }
}
