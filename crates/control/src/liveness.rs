//! Watching a server that serves: services whose recipe says how to know that they still work.
//!
//! Death is seen without asking; this is for what lives and does not work. An attempt follows the one before after the
//! interval, so that one slow service is never asked twice at once; the intervals are spread by a tenth, so that servers
//! that were launched together are not asked together. It costs a timer and a connection, no thread.

use std::time::Duration;

use futures::future::select_all;
use kiln_model::{
    ServiceName,
    manifest::{Liveness, Service},
};
use rand::RngExt as _;
use tokio::time::{sleep, timeout};

use crate::readiness::{self, Watched};

/// Returns when a service has failed too often in a row, and says how. Never returns where no service is to be asked.
pub(crate) async fn wait(watched: &Watched) -> String {
    let checks = watched.manifest.services.iter().filter_map(|(name, service)| {
        let liveness = service.liveness.as_ref()?;
        Some(Box::pin(one(watched, name, service, liveness)))
    });
    let checks: Vec<_> = checks.collect();
    match checks.is_empty() {
        true => std::future::pending().await,
        false => select_all(checks).await.0,
    }
}

/// Whether any service is to be asked.
pub(crate) fn wanted(watched: &Watched) -> bool {
    watched.manifest.services.values().any(|service| service.liveness.is_some())
}

async fn one(watched: &Watched, name: &ServiceName, service: &Service, liveness: &Liveness) -> String {
    let mut failures = 0;
    while failures < liveness.failures {
        sleep(spread(liveness.interval)).await;
        let attempt = readiness::attempt(watched, service, &liveness.check, liveness.timeout);
        let good = timeout(liveness.timeout, attempt).await.unwrap_or(false);
        failures = if good { 0 } else { failures + 1 };
    }
    let check = readiness::unanswered(&liveness.check);
    let (times, limit) = (liveness.failures, kiln_model::duration::format(liveness.timeout));
    format!("service `{name}` does not work any more: {check} within {limit}, {times} times in a row")
}

fn spread(interval: Duration) -> Duration {
    interval.mul_f64(rand::rng().random_range(0.9..1.1))
}
