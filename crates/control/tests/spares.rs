//! Spares of a group: made ahead, taken once, thrown away when they are of no use; and a daemon that dies around all that.

mod world;

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use kiln_control::Control;
use kiln_model::{Group, ServerId, fleet::Strategy, plan::SPARE_AGE};
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

/// Two servers come up with a spare, one dies, and the spare takes its place. False if nobody died.
async fn with_death_after(places: i64) -> bool {
    let world = World::new(quick());
    let countdown = Countdown::new(places);
    let control = world.open_dying(countdown.clone()).await;
    let story = async {
        control.apply(wanted(1, spared(2, 1))).await.ok();
        control.settle(&[web()]).await.ok();
        while countdown.place().is_none() && world.engine.staged().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if let Some(seen) = world.engine.running().first() {
            world.engine.kill(&seen.server);
        }
        let rest = || running(&world.engine, release(1)) == 2 && world.engine.staged().len() == 1;
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
        let (all, staged) = (world.engine.servers(), world.engine.staged());
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
    assert!(world.engine.servers().is_empty() && world.engine.staged().is_empty(), "{context}");
    true
}

async fn half(first: i64) {
    let mut places = first;
    while with_death_after(places).await {
        places += 2;
    }
    assert!(places > 30, "only {places} places were reached");
}

#[tokio::test]
async fn host_death_around_spares_first_half() {
    half(0).await;
}

#[tokio::test]
async fn host_death_around_spares_second_half() {
    half(1).await;
}
