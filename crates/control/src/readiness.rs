//! Watching a new server until all its services are ready, or one is too late.
//!
//! Checks run from here against the server's address; a service without a check is ready when PID 1 says that it
//! runs. A check is tried again after an eighth of the time since the first, at least 0.3 ms and at most 50 ms: most
//! services answer within a few milliseconds, the pause is what a rollout waits for, and so it adds little to any wait.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use futures::future::try_join_all;
use kiln_engine::Engine;
use kiln_model::{
    ImageManifest, ServerId, ServiceName,
    manifest::{Service, ServiceCheck},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    check::{self, Asked},
    pause::Pause,
};

const SHORTEST_PAUSE: Duration = Duration::from_micros(300);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
const FIRST_ATTEMPT: Duration = Duration::from_millis(50);
const LONGEST_ATTEMPT: Duration = Duration::from_secs(2);
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(250);
/// What is known of a service that is too late is not waited for longer.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// A service without a check must run within this time.
const RUNS_WITHIN: Duration = Duration::from_secs(30);

/// What is watched.
pub(crate) struct Watched {
    pub engine: Arc<dyn Engine>,
    pub server: ServerId,
    pub address: Option<Ipv4Addr>,
    pub manifest: Arc<ImageManifest>,
    /// When the server was launched: time limits count from here.
    pub launched: Instant,
}

/// Returns when every service is ready, or says which is not.
pub(crate) async fn wait(watched: Watched) -> Result<(), String> {
    let services = watched.manifest.services.iter();
    try_join_all(services.map(|(name, service)| ready(&watched, name, service))).await.map(drop)
}

async fn ready(watched: &Watched, name: &ServiceName, service: &Service) -> Result<(), String> {
    let within = service.readiness.as_ref().map_or(RUNS_WITHIN, |readiness| readiness.within);
    let check = async {
        match &service.readiness {
            Some(readiness) => poll(watched, service, &readiness.check, within).await,
            None => runs(watched, name).await,
        }
    };
    let deadline = watched.launched + within;
    match tokio::time::timeout_at(deadline, check).await {
        Ok(()) => Ok(()),
        Err(_) => Err(late(watched, name, service, within).await),
    }
}

async fn late(watched: &Watched, name: &ServiceName, service: &Service, within: Duration) -> String {
    let check = service.readiness.as_ref().map_or_else(|| "it does not run".to_owned(), |r| unanswered(&r.check));
    let status = timeout(LAST_LOOK, check::status(&*watched.engine, &watched.server, name)).await;
    let status = status.ok().and_then(Result::ok).flatten();
    let exit = status.and_then(|status| {
        let times = status.starts;
        status.last_exit.map(|exit| format!("; its process ended ({exit}) after {times} starts"))
    });
    let within = kiln_model::duration::format(within);
    format!("service `{name}` was not ready within {within}: {check}{}", exit.unwrap_or_default())
}

/// What a check that failed has seen.
pub(crate) fn unanswered(check: &ServiceCheck) -> String {
    match check {
        ServiceCheck::Http { port, path } => format!("GET {path} on port {port} did not answer with success"),
        ServiceCheck::Tcp { port } => format!("port {port} accepted no connection"),
        ServiceCheck::Command { command } => format!("`{}` did not succeed", command.join(" ")),
    }
}

/// Returns when PID 1 says that the service runs; at once where an engine does not tell. A service that starts, or a task
/// that ends well, gives no hint, so it is asked again and again.
async fn runs(watched: &Watched, name: &ServiceName) {
    let mut pause = FIRST_LOOK;
    while watched.engine.inside().is_some() && !runs_now(watched, name).await {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_LOOK);
    }
}

async fn runs_now(watched: &Watched, name: &ServiceName) -> bool {
    let status = check::status(&*watched.engine, &watched.server, name).await;
    status.is_ok_and(|status| status.is_some_and(|service| service.up))
}

async fn poll(watched: &Watched, service: &Service, check: &ServiceCheck, within: Duration) {
    let (start, mut limit, timer) = (Instant::now(), FIRST_ATTEMPT, Pause::new());
    loop {
        let attempt = attempt(watched, service, check, within);
        // A command is not cut short: it would be started again and again.
        let good = match check {
            ServiceCheck::Command { .. } => attempt.await,
            _ => timeout(limit, attempt).await.unwrap_or(false),
        };
        if good {
            return;
        }
        let pause = (start.elapsed() / 8).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let exact = match &timer {
            Ok(timer) => timer.wait(pause).await.is_ok(),
            Err(_) => false,
        };
        if !exact {
            sleep(pause).await;
        }
        limit = (limit * 2).min(LONGEST_ATTEMPT);
    }
}

/// One attempt. A command inside is given up after `within`; whoever calls limits the rest.
pub(crate) async fn attempt(watched: &Watched, service: &Service, check: &ServiceCheck, within: Duration) -> bool {
    let Watched { engine, server, address, .. } = watched;
    let asked = Asked { engine: &**engine, server, address: *address, user: &service.user };
    asked.attempt(check, within).await.is_ok()
}

/// The time a server may take to stop: its slowest service's grace, and some for PID 1 itself.
pub(crate) fn stop_limit(manifest: &ImageManifest) -> Duration {
    let grace = manifest.services.values().map(|service| service.stop.grace).max().unwrap_or_default();
    grace + Duration::from_secs(5)
}
