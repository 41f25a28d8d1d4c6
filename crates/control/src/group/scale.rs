//! A group whose number of servers follows its load: it is read every few seconds, and the group moves when [`plan::scale`]
//! says so.
//!
//! What was read is not kept on disk. A daemon that begins anew takes nothing away before it has seen less load for as long as
//! the fleet says. While a rollout is under way, or has failed, the number stays.

use std::collections::BTreeMap;

use kiln_api::status::ScalingStatus;
use kiln_model::{
    Group, ServerId,
    fleet::Measure,
    plan::{self, Load, RolloutState, ScaleDecision, ScaleMemory},
};
use serde_json::json;
use tokio::{task::AbortHandle, time::Instant};

use super::{GroupTask, Message};
use crate::traffic::Carried;

/// What the gateway said at one time.
pub(crate) struct Reading {
    at: Instant,
    carried: Result<Vec<Carried>, String>,
}

/// What is remembered of a group's load, and who reads it.
pub(super) struct Scaler {
    memory: ScaleMemory,
    /// What each server had answered at the last reading.
    served: Option<(Instant, BTreeMap<ServerId, u64>)>,
    decided: Option<ScaleDecision>,
    reader: AbortHandle,
}

impl Drop for Scaler {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Scaler {
    /// The load of a group's servers; or why it is not known.
    fn total(&mut self, of: Measure, reading: Reading) -> Result<f64, String> {
        let carried = reading.carried?;
        match of {
            Measure::Connections => Ok(carried.iter().map(|server| server.in_flight as f64).sum()),
            Measure::RequestsPerSecond => {
                let mut served: BTreeMap<ServerId, u64> = BTreeMap::new();
                for server in carried {
                    *served.entry(server.server).or_default() += server.served;
                }
                let before = self.served.replace((reading.at, served.clone()));
                let Some((at, before)) = before else { return Err("it is read for the first time".to_owned()) };
                let since = |(server, now): (&ServerId, &u64)| match before.get(server) {
                    Some(then) if then <= now => now - then,
                    // New, or the gateway began anew.
                    _ => *now,
                };
                let answered: u64 = served.iter().map(since).sum();
                Ok(answered as f64 / reading.at.duration_since(at).as_secs_f64().max(0.001))
            }
        }
    }
}

impl GroupTask {
    /// With how many servers the group goes on under another specification.
    pub(super) fn count_under(&self, spec: &Group) -> u32 {
        match &spec.scaling {
            Some(scaling) => self.row.spec.count.clamp(scaling.floor(self.shared.now()), scaling.max),
            None => spec.count,
        }
    }

    /// Reads the load of a group that follows it, and of no other.
    pub(super) fn follow_load(&mut self) {
        let wanted = self.row.spec.scaling.is_some() && !self.row.removing;
        if !wanted {
            self.scaler = None;
        } else if self.scaler.is_none() {
            let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
            let reader = self.shared.spawn(async move {
                loop {
                    let carried = shared.traffic.load().await.map_err(|error| kiln_api::error::chain(&error));
                    if mailbox.send(Message::Load(Reading { at: Instant::now(), carried })).is_err() {
                        return;
                    }
                    tokio::time::sleep(shared.load_every).await;
                }
            });
            let memory = ScaleMemory::default();
            self.scaler = Some(Scaler { memory, served: None, decided: None, reader: reader.abort_handle() });
        }
    }

    /// Takes a reading in.
    pub(super) fn take_load(&mut self, reading: Reading) {
        let Some(scaling) = self.row.spec.scaling.clone() else { return };
        let Some(scaler) = &mut self.scaler else { return };
        let ours = |carried: Vec<Carried>| {
            carried.into_iter().filter(|server| self.servers.contains_key(&server.server)).collect::<Vec<_>>()
        };
        let reading = Reading { carried: reading.carried.map(ours), ..reading };
        let load = Load { at: self.shared.now(), total: scaler.total(scaling.target.of, reading) };
        let (count, mut memory) = (self.row.spec.count, scaler.memory.clone());
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
            let inputs = json!({"from": count, "to": decision.count, "load": load, "rules": scaling});
            self.record("scale", None, inputs, decision.why);
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
