//! What a plan costs, by the size of the fleet. Run by `cargo xtask bench planner`, which reads what this prints.

use std::{
    collections::{BTreeMap, BTreeSet},
    hint::black_box,
    time::Instant,
};

use jiff::Timestamp;
use kiln_model::{
    Digest, ReleaseId, ServerState,
    fleet::{HealingPolicy, RolloutPolicy},
    plan::{Action, Admission, GroupDesired, GroupObserved, RolloutProgress, RolloutState, ServerView, plan},
};

/// Servers of each group.
const EACH: u32 = 100;
/// Fleets of so many servers.
const SIZES: [u32; 3] = [1_000, 10_000, 100_000];
/// Rounds of which the median counts.
const ROUNDS: usize = 31;

struct Fleet(Vec<(GroupDesired, GroupObserved, RolloutProgress)>);

fn now() -> Timestamp {
    "2026-01-02T00:00:00Z".parse().expect("a time")
}

impl Fleet {
    /// Every group at rest.
    fn of(servers: u32) -> Self {
        Self((0..servers / EACH).map(group).collect())
    }

    /// Plans every group; the number of steps.
    fn plan(&self) -> usize {
        let steps =
            |(desired, observed, progress): &(_, _, _)| plan(desired, observed, Some(progress), now()).steps.len();
        self.0.iter().map(steps).sum()
    }
}

fn group(number: u32) -> (GroupDesired, GroupObserved, RolloutProgress) {
    let release = ReleaseId(Digest::of(&number.to_be_bytes()));
    let launched_at = "2026-01-01T00:00:00Z".parse().expect("a time");
    let desired = GroupDesired {
        group: format!("g{number}").parse().expect("a name"),
        revision: 1,
        release,
        count: EACH,
        policy: RolloutPolicy::default(),
        slots: false,
        unmade: BTreeSet::new(),
        healing: HealingPolicy::default(),
        spares: 0,
        spare_age: kiln_model::plan::SPARE_AGE,
        admissions: BTreeMap::from([(release, Admission::Admitted)]),
    };
    let server = |n: u32| ServerView {
        id: format!("g{number}-{n:06}").parse().expect("an id"),
        release,
        state: ServerState::Ready,
        launched_at,
        ready_at: Some(launched_at),
        in_traffic: true,
        busy: false,
        running: true,
        slot: None,
        staged: false,
        replace: false,
        spare: false,
    };
    let observed = GroupObserved { servers: (0..EACH).map(server).collect(), ..GroupObserved::default() };
    let progress = RolloutProgress {
        revision: 1,
        stable: Some(release),
        to: release,
        state: RolloutState::Done,
        started_at: launched_at,
        progressed_at: launched_at,
        best: EACH,
    };
    (desired, observed, progress)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Milliseconds.
fn timed(mut work: impl FnMut()) -> f64 {
    median(
        (0..ROUNDS)
            .map(|_| {
                let begun = Instant::now();
                work();
                begun.elapsed().as_secs_f64() * 1e3
            })
            .collect(),
    )
}

#[test]
#[ignore = "a benchmark"]
fn perf_planner() {
    for servers in SIZES {
        let mut fleet = Fleet::of(servers);
        assert_eq!(fleet.plan(), 0, "at rest there is nothing to do");
        let cold = timed(|| assert_eq!(black_box(&fleet).plan(), 0));
        // Nothing is there yet: everything is to be launched.
        let empty: Vec<_> = fleet.0.iter().map(|(desired, ..)| desired.clone()).collect();
        let first = timed(|| {
            for desired in &empty {
                let next = plan(desired, &GroupObserved::default(), None, now());
                assert!(matches!(next.steps[0].action, Action::Launch { .. }));
            }
        });
        // One more server in one group: only that group is planned, as in the daemon.
        let changed = fleet.0.len() / 2;
        let (desired, observed, progress) = &mut fleet.0[changed];
        (desired.count, desired.revision) = (EACH + 1, 2);
        let change = timed(|| {
            let next = plan(desired, observed, Some(progress), now());
            assert_eq!(next.steps.len(), 1);
        });
        println!(
            "PERF pure_change_ms_{servers} {change:.4} pure_cold_ms_{servers} {cold:.3} pure_first_ms_{servers} {first:.3}"
        );
    }
}
