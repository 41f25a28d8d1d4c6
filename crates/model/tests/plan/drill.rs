//! When servers may be destroyed on purpose, and what that means to healing.

use std::time::Duration;

use kiln_model::{
    ServerState,
    fleet::Toll,
    plan::{Failure, NoDrill, drill, drill_due},
};

use crate::world::{FAIR, World, release};

fn at_rest(count: u32) -> World {
    let mut world = World::rolling(count, 10, 0);
    world.settle(FAIR);
    world.pass(Duration::from_secs(120));
    world
}

fn ask(world: &World, toll: Toll) -> Result<u32, NoDrill> {
    let held = world.clone().plan().held;
    drill(toll, &world.desired, &world.observed, world.progress.as_ref(), held.as_ref(), world.now)
}

/// So many servers are gone now, by a drill or otherwise.
fn go(world: &mut World, servers: usize, drill: bool) {
    for server in world.observed.servers.iter_mut().filter(|s| s.state == ServerState::Ready).take(servers) {
        (server.state, server.in_traffic, server.running) = (ServerState::Failed, false, false);
        let (release, launched_at) = (server.release, server.launched_at);
        world.observed.failures.push(Failure {
            release,
            at: world.now,
            launched_at,
            killed: true,
            unready: false,
            drill,
            spare: false,
        });
    }
}

#[test]
fn a_drill_takes_what_the_fleet_says_and_no_more_than_healing_gives_back() {
    let world = at_rest(50);
    assert_eq!(ask(&world, Toll::Servers(1)), Ok(1));
    assert_eq!(ask(&world, Toll::Share(10)), Ok(5));
    assert_eq!(ask(&world, Toll::Share(20)), Ok(10), "a fifth is healed");
    assert_eq!(ask(&world, Toll::Share(21)), Err(NoDrill::TooMany { servers: 11, down: 0, limit: 10 }));
    let small = at_rest(3);
    assert_eq!(ask(&small, Toll::Servers(3)), Ok(3), "five are always healed");
    assert_eq!(ask(&small, Toll::Servers(4)), Err(NoDrill::All { servers: 4, wanted: 3 }));
}

#[test]
fn a_drill_begins_only_from_rest() {
    let mut world = at_rest(20);
    let mut moving = world.clone();
    moving.want(release(2), 20);
    moving.plan();
    assert_eq!(ask(&moving, Toll::default()), Err(NoDrill::Rollout));
    let mut asked = world.clone();
    asked.desired.revision += 1;
    assert_eq!(ask(&asked, Toll::default()), Err(NoDrill::Rollout), "nobody has planned it yet");
    let mut busy = world.clone();
    busy.observed.servers[0].busy = true;
    assert_eq!(ask(&busy, Toll::default()), Err(NoDrill::NotWhole { serving: 19, wanted: 20 }));
    let mut blocked = world.clone();
    blocked.observed.blocked = Some("port 80 is taken".to_owned());
    assert_eq!(ask(&blocked, Toll::default()), Err(NoDrill::Blocked("port 80 is taken".to_owned())));
    go(&mut world, 1, false);
    assert_eq!(ask(&world, Toll::default()), Err(NoDrill::NotWhole { serving: 19, wanted: 20 }));
    go(&mut world, 8, false);
    assert_eq!(ask(&world, Toll::default()), Err(NoDrill::Held));
}

#[test]
fn what_failed_by_itself_lately_leaves_a_drill_less_room() {
    let mut world = at_rest(20);
    go(&mut world, 3, false);
    world.settle(FAIR);
    assert_eq!(ask(&world, Toll::Servers(2)), Ok(2));
    assert_eq!(ask(&world, Toll::Servers(3)), Err(NoDrill::TooMany { servers: 3, down: 3, limit: 5 }));
    world.pass(Duration::from_secs(601));
    assert_eq!(ask(&world, Toll::Servers(5)), Ok(5), "the failures are old");
}

#[test]
fn drills_never_stop_healing_however_many_there_are() {
    let mut world = at_rest(20);
    for _ in 0..20 {
        assert_eq!(ask(&world, Toll::Servers(5)), Ok(5));
        go(&mut world, 5, true);
        assert_eq!(world.plan().held, None, "what a drill destroyed does not count");
        world.settle(FAIR);
    }
    go(&mut world, 5, false);
    assert_eq!(world.plan().held, None, "five may still fail by themselves");
    world.settle(FAIR);
    go(&mut world, 1, false);
    assert_eq!(world.plan().held.map(|held| held.down), Some(6), "and the sixth holds healing, as without drills");
}

#[test]
fn drills_are_due_after_their_time_and_not_all_at_once() {
    let day = Duration::from_secs(86_400);
    let last = "2026-01-01T00:00:00Z".parse().unwrap();
    let due: std::collections::BTreeSet<_> =
        (0..50).map(|n| drill_due(&format!("web{n}"), day, last).duration_since(last).as_secs()).collect();
    assert!(due.iter().all(|after| (86_400..=86_400 * 11 / 10).contains(after)), "{due:?}");
    assert!(due.len() > 40, "{due:?}");
}
