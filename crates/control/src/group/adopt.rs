//! Taking a group's servers over from an earlier daemon.
//!
//! Rows say what the earlier daemon knew and what it had begun, the engine says what is. A server that was being launched
//! and runs is kept; one that was being launched and does not run has failed and is replaced by another with a new id,
//! so that nothing is launched twice. What was held as a spare ended with that daemon. Everything else that was under way
//! is ordered again by the planner: every action can be repeated.

use std::collections::BTreeMap;

use kiln_engine::{Observed, Phase};
use kiln_model::{ServerId, ServerState};
use tokio::time::Instant;

use super::{GroupTask, Server, finish::End};
use crate::{db::ServerRow, logs::Origin};

impl GroupTask {
    /// Matches the rows with what the engine sees. Called once, before the task runs.
    pub async fn adopt(&mut self, rows: Vec<ServerRow>, seen: &BTreeMap<ServerId, Observed>) {
        // Before its servers are known: what is missing of them counts.
        self.shared.logs.policy(&self.row.name, self.row.spec.logs.as_ref());
        self.look_at_evidence().await;
        self.load_images().await;
        // Whatever became of the gateway meanwhile, it gets the whole table.
        self.routes_changed = true;
        for row in rows {
            let id = row.id.clone();
            self.servers.insert(id.clone(), Server::new(row, false));
            self.adopt_one(&id, seen.get(&id));
            self.follow_logs(&id, Origin::Found);
        }
    }

    fn adopt_one(&mut self, id: &ServerId, seen: Option<&Observed>) {
        let runs = seen.filter(|seen| !matches!(seen.phase, Phase::Exited { .. }));
        let Some(server) = self.servers.get_mut(id) else { return };
        server.running = runs.is_some();
        // It was confirmed by the same look at the engine: a later one must show it at once.
        server.known_since = Instant::now() - std::time::Duration::from_secs(5);
        let before = (server.row.address, server.row.pid);
        if let Some(seen) = runs {
            (server.row.address, server.row.pid) = (seen.address.or(server.row.address), seen.pid);
        }
        let changed = before != (server.row.address, server.row.pid);
        match (server.row.state, runs.is_some()) {
            (state, runs) if server.row.spare && state.is_live() => self.adopt_spare(id, runs),
            (ServerState::Launching, true) => {
                self.volumes_given(id);
                self.step_to(id, ServerState::Starting);
                self.watch(id, None);
            }
            (ServerState::Starting, true) => self.watch(id, None),
            (ServerState::Ready, true) => {
                // What is on disk as it is need not be written for every server of a fleet.
                if changed {
                    self.batch.server(&server.row);
                }
                self.watch_over(id);
            }
            (ServerState::Launching, false) => {
                self.fail(id, "the daemon ended while it was being launched".to_owned(), End::Unseen);
            }
            (ServerState::Starting | ServerState::Ready | ServerState::Draining | ServerState::Drained, false) => {
                self.fail(id, "it ended while no daemon ran".to_owned(), End::Unseen);
            }
            _ => self.batch.server(&server.row),
        }
    }

    /// The images of all releases that servers are on: their manifests say how to tell that a server is ready.
    async fn load_images(&mut self) {
        for release in self.releases.values().cloned().collect::<Vec<_>>() {
            let shared = self.shared.clone();
            let found = tokio::task::spawn_blocking(move || shared.releases.image(&release.image));
            if let Ok(Ok(info)) = found.await {
                self.images.insert(info.digest, info);
            }
        }
    }
}
