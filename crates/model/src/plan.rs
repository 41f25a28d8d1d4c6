//! What to do next about one group, and why: pure, complete, the same for the same input.
//!
//! [`plan`] looks at what is wanted, what is there, how far the rollout is and what time it is, and returns every action
//! that should be begun now, each with its reason in words, together with the next state of the rollout and the time
//! at which it wants to look again even if nothing happens. Whoever executes it makes no choices. It is called
//! again after every change; an action under way is shown to it as [`ServerView::busy`], so that it is not ordered twice,
//! and when there is nothing to do the plan is empty and stays so.
//!
//! What it keeps, whatever is asked half-way through whatever else:
//!
//! - No planned action takes the group below `count - max_unavailable` available servers. (Failures can; then the
//!   missing servers are launched, and that never waits for a broken one to be gone.)
//! - No more than `count + max_surge` servers are live (launching, starting or ready) because of a launch.
//! - Only an admitted release is launched.
//! - Blue/green: no server of the new release gets traffic before all of them are ready; then all do at once.
//!
//! - Where servers have volumes, no slot's volumes are given to a server while another one may still have them.
//! - Never more spares than are wanted, and only one of exactly the release that would be launched is taken.
//!
//! A group's progress goes through [`RolloutState`]. Every change that is applied starts a new rollout, also one that
//! changes only the count, so that there is one way to tell whether a change is done. A rollout has failed when it made
//! no progress for `progress_deadline`, or when [`FAILURES_IN_A_ROW`] new servers failed without one becoming
//! available between them. It then goes back to the release the group had before, where the policy and the
//! evidence allow; otherwise what still serves is kept.

mod age;
mod back;
mod backoff;
mod chance;
mod count;
mod drill;
mod forecast;
mod progress;
mod replay;
mod scale;
mod slots;
mod spares;
mod steps;
mod types;

pub use age::aged;
pub use back::{Past, way_back};
pub use backoff::{BACKOFF_CAP, FAILURES_IN_A_ROW, SHORT_LIFE};
pub use drill::{NoDrill, drill, drill_due};
pub use forecast::forecast;
pub use replay::ScaleInputs;
pub use scale::{Asked, Load, ScaleDecision, ScaleMemory, scale};
pub use spares::SPARE_AGE;
pub use types::{
    Action, Admission, Failure, GroupDesired, GroupObserved, HealingHeld, Plan, PlannedAction, RolloutProgress,
    RolloutState, ServerView,
};

use jiff::Timestamp;

/// What to do next about a group.
pub fn plan(
    desired: &GroupDesired,
    observed: &GroupObserved,
    progress: Option<&RolloutProgress>,
    now: Timestamp,
) -> Plan {
    let rollout = progress::next(desired, observed, progress, now);
    let counts = count::Counts::of(desired, observed, &rollout, now);
    let healing = steps::healing(desired, observed, &rollout, &counts, now);
    let steps = steps::all(desired, observed, &rollout, &counts, progress, healing.as_ref(), now);
    let held = healing.and_then(|brake| brake.held);
    let wake_at = progress::wake_at(desired, observed, &rollout, &counts, held.as_ref(), now);
    Plan { steps, rollout, wake_at, held }
}
