//! The actions: what leaves, what gets traffic, what is removed, what is launched.

use jiff::Timestamp;

use super::{
    backoff::{self, Brake},
    count::Counts,
    slots, spares,
    types::{Action, GroupDesired, GroupObserved, PlannedAction, RolloutProgress, RolloutState, ServerView},
};
use crate::{fleet::Strategy, id::ServerId, server::ServerState};

/// Everything that should be begun now.
pub(super) fn all(
    desired: &GroupDesired,
    observed: &GroupObserved,
    rollout: &RolloutProgress,
    counts: &Counts<'_>,
    previous: Option<&RolloutProgress>,
    healing: Option<&Brake>,
    now: Timestamp,
) -> Vec<PlannedAction> {
    let mut steps: Vec<PlannedAction> = mark(rollout, previous).into_iter().collect();
    // Launches come first: they take longest, and nothing else waits for them or makes room for them.
    if desired.slots {
        let most = launches(desired, observed, rollout, counts, healing, now);
        steps.extend(slots::fill(desired, observed, rollout, counts, most));
    } else {
        steps.extend(launch(desired, observed, rollout, counts, healing, now));
    }
    let spares = spares::surplus(desired, counts, &steps, now);
    let removals = remove(desired, rollout, counts);
    let going: Vec<&ServerId> = removals.iter().filter_map(|step| step.action.server()).collect();
    steps.extend(traffic(desired, observed, rollout, counts, &going, now));
    steps.extend(removals);
    let mut leaving = counts.leaving.clone();
    leaving.sort_by_key(|s| (s.launched_at, s.id.clone()));
    steps.extend(leaving.into_iter().filter(|s| !s.busy).filter_map(leave));
    let made = spares::make(desired, observed, rollout, counts, healing, &spares, now);
    steps.extend(spares.into_iter().chain(made));
    steps
}

pub(super) fn because(action: Action, why: impl Into<String>) -> PlannedAction {
    PlannedAction { action, why: why.into() }
}

/// Says that the rollout came to an end or turned round, once.
fn mark(rollout: &RolloutProgress, previous: Option<&RolloutProgress>) -> Option<PlannedAction> {
    let before = previous.filter(|p| p.revision == rollout.revision).map(|p| &p.state);
    if before.map(std::mem::discriminant) == Some(std::mem::discriminant(&rollout.state)) {
        return None;
    }
    match &rollout.state {
        RolloutState::Running => None,
        RolloutState::Done => Some(because(
            Action::MarkRolloutDone,
            format!("every server is on release {} and available", rollout.to.short()),
        )),
        RolloutState::Refused { reason, .. } => Some(because(Action::MarkRolloutFailed, reason.clone())),
        RolloutState::Failed { reason } => Some(because(Action::MarkRolloutFailed, reason.clone())),
        RolloutState::Reverting { reason } => Some(because(Action::Revert { to: rollout.target() }, reason.clone())),
        RolloutState::Reverted { reason } => Some(because(
            Action::MarkRolloutFailed,
            format!("{reason}; the group is back on release {}", rollout.target().short()),
        )),
    }
}

/// One step of a server that leaves. What was interrupted is ordered again.
fn leave(server: &ServerView) -> Option<PlannedAction> {
    let id = || server.id.clone();
    Some(match server.state {
        ServerState::Failed if server.in_traffic => {
            because(Action::RemoveFromTraffic { server: id() }, "it failed and must get no more requests")
        }
        ServerState::Failed if server.running => {
            because(Action::Stop { server: id() }, "it failed; what still runs of it is asked to end")
        }
        ServerState::Failed => because(Action::Destroy { server: id() }, "it failed; it is replaced, not repaired"),
        ServerState::Draining => {
            because(Action::Drain { server: id() }, "it is leaving and finishes what it is serving")
        }
        ServerState::Drained => because(Action::Stop { server: id() }, "nothing is in flight there any more"),
        ServerState::Stopping => because(Action::Stop { server: id() }, "it was asked to stop and has not ended"),
        ServerState::Stopped => because(Action::Destroy { server: id() }, "it has stopped"),
        ServerState::Launching | ServerState::Starting | ServerState::Ready | ServerState::Gone => return None,
    })
}

/// Whether old servers keep all traffic until the new ones can take it all at once.
fn waits_for_switch(desired: &GroupDesired, rollout: &RolloutProgress, counts: &Counts<'_>) -> bool {
    desired.policy.strategy == Strategy::BlueGreen
        && desired.count > 0
        && !rollout.holds()
        && counts.old.iter().any(|s| s.serves())
        && (counts.new.iter().filter(|s| s.serves()).count() as u32) < desired.count
}

fn traffic(
    desired: &GroupDesired,
    observed: &GroupObserved,
    rollout: &RolloutProgress,
    counts: &Counts<'_>,
    going: &[&ServerId],
    now: Timestamp,
) -> Vec<PlannedAction> {
    if observed.blocked.is_some() {
        return Vec::new();
    }
    if waits_for_switch(desired, rollout, counts) {
        return switch(desired, counts, going, now).into_iter().collect();
    }
    let held = if rollout.holds() { counts.old.as_slice() } else { &[] };
    let waiting = counts.new.iter().chain(held).filter(|s| s.state == ServerState::Ready && !s.in_traffic && !s.busy);
    let waiting = waiting.filter(|s| !going.contains(&&s.id));
    waiting.map(|s| because(Action::AddToTraffic { server: s.id.clone() }, "its services are ready")).collect()
}

fn switch(desired: &GroupDesired, counts: &Counts<'_>, going: &[&ServerId], now: Timestamp) -> Option<PlannedAction> {
    let ready =
        |s: &&&ServerView| !going.contains(&&s.id) && s.state == ServerState::Ready && s.healthy_at(desired) <= now;
    let all_ready = counts.new.iter().filter(ready).count() as u32 >= desired.count;
    let settled = counts.new.iter().chain(&counts.old).all(|s| !s.busy);
    (all_ready && settled).then(|| {
        let to = counts.new.iter().filter(ready).map(|s| s.id.clone()).collect();
        let from: Vec<_> =
            counts.old.iter().filter(|s| s.serves() && !going.contains(&&s.id)).map(|s| s.id.clone()).collect();
        let why = format!("all {} servers of release {} are ready", desired.count, counts.target.short());
        because(Action::SwitchTraffic { to, from }, why)
    })
}

/// Servers to take away: first what does not serve, then as many serving ones as can be spared.
fn remove(desired: &GroupDesired, rollout: &RolloutProgress, counts: &Counts<'_>) -> Vec<PlannedAction> {
    let mut spare = counts.spare(desired);
    let mut steps = Vec::new();
    for (server, why) in surplus(desired, rollout, counts) {
        if server.serves() {
            if spare == 0 {
                continue;
            }
            spare -= 1;
        }
        steps.extend(send_away(server, why));
    }
    steps
}

fn send_away(server: &ServerView, why: String) -> Option<PlannedAction> {
    match server.state {
        _ if server.busy => None,
        ServerState::Ready if server.in_traffic => Some(because(Action::Drain { server: server.id.clone() }, why)),
        ServerState::Ready | ServerState::Starting => Some(because(Action::Stop { server: server.id.clone() }, why)),
        ServerState::Launching if server.staged => Some(because(Action::Stop { server: server.id.clone() }, why)),
        _ => None,
    }
}

/// The servers that should not be there, in the order in which they go.
fn surplus<'a>(
    desired: &GroupDesired,
    rollout: &RolloutProgress,
    counts: &Counts<'a>,
) -> Vec<(&'a ServerView, String)> {
    if desired.slots {
        return slots::surplus(desired, rollout, counts);
    }
    let count = desired.count as usize;
    let too_many = format!("{} servers are wanted, {} are there", desired.count, counts.live());
    if rollout.holds() && count > 0 {
        // Nothing that serves is thrown away for its release alone.
        let mut live: Vec<_> = counts.old.iter().chain(&counts.new).copied().collect();
        live.sort_by_key(|s| (s.serves(), s.release == counts.target, s.launched_at, s.id.clone()));
        let over = live.len().saturating_sub(count);
        return live.into_iter().take(over).map(|s| (s, too_many.clone())).collect();
    }
    let over = counts.new.len().saturating_sub(count);
    let new = counts.new.iter().take(over).map(|s| (*s, too_many.clone()));
    let old_going = if waits_for_switch(desired, rollout, counts) {
        let idle = counts.old.iter().filter(|s| !s.serves()).count();
        idle + (counts.old.len() - idle).saturating_sub(count)
    } else {
        counts.old.len()
    };
    let old = counts.old.iter().take(old_going).map(|s| (*s, replaced(s, counts)));
    new.chain(old).collect()
}

fn replaced(server: &ServerView, counts: &Counts<'_>) -> String {
    if server.release == counts.target {
        "it is to be rebuilt, and the group has enough other servers".to_owned()
    } else {
        let (from, to) = (server.release.short(), counts.target.short());
        format!("it is of release {from}, the group moves to {to} and has enough other servers")
    }
}

/// How much of what is missing may be healed; none while a rollout is under way, which has rules of its own.
pub(super) fn healing(
    desired: &GroupDesired,
    observed: &GroupObserved,
    rollout: &RolloutProgress,
    counts: &Counts<'_>,
    now: Timestamp,
) -> Option<Brake> {
    rollout.is_over().then(|| backoff::brake(desired, observed, counts, missing(desired, rollout, counts), now))
}

fn missing(desired: &GroupDesired, rollout: &RolloutProgress, counts: &Counts<'_>) -> u32 {
    let kept = if rollout.holds() { counts.live() } else { counts.new.len() as u32 };
    desired.count.saturating_sub(kept)
}

/// How many servers may be launched now.
fn launches(
    desired: &GroupDesired,
    observed: &GroupObserved,
    rollout: &RolloutProgress,
    counts: &Counts<'_>,
    healing: Option<&Brake>,
    now: Timestamp,
) -> u32 {
    let missing = healing.map_or_else(|| missing(desired, rollout, counts), |brake| brake.servers);
    // A slot has room for its own server, whatever the others have.
    let room = if desired.slots { u32::MAX } else { desired.ceiling().saturating_sub(counts.live()) };
    // Servers that leave are not counted as live; where they do not go, no more are added to the heap.
    let total = counts.live() + (counts.leaving.len() - counts.leaving_spares()) as u32;
    let heap = desired.ceiling().saturating_mul(2).saturating_add(4).saturating_sub(total);
    let may = desired.admits(&counts.target) && backoff::until(desired, observed, counts.target, now).is_none();
    if may { missing.min(room).min(heap) } else { 0 }
}

fn launch(
    desired: &GroupDesired,
    observed: &GroupObserved,
    rollout: &RolloutProgress,
    counts: &Counts<'_>,
    healing: Option<&Brake>,
    now: Timestamp,
) -> Vec<PlannedAction> {
    let servers = launches(desired, observed, rollout, counts, healing, now);
    if servers == 0 {
        return Vec::new();
    }
    let mut why = launch_reason(desired, rollout, counts, servers);
    if let Some(held) = healing.and_then(|brake| brake.held) {
        why.push_str(&format!("; {} went down lately, so no more than {} are healed", held.down, held.limit));
    }
    let mut steps = spares::take(desired, counts, servers, &why, now);
    let (release, servers) = (counts.target, servers - steps.len() as u32);
    steps.extend((servers > 0).then(|| because(Action::Launch { release, servers }, why)));
    steps
}

fn launch_reason(desired: &GroupDesired, rollout: &RolloutProgress, counts: &Counts<'_>, servers: u32) -> String {
    let target = counts.target.short();
    let (have, count) = (counts.new.len(), desired.count);
    match &rollout.state {
        RolloutState::Reverting { .. } => {
            format!("the group goes back to release {target}: {have} of {count} servers are on it")
        }
        _ if !counts.old.is_empty() && !rollout.holds() => {
            format!(
                "the group moves to release {target}: {have} of {count} servers are on it, {servers} more may be launched now"
            )
        }
        RolloutState::Running => format!("{count} servers of release {target} are wanted, {have} are there"),
        _ => format!("{count} servers are wanted, {} are there: what is missing is replaced", counts.live()),
    }
}
