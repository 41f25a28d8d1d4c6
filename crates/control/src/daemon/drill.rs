//! The restore drill: the newest snapshot of each volume is put on a throwaway server, and the recipe's tests are run there.
//!
//! A snapshot that nobody has restored is a hope. What is written down is the newest restore point that was proven, and why the
//! last drill failed if it did.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kiln_api::{ApiError, ErrorCode, Event, error::chain};
use kiln_model::{GroupName, VolumeName, evidence::Verdict, volume::SnapshotId};

use super::{App, error::Failure};
use crate::{InService, volumes::Trial};

/// How often it is looked whether a drill is due.
const PAUSE: Duration = Duration::from_secs(30);

/// Goes on for ever.
pub(super) async fn keep_drilling(app: Arc<App>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        for group in app.control.drills_due() {
            // Why it failed is told by an event.
            drill(&app, Some(&group)).await.unwrap_or(());
        }
    }
}

/// Tries the newest snapshots of a group, or of all.
pub(super) async fn drill(app: &App, group: Option<&GroupName>) -> Result<(), Failure> {
    let services = app.control.in_service().await?;
    let mut failed = Vec::new();
    let mut tried = 0;
    for service in services.into_iter().filter(|service| group.is_none_or(|group| service.group == *group)) {
        for (slot, volumes) in app.control.newest_snapshots(&service.group) {
            tried += 1;
            let failure = try_out(app, &service, volumes.clone()).await.err();
            let message = match &failure {
                None => format!(
                    "drill: the newest snapshots of slot {slot} of group `{}` were restored and passed its tests",
                    service.group
                ),
                Some(why) => format!("drill: slot {slot} of group `{}` was not proven: {why}", service.group),
            };
            failed.extend(failure.as_ref().map(|_| message.clone()));
            app.control.announce(Event::Warning { message });
            app.control.note_trial(&Trial { volumes: volumes.into_values().collect(), failure }).await?;
        }
    }
    match (tried, failed.is_empty()) {
        (0, _) => Err(Failure(
            ApiError::new(ErrorCode::NotFound, "there is no snapshot to try")
                .help("take one: `kiln volume snapshot VOLUME`"),
        )),
        (_, true) => Ok(()),
        (_, false) => Err(Failure(ApiError::new(ErrorCode::TestsFailed, failed.join("; ")))),
    }
}

async fn try_out(app: &App, service: &InService, volumes: BTreeMap<VolumeName, SnapshotId>) -> Result<(), String> {
    let (library, digest) = (app.library.clone(), service.image);
    let image = crate::reports::blocking(move || library.image(&digest)).await.map_err(|error| chain(&error))?;
    let tests = app.prover.drill(&image, &service.config, volumes).await.map_err(|error| chain(&error))?;
    let failed = tests.iter().filter(|test| test.verdict != Verdict::Passed);
    let failed: Vec<_> =
        failed.map(|test| format!("{}: {}", test.name, test.message.as_deref().unwrap_or("failed"))).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}
