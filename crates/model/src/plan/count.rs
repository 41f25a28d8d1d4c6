//! The servers of a group, sorted by what they are to the rollout.

use jiff::Timestamp;

use super::{
    backoff::later,
    types::{GroupDesired, GroupObserved, RolloutProgress, ServerView},
};
use crate::{digest::ReleaseId, server::ServerState};

/// The servers of a group, sorted. Every list is in the order of removal: those that do not serve first, then the
/// oldest.
pub(super) struct Counts<'a> {
    /// The release that is launched.
    pub target: ReleaseId,
    /// Live and of the target.
    pub new: Vec<&'a ServerView>,
    /// Live and not of the target, or to be replaced.
    pub old: Vec<&'a ServerView>,
    /// Live, and held as spares.
    pub spares: Vec<&'a ServerView>,
    /// Neither live nor gone; spares among them.
    pub leaving: Vec<&'a ServerView>,
    /// Of `new`, those that count as available.
    pub new_available: u32,
    /// Available servers, old ones included.
    pub available: u32,
}

impl<'a> Counts<'a> {
    pub fn of(desired: &GroupDesired, observed: &'a GroupObserved, rollout: &RolloutProgress, now: Timestamp) -> Self {
        let target = rollout.target();
        let present = observed.servers.iter().filter(|s| s.state != ServerState::Gone);
        let (live, leaving): (Vec<_>, Vec<_>) = present.partition(|s| s.state.is_live());
        let (mut spares, live): (Vec<_>, Vec<_>) = live.into_iter().partition(|s| s.spare);
        let (mut new, mut old): (Vec<_>, Vec<_>) = live.into_iter().partition(|s| s.release == target && !s.replace);
        for list in [&mut new, &mut old, &mut spares] {
            list.sort_by_key(|s| (s.serves(), s.launched_at, s.id.clone()));
        }
        let healthy = |s: &&&ServerView| s.serves() && s.healthy_at(desired) <= now;
        let new_available = new.iter().filter(healthy).count() as u32;
        let available = new_available + old.iter().filter(|s| s.serves()).count() as u32;
        Self { target, new, old, spares, leaving, new_available, available }
    }
    pub fn live(&self) -> u32 {
        (self.new.len() + self.old.len()) as u32
    }
    /// Spares on their way out.
    pub fn leaving_spares(&self) -> usize {
        self.leaving.iter().filter(|s| s.spare).count()
    }
    /// How many servers that serve may be taken away.
    pub fn spare(&self, desired: &GroupDesired) -> u32 {
        self.available.saturating_sub(desired.floor())
    }
    /// Whether the group is exactly what the target asks for.
    pub fn complete(&self, desired: &GroupDesired) -> bool {
        self.old.is_empty() && self.new.len() as u32 == desired.count && self.new_available == desired.count
    }
}

impl ServerView {
    /// Whether it gets traffic and answers.
    pub(super) fn serves(&self) -> bool {
        self.state == ServerState::Ready && self.in_traffic
    }
    /// From when on it counts as healthy.
    pub(super) fn healthy_at(&self, desired: &GroupDesired) -> Timestamp {
        self.ready_at.map_or(Timestamp::MAX, |at| later(at, desired.policy.min_healthy_time))
    }
}
