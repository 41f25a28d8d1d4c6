//! When a failed server may be replaced: at once at first, later and later while servers keep failing young.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    count::Counts,
    types::{GroupDesired, GroupObserved},
};
use crate::{digest::ReleaseId, server::ServerState};

/// The longest pause between two attempts.
pub const BACKOFF_CAP: Duration = Duration::from_secs(60);
/// A server that failed within this time of its launch says something about its release; an older one does not.
pub const SHORT_LIFE: Duration = Duration::from_secs(60);
/// So many failures without progress end a rollout (more where more servers are launched at once).
pub const FAILURES_IN_A_ROW: u32 = 3;

/// So many failures in ten minutes are healed at once, whatever the size of the group.
pub const ALWAYS_HEALED: u32 = 5;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Failures are looked at this far back.
const WINDOW: Duration = Duration::from_secs(600);

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
    let young = observed
        .failures
        .iter()
        .filter(|f| f.release == release && later(f.launched_at, SHORT_LIFE) >= f.at && later(f.at, WINDOW) >= now);
    let (mut count, mut last) = (0u32, None);
    for failure in young {
        count += 1;
        last = last.max(Some(failure.at));
    }
    let waves = count / desired.count.max(1);
    let pause = FIRST_PAUSE.saturating_mul(1 << waves.saturating_sub(2).min(10)).min(BACKOFF_CAP);
    let end = later(last?, pause);
    (waves >= 2 && end > now).then_some(end)
}

/// How many servers may be launched now to heal a group of which many failed lately.
///
/// Many failures at once say more about the host, or about whoever looks at it, than about the servers: launching as
/// many again at once makes an outage worse. Up to [`ALWAYS_HEALED`] failures, or a fifth of the group, in ten minutes are
/// healed at once; above that, no more than so many servers are starting at any time.
pub(super) fn brake(
    desired: &GroupDesired,
    observed: &GroupObserved,
    counts: &Counts<'_>,
    now: Timestamp,
) -> Option<u32> {
    let few = ALWAYS_HEALED.max(desired.count.div_ceil(5));
    let failed = observed.failures.iter().filter(|failure| later(failure.at, WINDOW) >= now).count() as u32;
    let live = counts.new.iter().chain(&counts.old);
    let starting = live.filter(|server| server.state != ServerState::Ready).count() as u32;
    (failed > few).then(|| few.saturating_sub(starting))
}

/// `at` plus a duration, at most the end of time.
pub(super) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}
