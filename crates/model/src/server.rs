//! Where a server is in its life, and which steps are legal.
//!
//! ```text
//! Launching ─▶ Starting ─▶ Ready ─▶ Draining ─▶ Drained ─▶ Stopping ─▶ Stopped ─▶ Gone
//!     │            │  └──────┼──────────┼──────────────────────▲                   ▲
//!     └────────────┴─────────┴──────────┴──▶ Failed ───────────┴───────────────────┘
//! ```
//!
//! A server only ever moves forward: it is never repaired, it is replaced. One that never served needs no draining and
//! goes from `Starting` (or `Ready`, outside the gateway) straight to `Stopping`. One that failed is stopped if
//! something of it still runs, so that its services can end in order, and destroyed otherwise.

use serde::{Deserialize, Serialize};

/// Where a server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// The engine was asked to start it.
    Launching,
    /// PID 1 runs; its services are not ready yet.
    Starting,
    /// Its services are ready.
    Ready,
    /// It gets nothing new and finishes what it is serving.
    Draining,
    /// Nothing is in flight there any more.
    Drained,
    /// It was asked to stop.
    Stopping,
    /// PID 1 is gone; what it used is still there.
    Stopped,
    /// It could not be launched, did not become ready in time, or ended by itself.
    Failed,
    /// Nothing of it is left.
    Gone,
}

/// A step that the table does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a server cannot go from {from} to {to}")]
pub struct IllegalStep {
    /// Where it is.
    pub from: ServerState,
    /// Where it was to go.
    pub to: ServerState,
}

impl ServerState {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 9] = [
        Self::Launching,
        Self::Starting,
        Self::Ready,
        Self::Draining,
        Self::Drained,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
        Self::Gone,
    ];

    /// Takes a step, if it is legal.
    pub fn step(self, to: Self) -> Result<Self, IllegalStep> {
        if self.may_become(to) { Ok(to) } else { Err(IllegalStep { from: self, to }) }
    }

    /// Whether a step is legal. Staying is not a step.
    pub fn may_become(self, to: Self) -> bool {
        use ServerState::*;
        match self {
            // One that waits for its volumes may be sent away before it got them.
            Launching => matches!(to, Starting | Stopping | Failed),
            Starting => matches!(to, Ready | Stopping | Failed),
            Ready => matches!(to, Draining | Stopping | Failed),
            Draining => matches!(to, Drained | Failed),
            Drained => matches!(to, Stopping | Failed),
            Stopping => matches!(to, Stopped),
            Stopped => matches!(to, Gone),
            Failed => matches!(to, Stopping | Gone),
            Gone => false,
        }
    }

    /// Whether it counts as one of the group's servers: it serves, or is on its way to.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Launching | Self::Starting | Self::Ready)
    }

    /// The word for people and scripts; `status` shows no finer steps of leaving.
    pub fn word(self) -> &'static str {
        match self {
            Self::Launching => "launching",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining | Self::Drained => "draining",
            Self::Stopping | Self::Stopped => "stopping",
            Self::Failed => "failed",
            Self::Gone => "gone",
        }
    }
}

impl std::fmt::Display for ServerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::ServerState::{self, *};

    #[test]
    fn every_state_leads_to_gone_and_none_leads_back() {
        for start in ServerState::ALL {
            let (mut reached, mut open) = (Vec::new(), vec![start]);
            while let Some(from) = open.pop() {
                let new = ServerState::ALL.into_iter().filter(|to| from.may_become(*to) && !reached.contains(to));
                let new: Vec<_> = new.collect();
                reached.extend(&new);
                open.extend(new);
            }
            assert!(start == Gone || reached.contains(&Gone), "{start} never ends");
            let circle = reached.contains(&start);
            assert!(!circle, "{start} can come back");
        }
    }

    #[test]
    fn a_server_that_served_is_drained_before_it_is_stopped_unless_it_failed() {
        assert_eq!(Ready.step(Draining), Ok(Draining));
        assert!(Ready.step(Stopped).is_err());
        assert!(Draining.step(Stopping).is_err());
        assert_eq!(Failed.step(Stopping), Ok(Stopping));
        assert!(Failed.step(Ready).is_err(), "a failed server is never repaired");
    }
}
