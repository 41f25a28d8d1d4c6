//! Healing on its own: when it stops, how it goes on, and servers that become too old.

mod world;

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use kiln_control::Control;
use kiln_model::{Group, fleet::Strategy};
use kiln_testkit::Manners;
use world::{World, group, until, up, wanted, web};

fn quick() -> Manners {
    let ms = Duration::from_millis;
    Manners { launch: ms(2), ready: ms(5), stop: ms(2), destroy: ms(1), ..Manners::default() }
}

fn many(count: u32) -> Group {
    let mut many = group(count);
    many.rollout.strategy = Strategy::Rolling { max_surge: 10, max_unavailable: 0 };
    many
}

async fn ready(control: &Control) -> BTreeSet<String> {
    let status = control.group_status(&web()).await.unwrap();
    status.servers.into_iter().filter(|server| server.state == "ready").map(|server| server.id).collect()
}

fn kill(world: &World, count: usize) {
    world.engine.running().iter().take(count).for_each(|seen| world.engine.kill(&seen.server));
}

#[tokio::test]
async fn host_healing_stops_when_too_much_went_down_says_so_and_goes_on_when_told() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, many(20))).await;
    kill(&world, 9);
    until("healing has stopped", async || ready(&control).await.len() == 16).await;
    let held = control.group_status(&web()).await.unwrap().healing.expect("status says so");
    assert_eq!((held.down, held.limit, held.waiting), (9, 5, 4));
    assert!(held.reason.contains("servers went down 9 times within 10m") && held.reason.contains("`kiln heal web`"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ready(&control).await.len(), 16, "nothing more is healed");
    assert_eq!(control.heal(&web()).await.unwrap(), 9);
    until("all are back", async || ready(&control).await.len() == 20).await;
    assert_eq!(control.group_status(&web()).await.unwrap().healing, None);
}

#[tokio::test]
async fn host_healing_goes_on_by_itself_when_the_failures_are_old() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, many(20))).await;
    kill(&world, 9);
    until("healing has stopped", async || ready(&control).await.len() == 16).await;
    *world.clock.lock().unwrap() = Some(Timestamp::now() + Duration::from_secs(601));
    // Something happens, as it does in a daemon that is asked.
    until("all are back", async || ready(&control).await.len() == 20).await;
}

#[tokio::test]
async fn host_a_daemon_that_starts_again_does_not_hold_back_what_ended_meanwhile() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, many(20))).await;
    control.close().await;
    drop(control);
    kill(&world, 20);
    let control = world.open().await;
    until("all are back", async || ready(&control).await.len() == 20).await;
    assert_eq!(control.group_status(&web()).await.unwrap().healing, None, "a host that was started anew");
}

#[tokio::test]
async fn host_servers_that_became_too_old_are_replaced_in_a_change_window_only() {
    let world = World::new(quick());
    let control = world.open().await;
    let mut aging = many(3);
    aging.max_age = Some(Duration::from_secs(3600));
    let now = Timestamp::now();
    let later = now + Duration::from_secs(7200);
    let closed = jiff::tz::TimeZone::UTC.to_datetime(later).date().to_string();
    aging.windows.closed = vec![closed.parse().unwrap()];
    up(&control, wanted(1, aging.clone())).await;
    let first = ready(&control).await;
    *world.clock.lock().unwrap() = Some(later);
    for _ in 0..20 {
        assert_eq!(ready(&control).await, first, "the window is closed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let day_after = later + Duration::from_secs(86_400);
    world.shelf.report(1, kiln_model::evidence::Verdict::Passed, day_after);
    *world.clock.lock().unwrap() = Some(day_after);
    until("all are new", async || {
        let now = ready(&control).await;
        now.len() == 3 && now.is_disjoint(&first)
    })
    .await;
    assert_eq!(world.gate.fewest_since(3), 3, "within the rollout policy");
}
