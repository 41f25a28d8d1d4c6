//! Spares: servers that are made ahead, so that a death or a scale-out takes one instead of waiting for a launch.
//!
//! A spare is no server of its group: it is not counted, gets no traffic and is seen by no other rule. It becomes one by being
//! *taken*, once, and nothing ever becomes a spare again. Only a spare of exactly the release that would be launched is taken,
//! and none that has become too old; any other is thrown away. Spares are made when everything that is wanted is there and
//! serves, so that no rollout and no healing waits for one.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    age,
    backoff::{self, BACKOFF_CAP, Brake},
    count::Counts,
    steps::because,
    types::{Action, GroupDesired, GroupObserved, PlannedAction, RolloutProgress, RolloutState, ServerView},
};

/// A spare that nobody took is thrown away after this time, and another is made.
pub const SPARE_AGE: Duration = Duration::from_secs(86_400);

const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Failures of spares are looked at this far back.
const WINDOW: Duration = Duration::from_secs(600);

impl GroupDesired {
    /// So many spares. A spare has no slot, so servers with volumes have none.
    fn spares_wanted(&self) -> u32 {
        if self.slots { 0 } else { self.spares }
    }
}

impl ServerView {
    /// Whether it waits to be taken, and can be asked to end.
    fn is_held(&self) -> bool {
        !self.busy && self.staged
    }

    /// Why a spare is of no use any more, if it is not.
    fn useless(&self, desired: &GroupDesired, counts: &Counts<'_>, now: Timestamp) -> Option<String> {
        let (of, target) = (self.release.short(), counts.target.short());
        match () {
            () if self.release != counts.target => {
                Some(format!("it is a spare of release {of}, and {target} is launched"))
            }
            () if self.replace => Some("it is a spare that is to be made anew".to_owned()),
            () if age::ends_at(self, desired.spare_age) <= now => {
                Some("it is a spare that nobody took in time".to_owned())
            }
            () => None,
        }
    }
}

/// Takes spares instead of launching so many servers; as many as there are.
pub(super) fn take(
    desired: &GroupDesired,
    counts: &Counts<'_>,
    servers: u32,
    why: &str,
    now: Timestamp,
) -> Vec<PlannedAction> {
    let fit = counts.spares.iter().filter(|spare| spare.is_held() && spare.useless(desired, counts, now).is_none());
    let taken = fit.take(servers as usize);
    taken
        .map(|spare| because(Action::Take { server: spare.id.clone() }, format!("{why}; it was held as a spare")))
        .collect()
}

/// Spares that are thrown away: those of no use, and those that are too many. What was just taken stays.
pub(super) fn surplus(
    desired: &GroupDesired,
    counts: &Counts<'_>,
    taken: &[PlannedAction],
    now: Timestamp,
) -> Vec<PlannedAction> {
    let wanted = desired.spares_wanted();
    let stays = |spare: &&ServerView| taken.iter().all(|step| step.action.server() != Some(&spare.id));
    let (mut kept, mut steps) = (0, Vec::new());
    for spare in counts.spares.iter().copied().filter(stays) {
        let too_many = || (kept >= wanted).then(|| format!("{wanted} spares are wanted, and there are more"));
        match spare.useless(desired, counts, now).or_else(too_many) {
            Some(why) if spare.is_held() => steps.push(because(Action::Stop { server: spare.id.clone() }, why)),
            _ => kept += 1,
        }
    }
    steps
}

/// Makes the spares that are missing, where nothing else is.
pub(super) fn make(
    desired: &GroupDesired,
    observed: &GroupObserved,
    rollout: &RolloutProgress,
    counts: &Counts<'_>,
    healing: Option<&Brake>,
    going: &[PlannedAction],
    now: Timestamp,
) -> Option<PlannedAction> {
    if !at_rest(desired, observed, rollout, counts) || healing.is_some_and(|brake| brake.held.is_some()) {
        return None;
    }
    if !desired.admits(&counts.target) || held_back(desired, observed, counts, now).is_some() {
        return None;
    }
    let (wanted, held) = (desired.spares_wanted(), counts.spares.len().saturating_sub(going.len()) as u32);
    // Where those that were thrown away do not go, no more are added to the heap.
    let heap = wanted.saturating_mul(2).saturating_sub((counts.spares.len() + counts.leaving_spares()) as u32);
    let servers = wanted.saturating_sub(held).min(heap);
    let why = format!("everything wanted is there, and {held} of {wanted} spares are held");
    (servers > 0).then(|| because(Action::Spare { release: counts.target, servers }, why))
}

/// Whether every server that is wanted serves, and no other does.
fn at_rest(desired: &GroupDesired, observed: &GroupObserved, rollout: &RolloutProgress, counts: &Counts<'_>) -> bool {
    let arrived = matches!(rollout.state, RolloutState::Done | RolloutState::Reverted { .. });
    let whole = counts.new.len() as u32 == desired.count && counts.new.iter().all(|server| server.serves());
    arrived && whole && counts.old.is_empty() && observed.blocked.is_none()
}

/// Until when no spare is made: because servers of the release keep failing, or because spares do.
fn held_back(
    desired: &GroupDesired,
    observed: &GroupObserved,
    counts: &Counts<'_>,
    now: Timestamp,
) -> Option<Timestamp> {
    let failed = || observed.failures.iter().filter(|f| f.spare && f.release == counts.target);
    let lately = failed().filter(|failure| backoff::later(failure.at, WINDOW) > now);
    let (count, last) = lately.fold((0u32, None), |(count, last), failure| (count + 1, last.max(Some(failure.at))));
    let pause = FIRST_PAUSE.saturating_mul(1 << count.saturating_sub(1).min(10)).min(BACKOFF_CAP);
    let own = last.map(|last| backoff::later(last, pause)).filter(|end| *end > now);
    own.max(backoff::until(desired, observed, counts.target, now))
}

/// When to look at the spares again even if nothing happens.
pub(super) fn wake_at(
    desired: &GroupDesired,
    observed: &GroupObserved,
    counts: &Counts<'_>,
    now: Timestamp,
) -> Option<Timestamp> {
    let missing = desired.spares_wanted() > counts.spares.len() as u32;
    let made = held_back(desired, observed, counts, now).filter(|_| missing);
    let old = counts.spares.iter().map(|spare| age::ends_at(spare, desired.spare_age));
    old.chain(made).filter(|at| *at > now).min()
}
