//! Servers with volumes: each has a slot, and a slot's volumes are never with two.

use std::time::Duration;

use kiln_model::plan::{Action, RolloutState};
use proptest::prelude::*;

use crate::{
    properties::{Happening, happen, happening},
    world::{Chance, FAIR, World, release},
};

fn stateful(count: u32) -> World {
    let mut world = World::rolling(count, 1, 0);
    world.desired.slots = true;
    world
}

fn slots(world: &World) -> Vec<u32> {
    let mut slots: Vec<u32> = world.observed.servers.iter().filter_map(|server| server.slot).collect();
    slots.sort_unstable();
    slots
}

#[test]
fn every_slot_gets_one_server_and_a_new_count_changes_the_last_ones() {
    let mut world = stateful(3);
    assert_eq!(world.settle(FAIR), RolloutState::Done);
    assert_eq!(slots(&world), [0, 1, 2]);
    world.want(release(1), 1);
    assert_eq!(world.settle(FAIR), RolloutState::Done);
    assert_eq!(slots(&world), [0]);
    world.want(release(1), 2);
    assert_eq!(world.settle(FAIR), RolloutState::Done);
    assert_eq!(slots(&world), [0, 1]);
}

#[test]
fn a_successor_is_staged_while_the_old_one_serves_and_takes_over_when_it_has_ended() {
    let mut world = stateful(1);
    world.settle(FAIR);
    world.log.clear();
    world.want(release(2), 1);
    assert_eq!(world.settle(FAIR), RolloutState::Done);
    let words = world.words();
    let at = |word: &str| words.iter().position(|w| *w == word).unwrap_or_else(|| panic!("no {word} in {words:?}"));
    assert!(at("stage") < at("drain") && at("drain") < at("stop") && at("stop") < at("hand-over"), "{words:?}");
    assert!(!words.contains(&"launch"), "{words:?}");
}

#[test]
fn slots_that_are_made_from_slot_0_wait_until_it_serves() {
    let mut world = stateful(3);
    world.desired.unmade = [1, 2].into();
    let first = world.plan();
    let begun: Vec<_> = first.steps.iter().map(|step| &step.action).collect();
    assert_eq!(begun, [&Action::LaunchIn { release: release(1), slot: 0 }]);
    for _ in 0..100 {
        world.round(FAIR);
    }
    world.desired.unmade.clear();
    assert_eq!(world.settle(FAIR), RolloutState::Done);
    assert_eq!(slots(&world), [0, 1, 2]);
}

#[test]
fn slot_0_is_replaced_last() {
    let mut world = stateful(3);
    world.settle(FAIR);
    world.log.clear();
    world.want(release(2), 3);
    world.settle(FAIR);
    let staged: Vec<u32> = world
        .log
        .iter()
        .filter_map(|step| match step.action {
            Action::Stage { slot, .. } => Some(slot),
            _ => None,
        })
        .collect();
    assert_eq!(staged, [2, 1, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// What every plan keeps is checked in [`World::check`]: no volume is given while another server may have it.
    #[test]
    fn whatever_happens_no_slot_has_two_servers_with_its_volumes_and_it_ends(
        healthy in 0u64..3,
        auto_revert in any::<bool>(),
        seed in any::<u64>(),
        happenings in proptest::collection::vec(happening(), 1..25),
    ) {
        let mut world = stateful(3);
        world.chance = Chance(seed);
        world.desired.policy.min_healthy_time = Duration::from_secs(healthy);
        world.desired.policy.auto_revert = auto_revert;
        happenings.iter().for_each(|what| happen(&mut world, what));
        world.observed.blocked = None;
        (1..5).for_each(|n| happen(&mut world, &Happening::Admit { release: n }));
        world.want(release(5), 4);
        prop_assert_eq!(world.settle(FAIR), RolloutState::Done);
        prop_assert_eq!(world.on(release(5)), 4);
        prop_assert_eq!(slots(&world), vec![0, 1, 2, 3]);
    }
}
