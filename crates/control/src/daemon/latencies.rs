//! What the gateway counts for each server, summed up by release.
//!
//! The gateway knows servers and not releases, and forgets a server that leaves. So it is asked now and then, when the
//! metrics are, and whenever a server has been drained or has failed; what was answered since the last look is added to the
//! server's release. A gateway that begins anew begins at nothing.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kiln_api::{Event, status::Status};
use kiln_gateway::{client::Status as GatewayState, latency::Latency};
use tokio::sync::broadcast;

use super::App;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(30);
/// Releases whose sums are kept.
const RELEASES: usize = 64;

/// Sums by group and release.
#[derive(Default)]
pub(crate) struct Latencies(Mutex<Sums>);

#[derive(Default)]
struct Sums {
    /// What was seen of each server behind each port.
    seen: HashMap<(String, u16), Latency>,
    sums: VecDeque<((String, String), Latency)>,
}

impl Latencies {
    /// Adds what the gateway has counted since the last look.
    pub(crate) fn add(&self, gateway: &GatewayState, status: &Status) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let releases: HashMap<&str, (&str, &str)> = status
            .groups
            .iter()
            .flat_map(|group| {
                group.servers.iter().map(|server| (server.id.as_str(), (group.name.as_str(), server.release.as_str())))
            })
            .collect();
        let mut seen = HashMap::new();
        for route in &gateway.routes {
            for backend in &route.backends {
                let Some((group, release)) = releases.get(backend.server.as_str()) else { continue };
                let key = (backend.server.to_string(), route.bound.port);
                let earlier = sums.seen.get(&key).cloned().unwrap_or_default();
                sums.of(group, release).add(&backend.latency.since(&earlier));
                seen.insert(key, backend.latency.clone());
            }
        }
        sums.seen = seen;
    }

    /// The sums: group, release and counts.
    pub(crate) fn sums(&self) -> Vec<((String, String), Latency)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).sums.iter().cloned().collect()
    }
}

impl Sums {
    fn of(&mut self, group: &str, release: &str) -> &mut Latency {
        let key = (group.to_owned(), super::metrics::short(release));
        let found = self.sums.iter().position(|(known, _)| *known == key);
        let at = found.unwrap_or_else(|| {
            if self.sums.len() == RELEASES {
                self.sums.pop_front();
            }
            self.sums.push_back((key, Latency::default()));
            self.sums.len() - 1
        });
        &mut self.sums[at].1
    }
}

/// Looks now.
pub(super) async fn look(app: &App) {
    let Some(gateway) = &app.gateway else { return };
    if let (Some(state), Ok(status)) = (gateway.state().await, app.control.status().await) {
        app.latencies.add(&state, &status);
    }
}

/// Goes on for ever.
pub(super) async fn keep_looking(app: Arc<App>) {
    let mut events = app.control.subscribe();
    loop {
        let leaves = async {
            loop {
                match events.recv().await {
                    Ok(Event::Server { state, .. }) if state == "drained" || state == "failed" => return,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = leaves => {}
        }
        // One look is enough for all that have left by now.
        events = events.resubscribe();
        look(&app).await;
    }
}
