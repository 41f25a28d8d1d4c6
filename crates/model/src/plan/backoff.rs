//! When a failed server may be replaced: at once at first, later and later while servers keep failing young; and when so
//! many went down that replacing them is left to a person.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    chance,
    count::Counts,
    types::{Failure, GroupDesired, GroupObserved, HealingHeld},
};
use crate::digest::ReleaseId;

/// The longest pause between two attempts.
pub const BACKOFF_CAP: Duration = Duration::from_secs(60);
/// A server that failed within this time of its launch says something about its release; an older one does not.
pub const SHORT_LIFE: Duration = Duration::from_secs(60);
/// So many failures without progress end a rollout (more where more servers are launched at once).
pub const FAILURES_IN_A_ROW: u32 = 3;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Failures are looked at this far back for the pause.
const WINDOW: Duration = Duration::from_secs(600);
/// A pause is shortened by up to this share, so that groups that failed together do not come back together.
const JITTER: f64 = 0.2;

impl Failure {
    /// Whether it says something about its release: it came soon, and by itself.
    fn is_young(&self) -> bool {
        !self.killed && !self.drill && !self.spare && later(self.launched_at, SHORT_LIFE) >= self.at
    }

    /// Whether the group lost something by it that nobody meant to take. One that was killed before it was ready counts: no
    /// back-off paces its successors.
    fn is_of_a_server_that_was_up(&self) -> bool {
        !self.drill && !self.spare && (self.killed || !self.unready)
    }
}

/// Until when no server of this release is launched, because servers of it keep failing young.
///
/// A whole group failing once is one wave. The first two waves are replaced at once; from then on the pause doubles from
/// one second to [`BACKOFF_CAP`].
pub(super) fn until(
    desired: &GroupDesired,
    observed: &GroupObserved,
    release: ReleaseId,
    now: Timestamp,
) -> Option<Timestamp> {
    let young = lately(observed, WINDOW, now).filter(|failure| failure.release == release && failure.is_young());
    let (mut count, mut last) = (0u32, None);
    for failure in young {
        count += 1;
        last = last.max(Some(failure.at));
    }
    let waves = count / desired.count.max(1);
    let pause = FIRST_PAUSE.saturating_mul(1 << waves.saturating_sub(2).min(10)).min(BACKOFF_CAP);
    let shorter = JITTER * chance::share(&[desired.group.as_str(), &count.to_string()]);
    let end = later(last?, pause.mul_f64(1.0 - shorter));
    (waves >= 2 && end > now).then_some(end)
}

/// How many servers may be launched now to heal a group, and why no more, where that is fewer than are missing.
pub(super) struct Brake {
    /// So many.
    pub servers: u32,
    /// What holds the others back.
    pub held: Option<HealingHeld>,
}

/// Many failures at once say more about the host, or about whoever looks at it, than about the servers: launching as
/// many again makes an outage worse. As many as the policy says are healed, the rest waits.
///
/// What a drill destroyed does not count: it began only because healing would give that back.
///
/// A server that keeps failing young is one server that is down, however often it was tried, and one that never became
/// ready did not go down: their attempts are paced by [`until`].
pub(super) fn brake(
    desired: &GroupDesired,
    observed: &GroupObserved,
    counts: &Counts<'_>,
    missing: u32,
    now: Timestamp,
) -> Brake {
    let policy = desired.healing;
    let limit = policy.limit(desired.count);
    let of_target = lately(observed, policy.within, now)
        .filter(|failure| failure.release == counts.target && failure.is_of_a_server_that_was_up());
    let (young, mut other): (Vec<&Failure>, Vec<&Failure>) = of_target.partition(|failure| failure.is_young());
    let kept = young.len().min(desired.count as usize);
    other.extend(&young[young.len() - kept..]);
    other.sort_by_key(|failure| failure.at);
    let down = other.len() as u32;
    if down <= limit {
        return Brake { servers: missing, held: None };
    }
    let healed = down.saturating_sub(missing);
    let servers = limit.saturating_sub(healed).min(missing);
    // The next may be healed when so many of the failures are old.
    let surplus = down.saturating_sub(limit.saturating_add(missing)) as usize;
    let held = (servers < missing).then(|| HealingHeld {
        down,
        limit,
        waiting: missing - servers,
        until: other.get(surplus).map_or(now, |failure| later(failure.at, policy.within)),
    });
    Brake { servers, held }
}

pub(super) fn lately(observed: &GroupObserved, within: Duration, now: Timestamp) -> impl Iterator<Item = &Failure> {
    observed.failures.iter().filter(move |failure| later(failure.at, within) > now)
}

/// `at` plus a duration, at most the end of time.
pub(super) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}
