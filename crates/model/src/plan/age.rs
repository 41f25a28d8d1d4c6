//! Which servers have become too old: planned work, so it waits for a change window and for everything else to be at rest.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    backoff::later,
    chance,
    types::{GroupObserved, RolloutProgress, RolloutState, ServerView},
};
use crate::id::ServerId;

/// A server goes up to this share of its time before it is over, each at its own: those that were launched together are not
/// replaced together.
const JITTER: f64 = 0.1;

/// The servers that are to be replaced because of their age; none while the group is not at rest.
pub fn aged(
    max_age: Duration,
    observed: &GroupObserved,
    progress: Option<&RolloutProgress>,
    now: Timestamp,
) -> Vec<ServerId> {
    let at_rest = progress.is_some_and(|progress| progress.state == RolloutState::Done);
    if !at_rest || observed.blocked.is_some() || observed.members().any(|server| !server.serves()) {
        return Vec::new();
    }
    observed.members().filter(|server| ends_at(server, max_age) <= now).map(|server| server.id.clone()).collect()
}

/// When a server's time is over.
pub(super) fn ends_at(server: &ServerView, max_age: Duration) -> Timestamp {
    let earlier = JITTER * chance::share(&[server.id.as_str()]);
    later(server.launched_at, max_age.mul_f64(1.0 - earlier))
}
