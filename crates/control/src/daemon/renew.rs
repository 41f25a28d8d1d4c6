//! Tests again before the evidence of a running release expires, so that healing never has to stop or warn.
//!
//! A release is due when [`DUE_AT`] of its report's life is over, or when it has no valid report any more. The servers in
//! service are not touched: the tests run on test servers of the same release. A run that fails is announced loudly; it refuses
//! new rollouts of the release, and is tried again later.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kiln_api::{Event, error::chain, request::Fresh};
use kiln_model::ReleaseId;
use tokio::sync::broadcast;

use super::App;
use crate::{
    InService,
    releases::{ImageInfo, ReleasesError},
    reports::{Proof, blocking},
};

/// The part of a report's life after which the release is tested again.
const DUE_AT: f64 = crate::reports::KEPT;
/// Why a release is not tested here.
const ELSEWHERE: &str = "its image came from elsewhere, or trust.toml does not let this host vouch for it: pull newer reports \
                         with `kiln pull`, or run `kiln test`";
/// The longest pause between two rounds.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// The shortest.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// Goes on for ever.
pub(super) async fn keep_renewing(app: Arc<App>) {
    let mut tried = HashMap::new();
    loop {
        let mut events = app.control.subscribe();
        let pause = round(&app, &mut tried).await.clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = rollout(&mut events) => {}
        }
    }
}

/// Returns when a group has moved to another release, or events were missed.
async fn rollout(events: &mut broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(Event::Rollout { state, .. }) if state == "done" => return,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => return,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Renews what is due; returns when the next release will be.
async fn round(app: &App, tried: &mut HashMap<ReleaseId, Instant>) -> Duration {
    let releases = match app.control.in_service().await {
        Ok(releases) => releases,
        Err(error) => {
            tracing::debug!(reason = chain(&error), "nothing to renew now");
            return LONGEST_PAUSE;
        }
    };
    let mut next = LONGEST_PAUSE;
    for release in releases {
        match due_in(app, &release, tried).await {
            Ok(Duration::ZERO) => renew(app, &release, tried).await,
            Ok(later) => next = next.min(later),
            Err(error) => warn(app, &release, &chain(&error)),
        }
        next = next.min(release.evidence.max_age.mul_f64(1.0 - DUE_AT) / 2);
    }
    next
}

async fn image(app: &App, release: &InService) -> Result<ImageInfo, ReleasesError> {
    let (library, digest, suite) = (app.library.clone(), release.image, release.suite);
    // The suite that the release was admitted with, not a newer one of the same image.
    blocking(move || Ok(ImageInfo { suite, ..library.image(&digest)? })).await
}

/// How long until the release is to be tested again; zero if now.
async fn due_in(
    app: &App,
    release: &InService,
    tried: &HashMap<ReleaseId, Instant>,
) -> Result<Duration, ReleasesError> {
    let image = image(app, release).await?;
    let life = release.evidence.max_age.mul_f64(DUE_AT);
    let left = match app.prover.valid(&image, &release.config, release.evidence).await? {
        Ok(report) => life.saturating_sub(age(report.seen_at())),
        Err(_) => Duration::ZERO,
    };
    // A run that failed is not repeated at once.
    let rest = release.evidence.max_age.mul_f64(1.0 - DUE_AT) / 4;
    let rested = tried.get(&id(release)).map_or(Duration::ZERO, |at| rest.saturating_sub(at.elapsed()));
    Ok(left.max(rested))
}

fn age(seen_at: Timestamp) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(seen_at)).unwrap_or_default()
}

fn id(release: &InService) -> ReleaseId {
    kiln_model::Release { image: release.image, config: release.config.digest() }.id()
}

async fn renew(app: &App, release: &InService, tried: &mut HashMap<ReleaseId, Instant>) {
    tried.insert(id(release), Instant::now());
    let quiet = |_: Event| ();
    let image = match image(app, release).await {
        Ok(image) => image,
        Err(error) => return warn(app, release, &chain(&error)),
    };
    match app.prover.may_test(&image).await {
        Ok(true) => {}
        Ok(false) => return warn(app, release, ELSEWHERE),
        Err(error) => return warn(app, release, &chain(&error)),
    }
    match app.prover.prove(&image, &release.config, release.evidence, Fresh::Renew, &quiet).await {
        Ok(proof) => renewed(app, release, &proof).await,
        Err(error) => warn(app, release, &chain(&error)),
    }
}

async fn renewed(app: &App, release: &InService, proof: &Proof) {
    if let Err(error) = super::apply::record_proof(app, proof, "renew", "its report was about to expire").await {
        warn(app, release, &chain(&error));
    }
    match proof.passed() {
        true => tracing::info!(group = %release.group, "the evidence was renewed"),
        false => warn(app, release, &super::apply::tests_failed(&proof.report).message),
    }
}

fn warn(app: &App, release: &InService, reason: &str) {
    tracing::warn!(group = %release.group, reason, "the evidence could not be renewed");
    let group = &release.group;
    app.control.announce(Event::Warning {
        message: format!("the evidence of group `{group}` could not be renewed before it expires: {reason}"),
    });
}
