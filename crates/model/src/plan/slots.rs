//! Groups whose servers have volumes: each server has a slot, and whoever has the slot has its volumes.
//!
//! A slot is replaced in four steps: its successor is *staged*, made up to the point where it needs the volumes, while the old
//! server still serves; then the old one is drained and stopped, which lets go of the volumes; then the successor is
//! given them. A slot that nobody has is simply launched. So the volumes of a slot are without a server only from the old
//! one's end to the new one's start, and never with two.

use super::{
    count::Counts,
    steps::because,
    types::{Action, GroupDesired, GroupObserved, PlannedAction, RolloutProgress, ServerView},
};
use crate::server::ServerState;

impl ServerView {
    /// Whether it has the volumes of its slot, or may have them.
    fn may_hold(&self) -> bool {
        match self.state {
            ServerState::Stopped | ServerState::Gone => false,
            ServerState::Failed => self.running,
            ServerState::Launching => !self.staged,
            _ => true,
        }
    }
}

/// A slot and its servers.
struct Slot<'a> {
    number: u32,
    /// The server that is, or becomes, the one wanted.
    new: Option<&'a ServerView>,
    /// Another one that still has the volumes.
    holder: Option<&'a ServerView>,
}

/// Launches, successors and hand-overs; at most so many new servers.
pub(super) fn fill(
    desired: &GroupDesired,
    observed: &GroupObserved,
    rollout: &RolloutProgress,
    counts: &Counts<'_>,
    most: u32,
) -> Vec<PlannedAction> {
    let slots: Vec<_> = (0..desired.count).map(|number| slot(number, observed, rollout, counts)).collect();
    // What is missing comes before what is only to be replaced; of that, slot 0, from which the others are made, is last.
    let (held, free): (Vec<_>, Vec<_>) = slots.iter().partition(|slot| slot.holder.is_some());
    let first_serves = slots.first().and_then(|slot| slot.new.or(slot.holder)).is_some_and(ServerView::serves);
    let may_begin = |slot: &&&Slot<'_>| slot.number == 0 || first_serves || !desired.unmade.contains(&slot.number);
    let missing = free.iter().filter(|slot| slot.new.is_none()).filter(may_begin).copied();
    let surge = desired.ceiling().saturating_sub(desired.count) as usize;
    let successors = surge.saturating_sub(held.iter().filter(|slot| slot.new.is_some()).count());
    let replaced = held.iter().rev().filter(|slot| slot.new.is_none()).copied().take(successors);
    let begun = missing.chain(replaced);
    let begun = begun.take(most as usize).map(|slot| begin(slot, counts));
    let ready = free.iter().filter_map(|slot| slot.new.filter(|new| new.staged && !new.busy));
    let given = ready.map(|new| {
        because(Action::HandOver { server: new.id.clone() }, "the volumes of its slot are free: it is given them")
    });
    given.chain(begun).collect()
}

fn begin(slot: &Slot<'_>, counts: &Counts<'_>) -> PlannedAction {
    let (release, number) = (counts.target, slot.number);
    match slot.holder {
        Some(holder) => because(
            Action::Stage { release, slot: number },
            format!("slot {number} moves to release {}: the successor of {} is made ready", release.short(), holder.id),
        ),
        None => because(
            Action::LaunchIn { release, slot: number },
            format!("slot {number} has no server of release {}", release.short()),
        ),
    }
}

fn slot<'a>(number: u32, observed: &'a GroupObserved, rollout: &RolloutProgress, counts: &Counts<'a>) -> Slot<'a> {
    let here = |server: &&&ServerView| server.slot == Some(number);
    let new = counts.new.iter().rfind(here).copied();
    // Nothing that serves is thrown away for its release alone.
    let kept = counts.old.iter().rfind(here).copied().filter(|_| rollout.holds());
    let new = new.or(kept);
    let others = observed.servers.iter().filter(|server| server.slot == Some(number) && server.may_hold());
    let holder = others.into_iter().find(|server| new.is_none_or(|new| new.id != server.id));
    Slot { number, new, holder }
}

/// The servers that should not be there: those of slots that are not wanted, and those whose successor waits for the volumes.
pub(super) fn surplus<'a>(
    desired: &GroupDesired,
    rollout: &RolloutProgress,
    counts: &Counts<'a>,
) -> Vec<(&'a ServerView, String)> {
    let all = counts.new.iter().chain(&counts.old).copied();
    let unwanted = all
        .filter(|server| server.slot.is_none_or(|slot| slot >= desired.count))
        .map(|server| (server, format!("{} slots are wanted, and its is none of them", desired.count)));
    let waits = |old: &&&ServerView| counts.new.iter().any(|new| new.slot == old.slot && new.staged && !new.busy);
    let going = |old: &&&ServerView| !old.serves() || waits(old);
    let old = counts.old.iter().filter(|old| !rollout.holds() && old.slot.is_some_and(|slot| slot < desired.count));
    let replaced = old.filter(going).map(|old| {
        let what =
            if old.release == counts.target { "it is to be rebuilt" } else { "its release is not the one wanted" };
        (*old, format!("{what}, and its successor waits for the volumes"))
    });
    unwanted.chain(replaced).collect()
}
