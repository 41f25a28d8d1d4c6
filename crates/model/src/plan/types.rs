//! What the planner is given and what it returns.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    digest::ReleaseId,
    fleet::{HealingPolicy, RolloutPolicy, Strategy},
    id::{GroupName, ServerId},
    server::ServerState,
};

/// What is wanted of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDesired {
    /// The group.
    pub group: GroupName,
    /// Counts the changes applied to the group: a new number starts a new rollout.
    pub revision: u64,
    /// The release every server should be of.
    pub release: ReleaseId,
    /// How many servers.
    pub count: u32,
    /// How to get there.
    pub policy: RolloutPolicy,
    /// Whether its servers have volumes, and so slots: numbers below `count`, one server each.
    pub slots: bool,
    /// Slots whose volumes are still to be made from those of slot 0: they wait until it serves.
    pub unmade: BTreeSet<u32>,
    /// How much of it is healed.
    pub healing: HealingPolicy,
    /// How many spares are held.
    pub spares: u32,
    /// No spare gets older.
    pub spare_age: Duration,
    /// For every release that might be launched, whether it may be. One that is not listed may not.
    pub admissions: BTreeMap<ReleaseId, Admission>,
}

/// Whether a release may be launched now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Admission {
    /// Its evidence was checked.
    Admitted,
    /// It may not be launched.
    Refused {
        /// [`crate::trust::Refusal::code`].
        code: String,
        /// Why.
        reason: String,
    },
}

/// What is there of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupObserved {
    /// Every server that is not gone.
    pub servers: Vec<ServerView>,
    /// Servers that failed lately, oldest first.
    pub failures: Vec<Failure>,
    /// Why the group cannot get traffic, for example a port that belongs to another program.
    pub blocked: Option<String>,
}

/// One server, as far as the plan is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerView {
    /// The server.
    pub id: ServerId,
    /// Its release.
    pub release: ReleaseId,
    /// Where it is in its life.
    pub state: ServerState,
    /// When it was launched.
    pub launched_at: Timestamp,
    /// When it became ready.
    pub ready_at: Option<Timestamp>,
    /// Whether the gateway has acknowledged it (a group without published ports: whether it was counted in).
    pub in_traffic: bool,
    /// Whether an action on it is being carried out.
    pub busy: bool,
    /// Whether something of it still runs.
    pub running: bool,
    /// Its slot, where it has volumes.
    pub slot: Option<u32>,
    /// Whether it is made up to the point where it needs its volumes, and has not got them.
    pub staged: bool,
    /// To be replaced although it is on the right release: a rebuild, or other limits.
    pub replace: bool,
    /// Whether it is a spare, which nobody has taken yet.
    pub spare: bool,
}

/// A server that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its release.
    pub release: ReleaseId,
    /// When it failed.
    pub at: Timestamp,
    /// When it was launched.
    pub launched_at: Timestamp,
    /// Whether somebody outside ended it, which says nothing about its release.
    #[serde(default)]
    pub killed: bool,
    /// Whether it never became ready: it was not up, so it did not go down.
    #[serde(default)]
    pub unready: bool,
    /// Whether a drill destroyed it on purpose: it says nothing about anything, and holds no healing back.
    #[serde(default)]
    pub drill: bool,
    /// Whether it was a spare: it says nothing about the group's servers, and holds only spares back.
    #[serde(default)]
    pub spare: bool,
}

/// Healing that has stopped because too much of the group went down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealingHeld {
    /// So many went down within the time that the policy looks back.
    pub down: u32,
    /// So many of them are healed.
    pub limit: u32,
    /// So many are missing and wait.
    pub waiting: u32,
    /// When the next will be healed if nothing else happens.
    pub until: Timestamp,
}

/// What to do next about a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// To be begun now, all at once.
    pub steps: Vec<PlannedAction>,
    /// Where the rollout is now. To be kept with the steps, in one transaction.
    pub rollout: RolloutProgress,
    /// When to plan again even if nothing happens.
    pub wake_at: Option<Timestamp>,
    /// Why less is healed than is missing.
    pub held: Option<HealingHeld>,
}

/// An action and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedAction {
    /// What to do.
    pub action: Action,
    /// Why, in words for people.
    pub why: String,
}

/// What can be done to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Launch so many new servers of a release, all at once.
    Launch {
        /// The release; always an admitted one.
        release: ReleaseId,
        /// How many.
        servers: u32,
    },
    /// Launch the server of a slot, whose volumes nobody has.
    LaunchIn {
        /// The release; always an admitted one.
        release: ReleaseId,
        /// The slot.
        slot: u32,
    },
    /// Make the successor of a server up to the point where it needs the volumes.
    Stage {
        /// The release; always an admitted one.
        release: ReleaseId,
        /// The slot.
        slot: u32,
    },
    /// Make so many servers up to the point where their services start, and hold them.
    Spare {
        /// The release; always an admitted one.
        release: ReleaseId,
        /// How many.
        servers: u32,
    },
    /// Make a spare one of the group's servers.
    Take {
        /// The spare.
        server: ServerId,
    },
    /// Give the volumes to a server that was made so far, and start its services.
    HandOver {
        /// The server.
        server: ServerId,
    },
    /// Put a ready server behind the gateway.
    AddToTraffic {
        /// The server.
        server: ServerId,
    },
    /// Take a failed server from behind the gateway.
    RemoveFromTraffic {
        /// The server.
        server: ServerId,
    },
    /// In one step: these get all traffic, and those get nothing new.
    SwitchTraffic {
        /// The new servers.
        to: Vec<ServerId>,
        /// The old servers, which begin to drain.
        from: Vec<ServerId>,
    },
    /// Let a server finish what it is serving, and give it nothing new.
    Drain {
        /// The server.
        server: ServerId,
    },
    /// Ask a server's services to end.
    Stop {
        /// The server.
        server: ServerId,
    },
    /// Remove a server and all it used.
    Destroy {
        /// The server.
        server: ServerId,
    },
    /// Say that the rollout is done.
    MarkRolloutDone,
    /// Say that the rollout failed and what still serves is kept.
    MarkRolloutFailed,
    /// Say that the rollout failed and the group goes back.
    Revert {
        /// The release it goes back to.
        to: ReleaseId,
    },
}

impl Action {
    /// The word for people and scripts.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Launch { .. } | Self::LaunchIn { .. } => "launch",
            Self::Stage { .. } => "stage",
            Self::Spare { .. } => "spare",
            Self::Take { .. } => "take",
            Self::HandOver { .. } => "hand-over",
            Self::AddToTraffic { .. } => "route",
            Self::RemoveFromTraffic { .. } => "unroute",
            Self::SwitchTraffic { .. } => "switch",
            Self::Drain { .. } => "drain",
            Self::Stop { .. } => "stop",
            Self::Destroy { .. } => "destroy",
            Self::MarkRolloutDone => "done",
            Self::MarkRolloutFailed => "failed",
            Self::Revert { .. } => "revert",
        }
    }
    /// The server it is done to, if it is done to one.
    pub fn server(&self) -> Option<&ServerId> {
        match self {
            Self::AddToTraffic { server }
            | Self::RemoveFromTraffic { server }
            | Self::Drain { server }
            | Self::Stop { server }
            | Self::HandOver { server }
            | Self::Take { server }
            | Self::Destroy { server } => Some(server),
            _ => None,
        }
    }
}

/// How far a group's latest change is. Kept across restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutProgress {
    /// The change this is about.
    pub revision: u64,
    /// The release the whole group was on last: where a failed rollout goes back to.
    pub stable: Option<ReleaseId>,
    /// The release it was asked to go to.
    pub to: ReleaseId,
    /// Where it is.
    pub state: RolloutState,
    /// When it began.
    pub started_at: Timestamp,
    /// When it last got further.
    pub progressed_at: Timestamp,
    /// The most servers of the target that were available at once.
    pub best: u32,
}

/// Where a rollout is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum RolloutState {
    /// On its way.
    Running,
    /// Every server wanted is on the target and available.
    Done,
    /// The release may not be launched; nothing was changed.
    Refused {
        /// [`crate::trust::Refusal::code`].
        code: String,
        /// Why.
        reason: String,
    },
    /// It failed and goes back to the stable release.
    Reverting {
        /// Why it failed.
        reason: String,
    },
    /// It failed and went back.
    Reverted {
        /// Why it failed.
        reason: String,
    },
    /// It failed; what still serves is kept.
    Failed {
        /// Why.
        reason: String,
    },
}

impl GroupDesired {
    /// Whether a release may be launched.
    pub fn admits(&self, release: &ReleaseId) -> bool {
        self.admissions.get(release) == Some(&Admission::Admitted)
    }
    /// How many live servers there may be because of a launch.
    pub fn ceiling(&self) -> u32 {
        match self.policy.strategy {
            // A successor is made while its predecessor still has the volumes.
            Strategy::Rolling { max_surge, .. } if self.slots => self.count.saturating_add(max_surge.max(1)),
            // Neither more nor fewer servers allowed means no way forward: one more is taken rather than one fewer.
            Strategy::Rolling { max_surge: 0, max_unavailable: 0 } => self.count.saturating_add(1),
            Strategy::Rolling { max_surge, .. } => self.count.saturating_add(max_surge),
            Strategy::BlueGreen => self.count.saturating_mul(2),
        }
    }
    /// How many servers must stay available.
    pub fn floor(&self) -> u32 {
        match self.policy.strategy {
            // Two servers never have the volumes of a slot: for a moment, none has.
            _ if self.slots => self.count.saturating_sub(self.unavailable().max(1)),
            Strategy::Rolling { max_unavailable, .. } => self.count.saturating_sub(max_unavailable),
            Strategy::BlueGreen => self.count,
        }
    }
}

impl GroupObserved {
    /// The group's own servers: those that are no spares.
    pub(super) fn members(&self) -> impl Iterator<Item = &ServerView> {
        self.servers.iter().filter(|server| !server.spare)
    }
}

impl GroupDesired {
    fn unavailable(&self) -> u32 {
        match self.policy.strategy {
            Strategy::Rolling { max_unavailable, .. } => max_unavailable,
            Strategy::BlueGreen => 0,
        }
    }
}

impl RolloutProgress {
    /// The release that missing servers are launched of.
    pub fn target(&self) -> ReleaseId {
        let stable = self.stable.unwrap_or(self.to);
        match self.state {
            RolloutState::Running | RolloutState::Done => self.to,
            RolloutState::Refused { .. }
            | RolloutState::Reverting { .. }
            | RolloutState::Reverted { .. }
            | RolloutState::Failed { .. } => stable,
        }
    }
    /// Whether servers that serve are kept whatever their release: the rollout ended without reaching its target.
    pub fn holds(&self) -> bool {
        matches!(self.state, RolloutState::Refused { .. } | RolloutState::Failed { .. })
    }
    /// Whether it has come to an end.
    pub fn is_over(&self) -> bool {
        !matches!(self.state, RolloutState::Running | RolloutState::Reverting { .. })
    }
}
