//! Plain cases, one each.

use std::time::Duration;

use kiln_model::{
    ServerState,
    fleet::{HealingPolicy, Strategy},
    plan::{Action, Admission, Failure, RolloutState, aged, forecast},
};

use super::world::{FAIR, Weather, World, release, serves};

/// A world whose group is settled on release 1.
fn settled(mut world: World) -> World {
    assert_eq!(world.settle(FAIR), RolloutState::Done);
    world.log.clear();
    world
}

/// Servers of `bad` never become ready: they fail in their first round.
fn broken(world: &mut World, bad: u8) {
    let bad = release(bad);
    for server in &mut world.observed.servers {
        if server.release == bad && server.state == ServerState::Starting {
            server.state = ServerState::Failed;
            let (at, launched_at) = (world.now, server.launched_at);
            world.observed.failures.push(Failure {
                release: bad,
                at,
                launched_at,
                killed: false,
                unready: true,
                drill: false,
                spare: false,
            });
        }
    }
}

#[test]
fn a_first_rollout_launches_all_servers_at_once() {
    let mut world = World::rolling(3, 1, 0);
    let first = world.plan();
    assert_eq!(first.steps[0].action, Action::Launch { release: release(1), servers: 3 });
    assert_eq!(world.settle(FAIR), RolloutState::Done);
    assert_eq!(world.on(release(1)), 3);
}

#[test]
fn a_group_of_one_is_surged_not_taken_down() {
    for (surge, unavailable) in [(1, 0), (0, 0)] {
        let mut world = settled(World::rolling(1, surge, unavailable));
        world.want(release(2), 1);
        world.settle(FAIR);
        let words = world.words();
        let place = |word| words.iter().position(|w| *w == word).unwrap();
        assert!(place("launch") < place("route") && place("route") < place("drain"), "{words:?}");
    }
}

#[test]
fn a_surge_of_fifty_launches_fifty_at_once() {
    let mut world = settled(World::rolling(50, 50, 0));
    world.want(release(2), 50);
    assert_eq!(world.plan().steps[0].action, Action::Launch { release: release(2), servers: 50 });
    assert_eq!(world.settle(FAIR), RolloutState::Done);
}

#[test]
fn without_surge_it_goes_through_the_unavailable() {
    let mut world = settled(World::rolling(3, 0, 1));
    world.want(release(2), 3);
    let first = world.plan();
    assert!(matches!(first.steps[..], [kiln_model::plan::PlannedAction { action: Action::Drain { .. }, .. }]));
    assert_eq!(world.settle(FAIR), RolloutState::Done);
    assert_eq!(world.on(release(2)), 3);
}

#[test]
fn blue_green_switches_all_traffic_in_one_step() {
    let mut world = settled(World::new(3, Strategy::BlueGreen));
    world.want(release(2), 3);
    assert_eq!(world.settle(FAIR), RolloutState::Done);
    let words = world.words();
    assert_eq!(words.iter().filter(|w| **w == "switch").count(), 1);
    assert!(!words.contains(&"route"), "{words:?}");
    assert_eq!((world.on(release(1)), world.on(release(2))), (0, 3));
}

#[test]
fn blue_green_that_fails_never_touches_the_blue_servers() {
    let mut world = settled(World::new(3, Strategy::BlueGreen));
    world.want(release(2), 3);
    for _ in 0..200 {
        broken(&mut world, 2);
        world.round(FAIR);
        assert_eq!(world.on(release(1)), 3);
    }
    assert!(matches!(world.progress.unwrap().state, RolloutState::Reverted { .. }));
}

#[test]
fn scaling_down_takes_the_oldest_and_leaves_the_rest_alone() {
    let mut world = settled(World::rolling(5, 1, 0));
    let mut by_age: Vec<_> = world.observed.servers.iter().map(|s| (s.launched_at, s.id.clone())).collect();
    by_age.sort();
    world.want(release(1), 2);
    world.settle(FAIR);
    let kept: Vec<_> = world.observed.servers.iter().map(|s| s.id.clone()).collect();
    assert_eq!(kept, by_age[3..].iter().map(|(_, id)| id.clone()).collect::<Vec<_>>());
    assert!(!world.words().contains(&"launch"));
}

#[test]
fn scaling_up_touches_no_server() {
    let mut world = settled(World::rolling(2, 1, 0));
    world.want(release(1), 5);
    assert_eq!(world.settle(FAIR), RolloutState::Done);
    assert!(!world.words().contains(&"drain"));
    assert_eq!(world.on(release(1)), 5);
}

#[test]
fn a_count_of_zero_drains_everything_whatever_the_evidence() {
    for strategy in [Strategy::BlueGreen, Strategy::Rolling { max_surge: 1, max_unavailable: 0 }] {
        let mut world = settled(World::new(3, strategy));
        world.desired.admissions.clear();
        world.want(release(1), 0);
        assert_eq!(world.settle(FAIR), RolloutState::Done);
        assert!(world.observed.servers.is_empty());
    }
}

#[test]
fn replacing_a_failed_server_does_not_wait_for_it_to_be_gone() {
    let mut world = settled(World::rolling(3, 1, 0));
    world.observed.servers[0].state = ServerState::Failed;
    let words: Vec<_> = world.plan().steps.iter().map(|s| s.action.word()).collect();
    assert_eq!(words, ["launch", "unroute"]);
    world.settle(FAIR);
    assert_eq!(world.on(release(1)), 3);
}

#[test]
fn a_broken_release_is_given_up_fast_and_the_group_goes_back() {
    let mut world = settled(World::rolling(3, 1, 0));
    let begun = world.now;
    world.want(release(2), 3);
    for _ in 0..200 {
        broken(&mut world, 2);
        world.round(FAIR);
        assert!(world.on(release(1)) >= 3, "the old servers must go on serving");
        if world.progress.as_ref().unwrap().is_over() {
            break;
        }
    }
    let RolloutState::Reverted { reason } = world.progress.clone().unwrap().state else { panic!("{world:?}") };
    assert!(reason.contains("failed one after another"), "{reason}");
    assert!(world.now.duration_since(begun).as_secs() < 30, "it must not wait for the deadline");
}

#[test]
fn without_auto_revert_what_serves_is_kept() {
    let mut world = settled(World::rolling(3, 1, 1));
    world.desired.policy.auto_revert = false;
    world.want(release(2), 3);
    for _ in 0..200 {
        broken(&mut world, 2);
        world.round(FAIR);
    }
    assert!(matches!(world.progress.as_ref().unwrap().state, RolloutState::Failed { .. }));
    assert_eq!(world.on(release(1)), 3, "what was taken away is filled up with the release that works");
}

#[test]
fn a_server_that_never_becomes_ready_meets_the_deadline() {
    let mut world = settled(World::rolling(2, 1, 0));
    let never = Weather { becomes_ready: 0, ..FAIR };
    world.want(release(2), 2);
    let state = world.settle(never);
    let RolloutState::Reverted { reason } = state else { panic!("{state:?}") };
    assert!(reason.contains("made no progress for 2m: 0 of 2"), "{reason}");
    assert_eq!(world.on(release(1)), 2);
}

#[test]
fn a_refused_release_changes_nothing_and_goes_on_once_there_is_evidence() {
    let mut world = settled(World::rolling(3, 1, 0));
    let refusal = Admission::Refused { code: "failing".to_owned(), reason: "the tests failed".to_owned() };
    world.desired.admissions.insert(release(2), refusal);
    world.want(release(2), 3);
    assert!(matches!(world.settle(FAIR), RolloutState::Refused { .. }));
    assert_eq!(world.words(), ["failed"]);
    world.desired.admissions.insert(release(2), Admission::Admitted);
    assert_eq!(world.settle(FAIR), RolloutState::Done);
    assert_eq!(world.on(release(2)), 3);
}

#[test]
fn a_refused_rollout_still_heals_the_release_that_runs() {
    let mut world = settled(World::rolling(3, 1, 0));
    world.desired.admissions.remove(&release(2));
    world.want(release(2), 3);
    world.settle(FAIR);
    world.observed.servers[1].state = ServerState::Failed;
    world.settle(FAIR);
    assert_eq!(world.on(release(1)), 3);
}

#[test]
fn it_goes_back_only_to_a_release_that_is_admitted() {
    let mut world = settled(World::rolling(2, 1, 0));
    let expired = Admission::Refused { code: "expired".to_owned(), reason: "its report expired".to_owned() };
    world.desired.admissions.insert(release(1), expired);
    world.want(release(2), 2);
    let state = world.settle(Weather { becomes_ready: 0, ..FAIR });
    let RolloutState::Failed { reason } = state else { panic!("{state:?}") };
    assert!(reason.contains("its report expired"), "{reason}");
    assert_eq!(world.on(release(1)), 2, "what serves is kept all the same");
}

#[test]
fn a_newer_rollout_takes_over_half_way() {
    let mut world = settled(World::rolling(4, 2, 0));
    world.want(release(2), 4);
    for _ in 0..6 {
        world.round(FAIR);
    }
    world.want(release(3), 4);
    assert_eq!(world.settle(FAIR), RolloutState::Done);
    assert_eq!(world.on(release(3)), 4);
    assert_eq!(world.observed.servers.len(), 4);
}

#[test]
fn a_rebuild_replaces_the_marked_server_after_the_new_one_serves() {
    let mut world = settled(World::rolling(3, 1, 0));
    world.observed.servers[2].replace = true;
    let marked = world.observed.servers[2].id.clone();
    world.want(release(1), 3);
    assert_eq!(world.settle(FAIR), RolloutState::Done);
    assert!(world.observed.servers.iter().all(|s| s.id != marked));
    assert_eq!(world.words().iter().filter(|w| **w == "launch").count(), 1);
}

#[test]
fn min_healthy_time_is_waited_for_before_an_old_server_goes() {
    let mut world = settled(World::rolling(1, 1, 0));
    world.desired.policy.min_healthy_time = Duration::from_secs(10);
    world.want(release(2), 1);
    let begun = world.now;
    assert_eq!(world.settle(FAIR), RolloutState::Done);
    assert!(world.now.duration_since(begun).as_secs() >= 10);
}

#[test]
fn a_taken_port_fails_the_rollout_at_once_and_says_so() {
    let mut world = World::rolling(2, 1, 0);
    world.plan();
    world.observed.blocked = Some("port 80 of this host is taken by `httpd`".to_owned());
    let state = world.settle(FAIR);
    assert!(matches!(state, RolloutState::Failed { reason } if reason.contains("httpd")));
    world.observed.blocked = None;
    assert_eq!(world.settle(FAIR), RolloutState::Done, "and goes on once the port is free");
}

#[test]
fn a_crash_loop_is_slowed_down_to_the_cap() {
    let mut world = settled(World::rolling(1, 1, 0));
    let begun = world.now;
    let mut launches = 0;
    while world.now.duration_since(begun).as_secs() < 600 {
        broken(&mut world, 1);
        for server in &mut world.observed.servers {
            if serves(server) {
                (server.state, server.in_traffic) = (ServerState::Failed, false);
            }
        }
        let words: Vec<_> = world.plan().steps.iter().map(|s| s.action.word()).collect();
        launches += words.iter().filter(|w| **w == "launch").count();
        world.round(FAIR);
    }
    assert!((5..40).contains(&launches), "{launches} launches in ten minutes");
}

#[test]
fn a_forecast_tells_the_whole_way() {
    let mut world = settled(World::rolling(2, 1, 0));
    world.want(release(2), 2);
    let steps = forecast(&world.desired, &world.observed, world.progress.as_ref(), world.now);
    let count = |word| steps.iter().filter(|s| s.action.word() == word).count();
    assert_eq!((count("launch"), count("route"), count("drain"), count("destroy")), (2, 2, 2, 2));
    assert_eq!(steps.iter().filter(|s| s.action == Action::MarkRolloutDone).count(), 1);
}

/// So many servers of a group fail now, that were launched so long ago.
fn go_down(world: &mut World, servers: usize, killed: bool) {
    for server in world.observed.servers.iter_mut().filter(|s| serves(s)).take(servers) {
        (server.state, server.in_traffic) = (ServerState::Failed, false);
        let (release, launched_at) = (server.release, server.launched_at);
        world.observed.failures.push(Failure {
            release,
            at: world.now,
            launched_at,
            killed,
            unready: false,
            drill: false,
            spare: false,
        });
    }
}

#[test]
fn healing_stops_when_a_large_part_of_the_group_went_down_and_goes_on_by_itself() {
    let mut world = settled(World::rolling(50, 10, 0));
    let failed_at = world.now;
    go_down(&mut world, 30, false);
    let held = world.plan().held.unwrap();
    assert_eq!((held.down, held.limit, held.waiting), (30, 10, 20), "a fifth of the group is healed");
    assert_eq!(held.until, failed_at.checked_add(Duration::from_secs(600)).unwrap());
    while world.now < failed_at.checked_add(Duration::from_secs(590)).unwrap() {
        world.round(FAIR);
        assert!(world.on(release(1)) <= 30);
        world.pass(Duration::from_secs(5));
    }
    assert_eq!(world.on(release(1)), 30);
    world.settle(FAIR);
    assert_eq!(world.on(release(1)), 50, "the failures are old");
}

#[test]
fn servers_that_never_became_ready_did_not_go_down() {
    let mut world = settled(World::rolling(8, 1, 0));
    go_down(&mut world, 5, true);
    for _ in 0..30 {
        assert_eq!(world.plan().held, None, "five are always healed, however often their successors are tried");
        let from = world.observed.failures.len();
        world.round(FAIR);
        broken(&mut world, 1);
        assert!(world.observed.failures[from..].iter().all(|failure| failure.unready));
        world.pass(Duration::from_secs(10));
    }
    assert!(world.observed.failures.len() > 10, "nothing was tried");
    world.settle(FAIR);
    assert_eq!(world.on(release(1)), 8);
    go_down(&mut world, 1, true);
    assert_eq!(world.plan().held.map(|held| held.down), Some(6), "what was up and went down counts");
}

#[test]
fn healing_goes_on_when_somebody_says_so() {
    let mut world = settled(World::rolling(50, 10, 0));
    go_down(&mut world, 30, false);
    world.plan();
    world.observed.failures.clear();
    assert_eq!(world.plan().held, None);
    world.settle(FAIR);
    assert_eq!(world.on(release(1)), 50);
}

#[test]
fn the_brake_is_as_the_fleet_says() {
    let mut world = settled(World::rolling(10, 10, 0));
    world.desired.healing = HealingPolicy { max_down: 0, within: Duration::from_secs(60), always: 2 };
    go_down(&mut world, 2, true);
    assert_eq!(world.plan().held, None, "two are always healed");
    world.settle(FAIR);
    go_down(&mut world, 1, true);
    assert_eq!(world.plan().held.map(|held| (held.down, held.limit, held.waiting)), Some((3, 2, 1)));
    world.pass(Duration::from_secs(60));
    assert_eq!(world.plan().held, None);
    world.desired.healing.max_down = 100;
    go_down(&mut world, 8, true);
    assert_eq!(world.plan().held, None, "the whole group may be healed");
}

#[test]
fn servers_that_are_killed_one_after_another_are_healed_at_once_and_do_not_count_as_a_crash_loop() {
    let mut world = settled(World::rolling(3, 1, 0));
    world.desired.healing.always = 1000;
    for _ in 0..100 {
        go_down(&mut world, 1, true);
        let steps = world.plan().steps;
        assert!(steps.iter().any(|step| step.action.word() == "launch"), "{steps:?}");
        world.settle(FAIR);
    }
}

#[test]
fn a_crash_loop_of_a_small_group_is_paced_but_never_braked() {
    let mut world = settled(World::rolling(1, 1, 0));
    for _ in 0..30 {
        go_down(&mut world, 1, false);
        assert_eq!(world.plan().held, None);
        world.settle(FAIR);
    }
}

#[test]
fn servers_become_too_old_one_by_one_and_only_at_rest() {
    let week = Duration::from_secs(7 * 86_400);
    let mut world = settled(World::rolling(20, 1, 0));
    let old = |world: &World| aged(week, &world.observed, world.progress.as_ref(), world.now).len();
    assert_eq!(old(&world), 0);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        world.pass(week / 100);
        seen.insert(old(&world));
    }
    assert_eq!(old(&world), 20, "none is older than a week");
    assert!(seen.len() > 5, "{seen:?}: each at its own time");
    go_down(&mut world, 1, true);
    assert_eq!(old(&world), 0, "what is broken comes first");
}
