//! Whole rollouts over the fake engine.

mod world;

use std::time::{Duration, Instant};

use kiln_control::Unsettled;
use kiln_testkit::Manners;
use world::{World, group, release, running, until, up, wanted, web};

fn quick() -> Manners {
    let ms = Duration::from_millis;
    Manners { launch: ms(2), ready: ms(10), stop: ms(2), destroy: ms(1), ..Manners::default() }
}

#[tokio::test]
async fn host_three_servers_come_up_and_are_replaced_without_a_gap() {
    let world = World::new(quick());
    let control = world.open().await;
    let settled = up(&control, wanted(1, group(3))).await;
    assert_eq!(settled.outcome, Ok(()));
    assert_eq!(settled.endpoints, ["http://127.0.0.1:8080"]);
    let begun = Instant::now();
    assert_eq!(up(&control, wanted(2, group(3))).await.outcome, Ok(()));
    println!("three servers replaced in {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
    assert_eq!(running(&world.engine, release(2)), 3);
    assert_eq!(world.gate.fewest_since(3), 3, "traffic always had three servers");
    until("the old servers are gone", async || world.engine.servers().len() == 3).await;
    let status = control.status().await.unwrap();
    assert_eq!((status.groups[0].ready, status.groups[0].rollout.clone()), (3, None));
}

#[tokio::test]
async fn host_fifty_servers_are_replaced() {
    let world = World::new(quick());
    let control = world.open().await;
    let mut fifty = group(50);
    fifty.rollout.strategy = kiln_model::fleet::Strategy::Rolling { max_surge: 10, max_unavailable: 0 };
    assert_eq!(up(&control, wanted(1, fifty.clone())).await.outcome, Ok(()));
    let begun = Instant::now();
    assert_eq!(up(&control, wanted(2, fifty)).await.outcome, Ok(()));
    println!("fifty servers replaced in {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(world.gate.fewest_since(50), 50);
}

#[tokio::test]
async fn host_a_group_without_evidence_is_refused_and_nothing_is_launched() {
    let world = World::new(quick());
    let control = world.open().await;
    let settled = up(&control, wanted(9, group(3))).await;
    assert!(matches!(&settled.outcome, Err(Unsettled::Refused { code, .. }) if code == "no-evidence"), "{settled:?}");
    assert!(world.engine.deeds().is_empty());
    let status = control.status().await.unwrap();
    assert_eq!(status.groups[0].rollout.as_ref().unwrap().state, "refused");
}

#[tokio::test]
async fn host_a_dead_server_is_replaced() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, group(3))).await;
    let dead = world.engine.running()[1].server.clone();
    world.engine.kill(&dead);
    until("three serve again", async || {
        let servers = &control.status().await.unwrap().groups[0].servers;
        servers.len() == 3 && servers.iter().all(|s| s.state == "ready" && s.id != dead.as_str())
    })
    .await;
}

#[tokio::test]
async fn host_down_leaves_nothing() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, group(3))).await;
    control.down(&[]).await.unwrap();
    assert!(world.engine.servers().is_empty());
    assert!(world.gate.backends().is_empty());
    assert!(control.status().await.unwrap().groups.is_empty());
    assert!(control.settle(&[web()]).await.is_err());
}
