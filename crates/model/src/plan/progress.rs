//! How a rollout gets from one state to the next.

use jiff::Timestamp;

use super::{
    backoff::{self, FAILURES_IN_A_ROW, later},
    count::Counts,
    spares,
    types::{Admission, GroupDesired, GroupObserved, HealingHeld, RolloutProgress, RolloutState},
};
use crate::{digest::ReleaseId, fleet::Strategy};

/// The state of the rollout now.
pub(super) fn next(
    desired: &GroupDesired,
    observed: &GroupObserved,
    previous: Option<&RolloutProgress>,
    now: Timestamp,
) -> RolloutProgress {
    let mut progress = match previous {
        Some(progress) if progress.revision == desired.revision => progress.clone(),
        other => begin(desired, other, now),
    };
    // Each round takes one step of the table; three are the most that can follow from one change.
    for _ in 0..3 {
        note_progress(&mut progress, desired, observed, now);
        match step(&progress, desired, observed, now) {
            Some(state) => enter(&mut progress, state, now),
            None => break,
        }
    }
    progress
}

fn begin(desired: &GroupDesired, previous: Option<&RolloutProgress>, now: Timestamp) -> RolloutProgress {
    RolloutProgress {
        revision: desired.revision,
        stable: previous.and_then(|p| if p.state == RolloutState::Done { Some(p.to) } else { p.stable }),
        to: desired.release,
        state: RolloutState::Running,
        started_at: now,
        progressed_at: now,
        best: 0,
    }
}

fn enter(progress: &mut RolloutProgress, state: RolloutState, now: Timestamp) {
    if state == RolloutState::Done {
        progress.stable = Some(progress.to);
    }
    if matches!(state, RolloutState::Running | RolloutState::Reverting { .. }) {
        (progress.progressed_at, progress.best) = (now, 0);
    }
    progress.state = state;
}

fn note_progress(progress: &mut RolloutProgress, desired: &GroupDesired, observed: &GroupObserved, now: Timestamp) {
    let available = Counts::of(desired, observed, progress, now).new_available;
    if !progress.is_over() && available > progress.best {
        (progress.best, progress.progressed_at) = (available, now);
    }
}

/// The state that follows from what is seen; none if it stays.
fn step(
    progress: &RolloutProgress,
    desired: &GroupDesired,
    observed: &GroupObserved,
    now: Timestamp,
) -> Option<RolloutState> {
    let complete = Counts::of(desired, observed, progress, now).complete(desired);
    match &progress.state {
        RolloutState::Running if complete => Some(RolloutState::Done),
        RolloutState::Running => refused(progress.to, desired).or_else(|| {
            let reason = failure(progress, desired, observed, now)?;
            Some(give_up(progress, desired, observed, reason))
        }),
        RolloutState::Reverting { reason } if complete => Some(RolloutState::Reverted { reason: reason.clone() }),
        RolloutState::Reverting { reason } => {
            let stable = progress.target();
            let second = match refused(stable, desired) {
                Some(RolloutState::Refused { reason, .. }) => reason,
                _ => failure(progress, desired, observed, now)?,
            };
            let reason = format!("{reason}; going back to release {} failed as well: {second}", stable.short());
            Some(RolloutState::Failed { reason })
        }
        // What was refused goes on by itself once there is evidence, what failed counts as done once it is healed.
        RolloutState::Refused { .. } => (refused(progress.to, desired).is_none()).then_some(RolloutState::Running),
        RolloutState::Failed { .. } => {
            let aimed = RolloutProgress { state: RolloutState::Running, ..progress.clone() };
            let healed = observed.blocked.is_none() && Counts::of(desired, observed, &aimed, now).complete(desired);
            healed.then_some(RolloutState::Done)
        }
        RolloutState::Done | RolloutState::Reverted { .. } => None,
    }
}

/// Whether the release may not be launched. A group that wants no servers asks for no evidence.
fn refused(release: ReleaseId, desired: &GroupDesired) -> Option<RolloutState> {
    match desired.admissions.get(&release) {
        _ if desired.count == 0 => None,
        Some(Admission::Admitted) => None,
        Some(Admission::Refused { code, reason }) => {
            Some(RolloutState::Refused { code: code.clone(), reason: reason.clone() })
        }
        None => Some(RolloutState::Refused {
            code: "no-evidence".to_owned(),
            reason: format!("nobody looked for evidence of release {}", release.short()),
        }),
    }
}

/// Why the rollout cannot go on, if it cannot.
fn failure(
    progress: &RolloutProgress,
    desired: &GroupDesired,
    observed: &GroupObserved,
    now: Timestamp,
) -> Option<String> {
    if let Some(blocked) = &observed.blocked {
        return Some(blocked.clone());
    }
    let target = progress.target();
    let failed = observed
        .failures
        .iter()
        .filter(|f| {
            !f.spare && f.release == target && f.launched_at >= progress.started_at && f.at >= progress.progressed_at
        })
        .count() as u32;
    if failed >= tolerated(desired) {
        return Some(format!("{failed} servers of release {} failed one after another", target.short()));
    }
    (deadline(progress, desired) <= now).then(|| {
        format!(
            "release {} made no progress for {}: {} of {} servers are available",
            target.short(),
            crate::duration::format(desired.policy.progress_deadline),
            progress.best,
            desired.count
        )
    })
}

/// Where many servers are launched at once, a few failures say less.
fn tolerated(desired: &GroupDesired) -> u32 {
    let at_once = match desired.policy.strategy {
        Strategy::Rolling { max_surge, max_unavailable } => {
            max_surge.saturating_add(max_unavailable).min(desired.count)
        }
        Strategy::BlueGreen => desired.count,
    };
    FAILURES_IN_A_ROW.max(at_once.div_ceil(2))
}

fn give_up(
    progress: &RolloutProgress,
    desired: &GroupDesired,
    observed: &GroupObserved,
    reason: String,
) -> RolloutState {
    let back = progress.stable.filter(|stable| *stable != progress.to && desired.policy.auto_revert);
    match back {
        // Another release does not free a port.
        Some(stable) if observed.blocked.is_none() => match refused(stable, desired) {
            None => RolloutState::Reverting { reason },
            Some(RolloutState::Refused { reason: why, .. }) => RolloutState::Failed {
                reason: format!("{reason}; it cannot go back to release {}: {why}", stable.short()),
            },
            Some(_) => RolloutState::Failed { reason },
        },
        _ => RolloutState::Failed { reason },
    }
}

fn deadline(progress: &RolloutProgress, desired: &GroupDesired) -> Timestamp {
    let policy = &desired.policy;
    later(progress.progressed_at, policy.progress_deadline.saturating_add(policy.min_healthy_time))
}

/// When to look again even if nothing happens.
pub(super) fn wake_at(
    desired: &GroupDesired,
    observed: &GroupObserved,
    rollout: &RolloutProgress,
    counts: &Counts<'_>,
    held: Option<&HealingHeld>,
    now: Timestamp,
) -> Option<Timestamp> {
    let deadline = (!rollout.is_over()).then(|| deadline(rollout, desired));
    let healthy = counts.new.iter().filter(|s| s.ready_at.is_some()).map(|s| s.healthy_at(desired));
    let backoff = backoff::until(desired, observed, counts.target, now);
    let members = healthy.chain(deadline).chain(backoff).chain(held.map(|held| held.until));
    let spares = spares::wake_at(desired, observed, counts, now);
    members.chain(spares).filter(|at| *at > now).min()
}
