//! What a group does about itself: it says when healing has stopped, goes on when somebody says so, and replaces servers that
//! have become too old.

use jiff::Timestamp;
use kiln_api::status::HealingStatus;
use kiln_model::plan::{self, HealingHeld};
use serde_json::json;

use super::GroupTask;

impl GroupTask {
    /// Says once that healing has stopped, and once that it goes on.
    pub(super) fn note_held(&mut self, held: Option<HealingHeld>) {
        let before = std::mem::replace(&mut self.held, held);
        match (before, held) {
            (None, Some(held)) => {
                let inputs =
                    json!({"down": held.down, "limit": held.limit, "waiting": held.waiting, "until": held.until});
                let reason = self.why_held(&held);
                self.record("healing stopped", None, inputs, reason.clone());
                self.warn(format!("group `{}`: {reason}", self.row.name));
            }
            (Some(_), None) => {
                let reason = "what is missing may be launched again".to_owned();
                self.record("healing goes on", None, json!({}), reason);
            }
            _ => {}
        }
    }

    fn why_held(&self, held: &HealingHeld) -> String {
        let (name, count) = (&self.row.name, self.row.spec.count);
        let within = kiln_model::duration::format(self.row.spec.healing.within);
        let HealingHeld { down, limit, waiting, until } = held;
        format!(
            "healing has stopped: servers went down {down} times within {within}, {limit} are healed; {waiting} of {count} are \
             missing until {until:.0}, or until somebody has looked and says `kiln heal {name}`"
        )
    }

    /// For `status`.
    pub(super) fn healing(&self) -> Option<HealingStatus> {
        self.held.as_ref().map(|held| HealingStatus {
            down: held.down,
            limit: held.limit,
            waiting: held.waiting,
            until: held.until.to_string(),
            reason: self.why_held(held),
        })
    }

    /// Forgets what failed: nothing holds healing back any more. Returns how many failures that were.
    pub(super) fn heal(&mut self) -> u32 {
        let forgotten = std::mem::take(&mut self.row.failures).len() as u32;
        self.record("heal", None, json!({"forgotten": forgotten}), "somebody asked for it".to_owned());
        self.batch.group(&self.row);
        forgotten
    }

    /// Begins to replace the servers that have become too old, where planned work may begin.
    pub(super) fn renew_by_age(&mut self, now: Timestamp) {
        let Some(max_age) = self.row.spec.max_age.filter(|_| !self.row.removing) else { return };
        let aged = plan::aged(max_age, &self.observed(), self.row.progress.as_ref(), now);
        if aged.is_empty() || !self.row.spec.windows.allow(now) {
            return;
        }
        for id in &aged {
            if let Some(server) = self.servers.get_mut(id) {
                server.row.rebuild = true;
                self.batch.server(&server.row);
            }
        }
        let age = kiln_model::duration::format(max_age);
        let reason = format!("no server gets older than {age}: {} are replaced", aged.len());
        self.record("renew", None, json!({"servers": aged, "max_age": age}), reason);
        self.go_to(self.row.release);
    }
}
