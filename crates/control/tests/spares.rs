//! Spares of a group: made ahead, taken once, thrown away when they are of no use; and a daemon that dies around all that.

mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
    time::Duration,
};

use jiff::Timestamp;
use kiln_api::status::GroupStatus;
use kiln_control::Control;
use kiln_model::{
    Group, ServerId,
    config::{ConfigSchema, ConfigValue},
    fleet::Strategy,
    plan::SPARE_AGE,
};
use kiln_testkit::{Manners, fake::Deed};
use world::{Countdown, World, group, release, running, settle, until, up, wanted, web};

/// A launch takes so long that nobody takes it for a spare that was taken.
fn slow() -> Manners {
    let ms = Duration::from_millis;
    Manners { launch: ms(600), ready: ms(2), stop: ms(2), destroy: ms(1), ..Manners::default() }
}

fn quick() -> Manners {
    Manners { launch: Duration::from_millis(1), ..slow() }
}

fn spared(count: u32, spares: u32) -> Group {
    let mut spared = Group { spares, ..group(count) };
    spared.rollout.strategy = Strategy::Rolling { max_surge: 10, max_unavailable: 0 };
    spared
}

async fn in_state(control: &Control, state: &str) -> BTreeSet<String> {
    let status = control.group_status(&web()).await.unwrap();
    status.servers.into_iter().filter(|server| server.state == state).map(|server| server.id).collect()
}

async fn held(control: &Control) -> u32 {
    control.group_status(&web()).await.unwrap().spares.map_or(0, |spares| spares.held)
}

async fn all_held(control: &Control, count: u32) -> BTreeSet<String> {
    until("the spares are held", async || held(control).await == count).await;
    in_state(control, "spare").await
}

fn victim(world: &World) -> ServerId {
    world.engine.running()[0].server.clone()
}

#[tokio::test]
async fn host_a_death_and_a_scale_out_take_the_spares() {
    let world = World::new(slow());
    let control = world.open().await;
    up(&control, wanted(1, spared(2, 2))).await;
    let first = all_held(&control, 2).await;
    let status = control.group_status(&web()).await.unwrap();
    assert_eq!((status.desired, status.ready, status.servers.len()), (2, 2, 4), "a spare is none of the group");
    let backends: BTreeSet<String> = world.gate.backends().iter().map(|b| b.server.to_string()).collect();
    assert!(backends.len() == 2 && backends.is_disjoint(&first), "a spare gets no traffic");

    let begun = tokio::time::Instant::now();
    world.engine.kill(&victim(&world));
    until("one takes its place", async || {
        let ready = in_state(&control, "ready").await;
        ready.len() == 2 && !ready.is_disjoint(&first)
    })
    .await;
    assert!(begun.elapsed() < Duration::from_millis(500), "it was there: {:?}", begun.elapsed());
    let second = all_held(&control, 2).await;
    assert_eq!(second.intersection(&first).count(), 1, "the one that was taken is replaced");

    control.apply(wanted(1, spared(4, 2))).await.unwrap();
    settle(&control).await;
    let ready = in_state(&control, "ready").await;
    assert!(ready.is_superset(&second), "both are servers of the group now");
    assert!(all_held(&control, 2).await.is_disjoint(&ready));
}

#[tokio::test]
async fn host_a_rollout_throws_the_spares_away_and_waits_for_none() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, spared(3, 2))).await;
    let old = all_held(&control, 2).await;
    let outcome = up(&control, wanted(2, spared(3, 2))).await.outcome;
    assert_eq!(outcome, Ok(()));
    let new = all_held(&control, 2).await;
    assert!(new.is_disjoint(&old));
    until("the old ones are gone", async || world.engine.staged().len() == 2).await;
    assert!(world.engine.staged().iter().all(|seen| seen.release == release(2)));
    let launched = world.engine.deeds();
    let used =
        |id: &String| launched.iter().any(|deed| matches!(deed, Deed::Launched(server, _) if server.as_str() == id));
    assert!(!old.iter().any(used), "no spare of an old release ever ran");
}

#[tokio::test]
async fn host_spares_of_other_limits_and_old_ones_are_made_anew() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, spared(1, 1))).await;
    let first = all_held(&control, 1).await;
    let mut larger = spared(1, 1);
    larger.limits.pids = Some(500);
    up(&control, wanted(1, larger)).await;
    let second = all_held(&control, 1).await;
    assert!(second.is_disjoint(&first), "it would have the old limits");

    *world.clock.lock().unwrap() = Some(Timestamp::now() + SPARE_AGE);
    until("an old one is made anew", async || {
        let now = in_state(&control, "spare").await;
        held(&control).await == 1 && now.is_disjoint(&second)
    })
    .await;
}

#[tokio::test]
async fn host_a_spare_that_ends_while_it_is_held_is_replaced_and_no_failure_of_the_group() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, spared(1, 1))).await;
    let first = all_held(&control, 1).await;
    world.engine.kill(&first.first().unwrap().parse().unwrap());
    until("another is held", async || held(&control).await == 1 && in_state(&control, "spare").await != first).await;
    assert_eq!(control.heal(&web()).await.unwrap(), 1, "only the spare is known to have failed");
    assert_eq!(control.group_status(&web()).await.unwrap().ready, 1);
}

#[tokio::test]
async fn host_a_group_that_goes_takes_its_spares_along() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, spared(1, 2))).await;
    all_held(&control, 2).await;
    control.down(&[]).await.unwrap();
    assert!(world.engine.servers().is_empty() && world.engine.staged().is_empty());
}

#[tokio::test]
async fn host_the_plan_says_which_launches_are_of_spares() {
    let world = World::new(quick());
    let control = world.open().await;
    let steps = control.plan_only(wanted(1, spared(1, 2))).await.unwrap();
    let words: Vec<String> = steps
        .iter()
        .filter_map(|event| Some(serde_json::to_value(event).ok()?["action"].as_str()?.to_owned()))
        .collect();
    assert_eq!(words, ["launch", "route", "done", "spare"]);
}

/// A world whose servers may be held when they are ready.
fn holding(manners: Manners) -> World {
    let world = World::new(manners);
    world.shelf.holds_ready.store(true, Ordering::SeqCst);
    world
}

#[tokio::test]
async fn host_what_was_ready_before_it_was_held_serves_at_once() {
    // Services take so long that nobody takes them for ones that ran already.
    let world = holding(Manners { ready: Duration::from_millis(600), ..quick() });
    let control = world.open().await;
    up(&control, wanted(1, spared(2, 1))).await;
    let held = all_held(&control, 1).await;
    assert_eq!(world.engine.frozen().iter().map(|seen| seen.server.to_string()).collect::<BTreeSet<_>>(), held);
    assert!(world.engine.staged().is_empty() && world.engine.servers().len() == 2);
    let launched = control.group_status(&web()).await.unwrap();
    let started = |status: &GroupStatus| {
        status.servers.iter().find(|server| held.contains(&server.id)).unwrap().started_at.clone()
    };
    let backends: BTreeSet<String> = world.gate.backends().iter().map(|b| b.server.to_string()).collect();
    assert!(backends.len() == 2 && backends.is_disjoint(&held), "a spare gets no traffic");

    let begun = tokio::time::Instant::now();
    world.engine.kill(&victim(&world));
    until("it takes the place", async || !in_state(&control, "ready").await.is_disjoint(&held)).await;
    assert!(begun.elapsed() < Duration::from_millis(500), "it was ready: {:?}", begun.elapsed());
    let status = control.group_status(&web()).await.unwrap();
    assert_eq!(started(&status), started(&launched), "it is as old as its services");
    assert!(all_held(&control, 1).await.is_disjoint(&held), "what was taken is no spare again");
}

#[tokio::test]
async fn host_live_values_that_changed_make_anew_what_began_with_others() {
    let world = holding(quick());
    let control = world.open().await;
    up(&control, wanted(1, spared(1, 1))).await;
    let first = all_held(&control, 1).await;
    let values = BTreeMap::from([("level".parse().unwrap(), ConfigValue::Text("high".to_owned()))]);
    control.live().apply(&web(), &ConfigSchema::default(), values).await.unwrap();
    // At once, not when the group looks again by itself.
    let begun = tokio::time::Instant::now();
    until("another is held", async || {
        held(&control).await == 1 && in_state(&control, "spare").await.is_disjoint(&first)
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let used = |id: &String| world.engine.running().iter().any(|seen| seen.server.as_str() == id);
    assert!(!first.iter().any(used));
}

#[tokio::test]
async fn host_what_is_held_longer_than_its_recipe_says_is_made_anew() {
    let world = holding(quick());
    let control = world.open().await;
    up(&control, wanted(1, spared(1, 1))).await;
    let first = all_held(&control, 1).await;
    *world.clock.lock().unwrap() = Some(Timestamp::now() + Duration::from_secs(3600));
    until("another is held", async || {
        held(&control).await == 1 && in_state(&control, "spare").await.is_disjoint(&first)
    })
    .await;
}

#[tokio::test]
async fn host_what_does_not_become_ready_is_not_held_and_holds_no_healing_back() {
    let world = holding(quick());
    let control = world.open().await;
    up(&control, wanted(1, spared(2, 0))).await;
    // From now on nothing of the release works any more.
    world.engine.set_manners(|manners| manners.exits = BTreeSet::from([release(1)]));
    control.apply(wanted(1, spared(2, 1))).await.unwrap();
    until("a spare has failed", async || {
        let audited = world.engine.deeds();
        audited.iter().filter(|deed| matches!(deed, Deed::Destroyed(..))).count() > 0
    })
    .await;
    assert_eq!(held(&control).await, 0);
    let status = control.group_status(&web()).await.unwrap();
    assert!(status.ready == 2 && status.healing.is_none(), "{status:#?}");
    world.engine.set_manners(|manners| manners.exits.clear());
    all_held(&control, 1).await;
}

/// Two servers come up with a spare, one dies, and the spare takes its place. False if nobody died.
async fn with_death_after(places: i64, ready: bool) -> bool {
    let world = if ready { holding(quick()) } else { World::new(quick()) };
    let waiting = || if ready { world.engine.frozen() } else { world.engine.staged() };
    let countdown = Countdown::new(places);
    let control = world.open_dying(countdown.clone()).await;
    let story = async {
        control.apply(wanted(1, spared(2, 1))).await.ok();
        control.settle(&[web()]).await.ok();
        while countdown.place().is_none() && waiting().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if let Some(seen) = world.engine.running().first() {
            world.engine.kill(&seen.server);
        }
        let rest = || running(&world.engine, release(1)) == 2 && waiting().len() == 1;
        while countdown.place().is_none() && !(rest() && world.engine.servers().len() == 2) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), story).await.expect("the story has an end");
    let Some(place) = countdown.place() else { return false };
    drop(control);
    tokio::time::sleep(Duration::from_millis(20)).await;

    let control = world.open().await;
    let context = format!("after dying at `{place}` (number {places})");
    control.apply(wanted(1, spared(2, 1))).await.unwrap();
    settle(&control).await;
    let whole = async || {
        let (all, staged) = (world.engine.servers(), waiting());
        running(&world.engine, release(1)) == 2 && all.len() == 2 && staged.len() == 1 && held(&control).await == 1
    };
    until(&format!("{context}: two servers, one spare, nothing left behind"), whole).await;
    let status = control.group_status(&web()).await.unwrap();
    let spares: Vec<_> = status.servers.iter().filter(|server| server.spare).collect();
    assert!(spares.len() == 1 && status.servers.len() == 3, "{context}: {:?}", status.servers);
    assert!(world.engine.running().iter().all(|seen| seen.server.as_str() != spares[0].id), "{context}: it runs");
    let deeds = world.engine.deeds();
    let launched = deeds.iter().filter_map(|deed| match deed {
        Deed::Launched(server, _) => Some(server),
        _ => None,
    });
    let (all, once) = (launched.clone().count(), launched.collect::<BTreeSet<_>>().len());
    assert_eq!(all, once, "{context}: one was launched twice");
    control.down(&[]).await.unwrap();
    assert!(world.engine.servers().is_empty() && waiting().is_empty(), "{context}");
    true
}

async fn half(first: i64, ready: bool) {
    let mut places = first;
    while with_death_after(places, ready).await {
        places += 2;
    }
    assert!(places > 30, "only {places} places were reached");
}

#[tokio::test]
async fn host_death_around_spares_first_half() {
    half(0, false).await;
}

#[tokio::test]
async fn host_death_around_spares_second_half() {
    half(1, false).await;
}

#[tokio::test]
async fn host_death_around_spares_that_are_ready_first_half() {
    half(0, true).await;
}

#[tokio::test]
async fn host_death_around_spares_that_are_ready_second_half() {
    half(1, true).await;
}
