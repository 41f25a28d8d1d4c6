//! A group whose number of servers follows its load: it is read every few seconds, and the group moves when [`plan::scale`]
//! says so.
//!
//! What was read is not kept on disk. A daemon that begins anew takes nothing away before it has seen less load for as long as
//! the fleet says. While a rollout is under way, or has failed, the number stays.
//!
//! ```text
//! reader   asks the gateway, the engine or an endpoint, by the clock, and at once when a request waits
//! metric   the endpoint
//! load     what follows from two readings
//! ```

mod load;
mod metric;
mod reader;

use std::{collections::BTreeSet, sync::Arc};

use kiln_api::status::ScalingStatus;
use kiln_model::{
    Group, ServerId, ServerState,
    fleet::Scaling,
    plan::{self, Asked, Load, RolloutState, ScaleDecision, ScaleInputs, ScaleMemory},
};
use serde_json::json;
use tokio::{sync::Notify, task::AbortHandle};

pub(crate) use self::reader::Reading;
use self::{
    load::{Counters, Seen},
    reader::Reader,
};
use super::GroupTask;

/// What is remembered of a group's load, and who reads it.
pub(super) struct Scaler {
    memory: ScaleMemory,
    counters: Counters,
    decided: Option<ScaleDecision>,
    /// What is read, and whether the group may be without servers.
    follows: Follows,
    reader: AbortHandle,
    /// Has it read at once.
    wake: Arc<Notify>,
}

/// What a reader needs to know of the rules.
#[derive(Debug, Clone, PartialEq)]
struct Follows {
    of: kiln_model::fleet::Measure,
    sleeps: bool,
}

impl Follows {
    fn rules(scaling: &Scaling) -> Self {
        Self { of: scaling.target.of.clone(), sleeps: scaling.min == 0 }
    }
}

impl Drop for Scaler {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl GroupTask {
    /// With how many servers the group goes on under another specification: one at least where it follows its load, so that what
    /// is applied is seen to work.
    pub(super) fn count_under(&self, spec: &Group) -> u32 {
        match &spec.scaling {
            Some(scaling) => self.row.spec.count.clamp(scaling.floor(self.shared.now()).max(1), scaling.max),
            None => spec.count,
        }
    }

    /// Reads the load of a group that follows it, and of no other.
    pub(super) fn follow_load(&mut self) {
        let wanted = self.row.spec.scaling.as_ref().filter(|_| !self.row.removing).map(Follows::rules);
        let Some(follows) = wanted else {
            self.scaler = None;
            return;
        };
        if self.scaler.as_ref().is_some_and(|scaler| scaler.follows == follows) {
            return;
        }
        // What was wished for is servers, whatever it was counted in.
        let memory = self.scaler.take().map_or_else(ScaleMemory::default, |scaler| scaler.memory.clone());
        let wake = Arc::<Notify>::default();
        let (shared, group, mailbox) = (self.shared.clone(), self.row.name.clone(), self.mailbox.clone());
        let reader = Reader { shared, group, follows: follows.clone(), wake: wake.clone(), mailbox };
        let reader = self.shared.spawn(reader.run()).abort_handle();
        self.scaler = Some(Scaler { memory, counters: Counters::default(), decided: None, follows, reader, wake });
    }

    /// A request waits: the truth is in what is read now.
    pub(super) fn asked_for(&self) {
        if let Some(scaler) = self.scaler.as_ref().filter(|scaler| scaler.follows.sleeps) {
            scaler.wake.notify_one();
        }
    }

    /// Takes a reading in.
    pub(super) fn take_load(&mut self, reading: Reading) {
        let Some(scaling) = self.row.spec.scaling.clone() else { return };
        let Some(scaler) = &mut self.scaler else { return };
        let count = self.row.spec.count;
        // Between two readings only a group without servers has something to decide, if a request waits.
        let early = reading.early;
        if early && count > 0 {
            return;
        }
        let members = || self.servers.values().filter(|server| !server.row.spare);
        let ready = members().filter(|server| server.row.state == ServerState::Ready);
        let ready: BTreeSet<&ServerId> = ready.map(|server| &server.row.id).collect();
        let all: BTreeSet<&ServerId> = members().map(|server| &server.row.id).collect();
        let cores = f64::from(self.row.spec.limits.cpu_millis.unwrap_or(1000)) / 1000.0;
        let seen = Seen { group: &self.row.name, follows: &scaler.follows, all, ready, cores };
        let (total, asked) = scaler.counters.load(&seen, reading);
        if early && !matches!(asked, Asked::Waiting(_)) {
            return;
        }
        let load = Load { at: self.shared.now(), total, asked };
        let (before, mut memory) = (scaler.memory.essence(), scaler.memory.clone());
        let mut decision = plan::scale(&scaling, &mut memory, count, &load);
        let moves = decision.count != count;
        let settled = self
            .row
            .progress
            .as_ref()
            .is_some_and(|progress| progress.revision == self.row.revision && progress.state == RolloutState::Done);
        if moves && !settled {
            decision = ScaleDecision { count, why: format!("{}, once the rollout is done", decision.why) };
        } else {
            scaler.memory = memory;
        }
        scaler.decided = Some(decision.clone());
        if moves && settled {
            let inputs = ScaleInputs { from: count, to: decision.count, load, rules: scaling, memory: Some(before) };
            self.record("scale", None, json!(inputs), decision.why);
            self.row.spec.count = decision.count;
            self.go_to(self.row.release);
        }
    }

    /// For `status`.
    pub(super) fn scaling(&self) -> Option<ScalingStatus> {
        let scaling = self.row.spec.scaling.as_ref()?;
        let decided = self.scaler.as_ref().and_then(|scaler| scaler.decided.as_ref());
        Some(ScalingStatus {
            min: scaling.min,
            max: scaling.max,
            target: scaling.target.to_string(),
            reason: decided.map_or_else(|| "its load was not read yet".to_owned(), |decision| decision.why.clone()),
        })
    }
}
