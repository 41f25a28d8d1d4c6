//! Spares: when they are made, which are taken, and which are thrown away.

use std::time::Duration;

use kiln_model::{
    ServerId, ServerState,
    plan::{Action, Admission, Failure, Plan, RolloutState, SPARE_AGE, forecast},
};

use super::world::{FAIR, World, release};

/// A group of three at rest, with two spares.
fn at_rest() -> World {
    let mut world = World::rolling(3, 2, 0);
    world.desired.spares = 2;
    assert_eq!(world.settle(FAIR), RolloutState::Done);
    assert_eq!(spares(&world).len(), 2);
    world.log.clear();
    world
}

fn spares(world: &World) -> Vec<ServerId> {
    let live = world.observed.servers.iter().filter(|s| s.spare && s.state.is_live());
    live.map(|s| s.id.clone()).collect()
}

fn actions(plan: &Plan) -> Vec<&Action> {
    plan.steps.iter().map(|step| &step.action).collect()
}

/// A server that serves dies.
fn die(world: &mut World) {
    let server = world.observed.servers.iter_mut().find(|s| s.state == ServerState::Ready).unwrap();
    (server.state, server.running) = (ServerState::Failed, false);
    let (release, launched_at, at) = (server.release, server.launched_at, world.now);
    world.observed.failures.push(Failure {
        release,
        at,
        launched_at,
        killed: true,
        unready: false,
        drill: false,
        spare: false,
    });
}

fn count(world: &World, word: &str) -> usize {
    world.words().iter().filter(|w| **w == word).count()
}

#[test]
fn unit_spares_are_made_when_everything_that_is_wanted_serves() {
    let mut world = World::rolling(3, 1, 0);
    world.desired.spares = 2;
    world.settle(FAIR);
    let words = world.words();
    let place = |word| words.iter().position(|w| *w == word).unwrap();
    assert!(words.iter().rposition(|w| *w == "route").unwrap() < place("spare"), "{words:?}");
    assert!(place("done") <= place("spare"), "{words:?}");
    assert_eq!(count(&world, "spare"), 1, "both at once: {words:?}");
}

#[test]
fn unit_a_death_takes_a_spare_at_once_and_another_is_made() {
    let mut world = at_rest();
    let held = spares(&world);
    die(&mut world);
    let next = world.plan();
    let [Action::Take { server }] = actions(&next)[..1] else { panic!("{:?}", next.steps) };
    assert!(held.contains(server));
    assert!(next.steps.iter().all(|step| !matches!(step.action, Action::Launch { .. })), "{:?}", next.steps);
    assert!(next.steps[0].why.contains("held as a spare"), "{}", next.steps[0].why);
    let taken = server.clone();
    world.settle(FAIR);
    assert_eq!((world.on(release(1)), spares(&world).len()), (3, 2));
    assert!(!spares(&world).contains(&taken), "what was used is no spare again");
    assert_eq!(count(&world, "launch"), 0, "{:?}", world.words());
}

#[test]
fn unit_a_scale_out_takes_what_there_is_and_launches_the_rest() {
    let mut world = at_rest();
    world.desired.policy.strategy = kiln_model::fleet::Strategy::Rolling { max_surge: 3, max_unavailable: 0 };
    world.want(release(1), 6);
    let next = world.plan();
    let actions = actions(&next);
    assert!(matches!(actions[..], [Action::Take { .. }, Action::Take { .. }, Action::Launch { servers: 1, .. }]));
    world.settle(FAIR);
    assert_eq!((world.on(release(1)), spares(&world).len()), (6, 2));
}

#[test]
fn unit_another_release_throws_the_spares_away_and_takes_none() {
    let mut world = at_rest();
    world.want(release(2), 3);
    let next = world.plan();
    assert_eq!(actions(&next).iter().filter(|action| matches!(action, Action::Stop { .. })).count(), 2);
    assert!(!next.steps.iter().any(|step| matches!(step.action, Action::Take { .. })));
    assert_eq!(world.settle(FAIR), RolloutState::Done);
    assert_eq!((world.on(release(2)), spares(&world).len()), (3, 2));
    let of_new = world.observed.servers.iter().all(|s| s.release == release(2));
    assert!(of_new, "{:?}", world.observed.servers);
    let words = world.words();
    let made = words.iter().position(|w| *w == "spare").unwrap();
    assert!(words.iter().rposition(|w| *w == "route").unwrap() < made, "no rollout waits for a spare: {words:?}");
}

#[test]
fn unit_a_spare_of_a_release_that_may_not_be_launched_is_not_taken() {
    let mut world = at_rest();
    let refused = Admission::Refused { code: "revoked".into(), reason: "the image was revoked".into() };
    world.desired.admissions.insert(release(1), refused);
    die(&mut world);
    let words: Vec<_> = world.plan().steps.iter().map(|step| step.action.word()).collect();
    assert_eq!(words, ["unroute"], "nothing is launched and nothing taken");
}

#[test]
fn unit_spares_that_nobody_took_in_time_are_made_anew_one_after_the_other() {
    let mut world = at_rest();
    let first = spares(&world);
    world.pass(SPARE_AGE.mul_f64(0.8));
    world.settle(FAIR);
    assert_eq!(spares(&world), first, "they are good for longer");
    world.pass(SPARE_AGE.mul_f64(0.21));
    die(&mut world);
    let next = world.plan();
    assert!(!next.steps.iter().any(|step| matches!(step.action, Action::Take { .. })), "too old: {:?}", next.steps);
    world.settle(FAIR);
    assert!(spares(&world).iter().all(|id| !first.contains(id)) && spares(&world).len() == 2);
}

#[test]
fn unit_fewer_spares_and_no_group() {
    let mut world = at_rest();
    world.desired.spares = 1;
    world.settle(FAIR);
    assert_eq!(spares(&world).len(), 1);
    (world.desired.spares, world.desired.count) = (0, 0);
    world.desired.revision += 1;
    world.settle(FAIR);
    assert!(world.observed.servers.is_empty(), "{:?}", world.observed.servers);
}

#[test]
fn unit_a_group_that_sleeps_has_its_spares() {
    let mut world = at_rest();
    world.want(release(1), 0);
    world.settle(FAIR);
    assert_eq!(world.observed.servers.len(), 2, "{:?}", world.observed.servers);
    world.log.clear();
    world.want(release(1), 1);
    world.settle(FAIR);
    assert_eq!((count(&world, "take"), count(&world, "launch")), (1, 0));
}

#[test]
fn unit_servers_with_slots_have_no_spares() {
    let mut world = World::rolling(2, 1, 0);
    (world.desired.slots, world.desired.spares) = (true, 2);
    world.settle(FAIR);
    assert_eq!(count(&world, "spare"), 0);
}

#[test]
fn unit_spares_that_fail_are_made_again_later_and_later_and_hold_no_healing_back() {
    let mut world = at_rest();
    for _ in 0..40 {
        let id = spares(&world)[0].clone();
        let spare = world.observed.servers.iter_mut().find(|s| s.id == id).unwrap();
        (spare.state, spare.running) = (ServerState::Failed, false);
        let (launched_at, at) = (spare.launched_at, world.now);
        let failure =
            Failure { release: release(1), at, launched_at, killed: false, unready: false, drill: false, spare: true };
        world.observed.failures.push(failure);
        let before = world.now;
        world.settle(FAIR);
        assert!(world.now.duration_since(before) >= jiff::SignedDuration::from_secs(1), "a pause");
    }
    let (made, waited) = (count(&world, "spare"), world.now);
    assert_eq!(made, 40);
    die(&mut world);
    let next = world.plan();
    assert!(matches!(actions(&next)[0], Action::Take { .. }), "{:?}", next.steps);
    assert_eq!(next.held, None, "spares say nothing about the group");
    let begun: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    assert!(waited.duration_since(begun) > jiff::SignedDuration::from_secs(600), "the pauses grow");
}

#[test]
fn unit_a_forecast_shows_spares_and_what_takes_them() {
    let mut world = World::rolling(2, 1, 0);
    world.desired.spares = 1;
    let steps = forecast(&world.desired, &world.observed, None, world.now);
    let words: Vec<_> = steps.iter().map(|step| step.action.word()).collect();
    assert_eq!(words, ["launch", "route", "route", "done", "spare"]);
    world.settle(FAIR);
    world.want(release(1), 3);
    let steps = forecast(&world.desired, &world.observed, world.progress.as_ref(), world.now);
    let words: Vec<_> = steps.iter().map(|step| step.action.word()).collect();
    assert_eq!(words, ["take", "route", "done", "spare"]);
}

#[test]
fn unit_a_group_is_as_old_as_its_servers_and_drilled_without_its_spares() {
    let world = at_rest();
    let progress = world.progress.as_ref();
    let toll = kiln_model::fleet::Toll::Servers(1);
    assert_eq!(kiln_model::plan::drill(toll, &world.desired, &world.observed, progress, None, world.now), Ok(1));
    let later = world.now + Duration::from_secs(7200);
    let aged = kiln_model::plan::aged(Duration::from_secs(3600), &world.observed, progress, later);
    assert_eq!(aged.len(), 3);
    assert!(aged.iter().all(|id| !spares(&world).contains(id)));
}
