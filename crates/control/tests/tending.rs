//! What the clock asks for of volumes: snapshots that are due, and the end of what nobody wanted for long enough.

mod world;

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use jiff::Timestamp;
use kiln_control::Control;
use kiln_model::{Group, volume::Schedule};
use kiln_testkit::Manners;
use world::{World, stateful, until, up, wanted};

const HOUR: Duration = Duration::from_secs(3600);

/// A daemon that looks after its volumes without pause.
async fn tending(world: &World) -> Control {
    world.shelf.volumes.store(true, Ordering::SeqCst);
    let mut options = world.options();
    options.tend_every = Duration::from_millis(1);
    world.open_with(options).await
}

fn quick() -> Manners {
    let ms = Duration::from_millis;
    Manners { launch: ms(1), ready: ms(1), stop: ms(1), destroy: ms(1), ..Manners::default() }
}

fn policy(count: u32, retain: Duration, snapshots: Option<Schedule>) -> Group {
    let mut group = stateful(count);
    group.volumes.values_mut().for_each(|policy| (policy.retain, policy.snapshots) = (retain, snapshots));
    group
}

fn at(world: &World, time: Timestamp) {
    *world.clock.lock().unwrap() = Some(time);
}

fn kept(world: &World) -> Vec<String> {
    world.engine.kept().keys().map(ToString::to_string).collect()
}

/// Longer than as many looks as remove a volume.
async fn many_looks() {
    tokio::time::sleep(Duration::from_millis(800)).await;
}

#[tokio::test]
async fn host_a_volume_that_nobody_wants_goes_after_its_time_and_not_for_a_clock_that_was_wrong() {
    let world = World::new(quick());
    let control = tending(&world).await;
    let begun = Timestamp::now();
    at(&world, begun);
    up(&control, wanted(1, policy(2, HOUR, None))).await.outcome.unwrap();
    up(&control, wanted(1, policy(1, HOUR, None))).await.outcome.unwrap();
    let orphan = async || control.volumes().await.unwrap().volumes.iter().any(|volume| volume.state == "orphan");
    until("the second is an orphan", orphan).await;
    let mut events = control.subscribe();

    at(&world, begun + HOUR - Duration::from_secs(60));
    many_looks().await;
    assert_eq!(kept(&world), ["web.data.0", "web.data.1"], "its time is not over");

    // A clock that is a year ahead for some looks.
    at(&world, begun + 365 * 24 * HOUR);
    tokio::time::sleep(Duration::from_millis(20)).await;
    at(&world, begun);
    many_looks().await;
    assert_eq!(kept(&world), ["web.data.0", "web.data.1"], "the clock was wrong");

    at(&world, begun + HOUR + Duration::from_secs(60));
    until("it is removed", async || kept(&world) == ["web.data.0"]).await;
    let said = std::iter::from_fn(|| events.try_recv().ok()).map(|event| format!("{event:?}")).collect::<String>();
    assert!(said.contains("volume web.data.1 is removed in") && said.contains("nobody wanted it for 1h"), "{said}");
    many_looks().await;
    assert_eq!(kept(&world), ["web.data.0"], "what is wanted stays");
    let log = kiln_control::audit::Log::open(world.directory.path()).unwrap().entries(0, None, 1000).unwrap();
    assert!(log.iter().any(|entry| entry.action == "volume-remove" && entry.inputs.contains("web.data.1")), "{log:?}");
}

#[tokio::test]
async fn host_a_volume_that_is_wanted_again_in_time_stays() {
    let world = World::new(quick());
    let control = tending(&world).await;
    let begun = Timestamp::now();
    at(&world, begun);
    for count in [2, 1, 2] {
        up(&control, wanted(1, policy(count, HOUR, None))).await.outcome.unwrap();
    }
    at(&world, begun + 2 * HOUR);
    many_looks().await;
    assert_eq!(kept(&world), ["web.data.0", "web.data.1"]);
}

#[tokio::test]
async fn host_snapshots_are_taken_by_the_clock_and_so_many_are_kept() {
    let world = World::new(quick());
    let control = tending(&world).await;
    let begun = Timestamp::now();
    at(&world, begun);
    let schedule = Schedule { every: HOUR, keep: 2, drill: None };
    up(&control, wanted(1, policy(1, HOUR, Some(schedule)))).await.outcome.unwrap();
    let snapshots = || {
        let volume = world.engine.kept().into_values().next().unwrap();
        volume.snapshots.into_keys().map(|name| name.to_string()).collect::<BTreeSet<_>>()
    };
    until("the first is taken", async || snapshots().len() == 1).await;
    let first = snapshots();
    many_looks().await;
    assert_eq!(snapshots(), first, "one in an hour");
    for hour in 1..=3 {
        at(&world, begun + hour * HOUR);
        let before = snapshots();
        until("the next is taken", async || snapshots().iter().any(|name| !before.contains(name))).await;
    }
    until("two are kept", async || snapshots().len() == 2).await;
    assert!(snapshots().is_disjoint(&first), "the newest are kept: {:?}", snapshots());
}
