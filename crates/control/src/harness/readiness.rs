//! When a server's services work: the readiness checks of the image's manifest.
//!
//! A service with a check is ready when the check holds; one without is ready when its process runs (or, for a task, has
//! ended well). Checks are tried at once and then again after 1, 2, 4 … 50 ms, so that a fast service is seen fast.

use std::time::Duration;

use kiln_api::error::chain;
use kiln_engine::{Engine, Observed, Phase};
use kiln_model::{ImageManifest, ServerId, ServiceName, manifest::Service};
use tokio::sync::broadcast::error::RecvError;

use crate::{
    check::{self, Asked},
    retry,
};

/// A service without a readiness check must run within this time.
const RUNNING_LIMIT: Duration = Duration::from_secs(30);
/// The first attempt of a check may take this long and each further one twice as long, up to [`ATTEMPT_LIMIT`]: a connection
/// that was begun before the service listened can hang while a new one would not.
const FIRST_ATTEMPT: Duration = Duration::from_millis(100);
/// One attempt of a check may take this long.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);

/// Why a server is not ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotReady {
    /// A service's time is over.
    #[error("service `{service}` was not ready: {seen}")]
    Service {
        /// The service.
        service: ServiceName,
        /// What its check saw, and how the service last ended, if it did.
        seen: String,
    },
    /// The server ended.
    #[error("the server ended before it was ready: {reason}")]
    Exited {
        /// What the engine knows.
        reason: String,
    },
}

/// Waits until all services are ready, each within its own limit, or the first one that cannot be, or the server's end.
pub(super) async fn wait(engine: &dyn Engine, server: &Observed, manifest: &ImageManifest) -> Result<(), NotReady> {
    let services = manifest.services.iter().map(|(name, service)| wait_for(engine, server, name, service));
    let all = futures::future::try_join_all(services);
    tokio::select! {
        ready = all => ready.map(drop),
        reason = ended(engine, &server.server) => Err(NotReady::Exited { reason }),
    }
}

async fn wait_for(
    engine: &dyn Engine,
    server: &Observed,
    name: &ServiceName,
    service: &Service,
) -> Result<(), NotReady> {
    let within = service.readiness.as_ref().map_or(RUNNING_LIMIT, |readiness| readiness.within);
    let asked = Asked { engine, server: &server.server, address: server.address, user: &service.user };
    let tried = match &service.readiness {
        Some(readiness) => {
            let mut limit = FIRST_ATTEMPT;
            retry::until(within, |_| {
                let attempt = asked.attempt(&readiness.check, ATTEMPT_LIMIT);
                let limited = tokio::time::timeout(limit, attempt);
                limit = (limit * 2).min(ATTEMPT_LIMIT);
                async move { Ok(limited.await.unwrap_or_else(|_| Err("the check did not end".to_owned()))?) }
            })
            .await
        }
        None => retry::until(within, |_| async { Ok(running(engine, &server.server, name).await?) }).await,
    };
    let Some(mut seen) = tried.failure else { return Ok(()) };
    if let Some(last_exit) = last_exit(engine, &server.server, name).await {
        seen = format!("{seen}; {last_exit}");
    }
    Err(NotReady::Service { service: name.clone(), seen })
}

async fn running(engine: &dyn Engine, server: &ServerId, name: &ServiceName) -> Result<(), String> {
    match check::status(engine, server, name).await? {
        Some(service) if service.up => Ok(()),
        Some(_) => Err("it does not run".to_owned()),
        None => Err("it was not started".to_owned()),
    }
}

async fn last_exit(engine: &dyn Engine, server: &ServerId, name: &ServiceName) -> Option<String> {
    let service = check::status(engine, server, name).await.ok()??;
    let last = service.last_exit?;
    Some(format!("it was started {} times and last ended with {last}", service.starts))
}

/// Returns when a server has ended, with what is known of its end.
pub(super) async fn ended(engine: &dyn Engine, server: &ServerId) -> String {
    let mut hints = engine.hints();
    loop {
        match find(engine, server).await {
            Ok(Some(Observed { phase: Phase::Exited { reason, .. }, .. })) => return reason,
            Ok(None) => return "it is gone".to_owned(),
            // An engine that cannot answer now is asked again; the services' own limits bound the wait.
            Ok(Some(_)) | Err(_) => {}
        }
        let pause = tokio::time::sleep(Duration::from_millis(100));
        tokio::pin!(pause);
        tokio::select! {
            Err(RecvError::Closed) = hints.recv() => pause.await,
            () = &mut pause => {}
            else => {}
        }
    }
}

async fn find(engine: &dyn Engine, server: &ServerId) -> Result<Option<Observed>, String> {
    let all = engine.observe().await.map_err(|e| chain(&e))?;
    Ok(all.into_iter().find(|observed| observed.server == *server))
}
