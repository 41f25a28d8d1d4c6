//! Whatever happens: every plan on the way is checked by [`World::plan`], and every way ends.

use std::time::Duration;

use kiln_model::{
    fleet,
    plan::{Admission, RolloutState},
};
use proptest::{prelude::*, strategy::Strategy};

use super::world::{Chance, FAIR, Weather, World, release};

#[derive(Debug, Clone)]
pub enum Happening {
    Want { release: u8, count: u32 },
    Spares { count: u32 },
    Rebuild,
    Refuse { release: u8 },
    Admit { release: u8 },
    Rounds { count: u8, weather: Weather },
    Block,
    Unblock,
}

fn strategy() -> impl Strategy<Value = fleet::Strategy> {
    prop_oneof![
        (0u32..4, 0u32..3)
            .prop_map(|(max_surge, max_unavailable)| fleet::Strategy::Rolling { max_surge, max_unavailable }),
        Just(fleet::Strategy::BlueGreen),
    ]
}

fn weather() -> impl Strategy<Value = Weather> {
    (0u64..30, 5u64..100, 20u64..100).prop_map(|(fails, becomes_ready, finishes)| Weather {
        fails,
        becomes_ready,
        finishes,
    })
}

pub fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (1u8..5, 0u32..7).prop_map(|(release, count)| Happening::Want { release, count }),
        1 => (0u32..4).prop_map(|count| Happening::Spares { count }),
        1 => Just(Happening::Rebuild),
        1 => (1u8..5).prop_map(|release| Happening::Refuse { release }),
        1 => (1u8..5).prop_map(|release| Happening::Admit { release }),
        6 => (1u8..40, weather()).prop_map(|(count, weather)| Happening::Rounds { count, weather }),
        1 => Just(Happening::Block),
        1 => Just(Happening::Unblock),
    ]
}

pub fn happen(world: &mut World, what: &Happening) {
    match what {
        Happening::Want { release: n, count } => world.want(release(*n), *count),
        Happening::Spares { count } => world.desired.spares = *count,
        Happening::Rebuild => {
            world.observed.servers.iter_mut().for_each(|s| s.replace = true);
            world.desired.revision += 1;
        }
        Happening::Refuse { release: n } => {
            let refused = Admission::Refused { code: "expired".into(), reason: "its report expired".into() };
            world.desired.admissions.insert(release(*n), refused);
        }
        Happening::Admit { release: n } => {
            world.desired.admissions.insert(release(*n), Admission::Admitted);
        }
        Happening::Rounds { count, weather } => (0..*count).for_each(|_| {
            world.round(*weather);
        }),
        Happening::Block => world.observed.blocked = Some("port 80 of this host is taken".into()),
        Happening::Unblock => world.observed.blocked = None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_bounds_hold_and_it_ends(
        strategy in strategy(),
        healthy in 0u64..3,
        auto_revert in any::<bool>(),
        seed in any::<u64>(),
        happenings in proptest::collection::vec(happening(), 1..25),
    ) {
        let mut world = World::new(3, strategy);
        world.chance = Chance(seed);
        world.desired.policy.min_healthy_time = Duration::from_secs(healthy);
        world.desired.policy.auto_revert = auto_revert;
        happenings.iter().for_each(|what| happen(&mut world, what));

        // The storm is over: servers become ready, evidence is good, and there is one more thing wanted.
        world.observed.blocked = None;
        (1..5).for_each(|n| happen(&mut world, &Happening::Admit { release: n }));
        world.want(release(5), 4);
        prop_assert_eq!(world.settle(FAIR), RolloutState::Done);
        prop_assert_eq!(world.on(release(5)), 4);
        let spares = world.observed.servers.iter().filter(|s| s.spare).count() as u32;
        prop_assert_eq!(spares, if world.desired.slots { 0 } else { world.desired.spares });
        prop_assert_eq!(world.observed.servers.len() as u32, 4 + spares);
    }

    /// Also without a new wish: whatever the last one was, the group comes to rest.
    #[test]
    fn after_the_storm_the_group_comes_to_rest(
        strategy in strategy(),
        seed in any::<u64>(),
        happenings in proptest::collection::vec(happening(), 1..25),
    ) {
        let mut world = World::new(3, strategy);
        world.chance = Chance(seed);
        happenings.iter().for_each(|what| happen(&mut world, what));
        world.observed.blocked = None;
        world.settle(FAIR);
    }
}
