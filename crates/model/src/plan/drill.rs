//! Whether servers of a group may be destroyed on purpose now, and how many.
//!
//! A drill begins only from rest: everything is there, nothing is under way, healing is not held. It never takes more than
//! healing would give back at this moment, so a drill is never what stops healing: its own victims do not count
//! ([`super::Failure::drill`]), and what really failed lately leaves it less room.

use std::fmt;

use jiff::Timestamp;

use super::{
    backoff,
    chance::share,
    types::{GroupDesired, GroupObserved, HealingHeld, RolloutProgress, RolloutState},
};
use crate::fleet::Toll;

/// A drill comes up to this share of its time later, each group at its own: those that were applied together are not drilled
/// together.
const JITTER: f64 = 0.1;

/// Why no server may be destroyed on purpose now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoDrill {
    /// It wants no servers.
    Empty,
    /// It is on its way to a release, or did not arrive.
    Rollout,
    /// It cannot get traffic.
    Blocked(String),
    /// Healing has stopped.
    Held,
    /// Not all servers that are wanted serve, or something is being done to one.
    NotWhole {
        /// So many serve.
        serving: u32,
        /// So many are wanted.
        wanted: u32,
    },
    /// Healing would not give so many back.
    TooMany {
        /// So many would be destroyed.
        servers: u32,
        /// So many went down lately by themselves.
        down: u32,
        /// So many are healed.
        limit: u32,
    },
    /// It has no more.
    All {
        /// So many would be destroyed.
        servers: u32,
        /// So many are there.
        wanted: u32,
    },
}

/// How many servers a drill may destroy now.
pub fn drill(
    toll: Toll,
    desired: &GroupDesired,
    observed: &GroupObserved,
    progress: Option<&RolloutProgress>,
    held: Option<&HealingHeld>,
    now: Timestamp,
) -> Result<u32, NoDrill> {
    let wanted = desired.count;
    let at_rest = progress.is_some_and(|p| p.revision == desired.revision && p.state == RolloutState::Done);
    match &observed.blocked {
        _ if wanted == 0 => return Err(NoDrill::Empty),
        _ if !at_rest => return Err(NoDrill::Rollout),
        Some(why) => return Err(NoDrill::Blocked(why.clone())),
        None if held.is_some() => return Err(NoDrill::Held),
        None => {}
    }
    let serving = observed.members().filter(|server| server.serves() && !server.busy).count() as u32;
    if serving != wanted || observed.members().count() as u32 != wanted {
        return Err(NoDrill::NotWhole { serving, wanted });
    }
    let servers = toll.of(wanted);
    if servers > wanted {
        return Err(NoDrill::All { servers, wanted });
    }
    let limit = desired.healing.limit(wanted);
    let down = backoff::lately(observed, desired.healing.within, now)
        .filter(|failure| !failure.drill && !failure.spare)
        .count() as u32;
    match servers.saturating_add(down) > limit {
        true => Err(NoDrill::TooMany { servers, down, limit }),
        false => Ok(servers),
    }
}

/// When the next drill of a group is due.
pub fn drill_due(group: &str, every: std::time::Duration, last: Timestamp) -> Timestamp {
    let later = JITTER * share(&[group, &last.to_string()]);
    backoff::later(last, every.mul_f64(1.0 + later))
}

impl fmt::Display for NoDrill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "it wants no servers"),
            Self::Rollout => write!(f, "a rollout is under way, or has failed"),
            Self::Blocked(why) => write!(f, "it gets no traffic: {why}"),
            Self::Held => write!(f, "healing has stopped"),
            Self::NotWhole { serving, wanted } => write!(f, "{serving} of {wanted} servers are at rest and serve"),
            Self::TooMany { servers, down, limit } => {
                write!(f, "{servers} would be destroyed, {down} went down lately by themselves, and {limit} are healed")
            }
            Self::All { servers, wanted } => write!(f, "{servers} would be destroyed, and it has {wanted}"),
        }
    }
}
