//! Groups that follow their load: an engine and a gateway that serve nothing, and everything between them.

mod world;

use std::time::Duration;

use kiln_control::{Control, audit::Log};
use kiln_model::{
    Fleet, Group,
    plan::{self, Load, ScaleMemory},
};
use kiln_testkit::Manners;
use world::{World, group, release, running, until, up, wanted, web};

fn quick() -> Manners {
    let ms = Duration::from_millis;
    Manners { launch: ms(2), ready: ms(5), stop: ms(2), destroy: ms(1), ..Manners::default() }
}

fn counted(count: &str) -> Group {
    let text = format!("[group.web]\nimage = \"hello\"\ncount = {count}\n");
    let read = Fleet::parse(&text, "fleet.toml").unwrap().groups.into_values().next().unwrap();
    let mut group = Group { count: read.count, scaling: read.scaling, ..group(1) };
    group.rollout.strategy = kiln_model::fleet::Strategy::Rolling { max_surge: 20, max_unavailable: 0 };
    group
}

/// A daemon that reads loads fifty times a second.
async fn open(world: &World) -> Control {
    let mut options = world.options();
    options.load_every = Duration::from_millis(20);
    world.open_with(options).await
}

async fn desired(control: &Control) -> u32 {
    control.group_status(&web()).await.unwrap().desired
}

async fn reason(control: &Control) -> String {
    control.group_status(&web()).await.unwrap().scaling.unwrap().reason
}

const WEB: &str = "{ min = 2, max = 12, target = { requests_per_second = 10000 }, scale_in = { wait = \"1s\" } }";

#[tokio::test]
async fn host_a_group_follows_its_requests_drains_who_goes_and_says_why() {
    let world = World::new(quick());
    let control = open(&world).await;
    up(&control, wanted(1, counted(WEB))).await;
    assert_eq!(desired(&control).await, 2, "it begins with the least");
    *world.gate.rate.lock().unwrap() = 85_000.0;
    until("nine serve", async || running(&world.engine, release(1)) == 9 && desired(&control).await == 9).await;
    assert!(reason(&control).await.contains("of which each server is to carry 10000; "), "{}", reason(&control).await);
    *world.gate.rate.lock().unwrap() = 9_000.0;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(desired(&control).await, 9, "for a second it could come back");
    until("two are left", async || running(&world.engine, release(1)) == 2).await;
    assert_eq!(world.gate.drained.lock().unwrap().len(), 7, "whoever goes is drained first");
    assert!(world.gate.fewest_since(9) >= 2);
}

#[tokio::test]
async fn host_a_load_that_is_not_known_takes_nothing_away_nor_does_a_new_daemon_or_a_new_release() {
    let world = World::new(quick());
    let control = open(&world).await;
    up(&control, wanted(1, counted(WEB))).await;
    *world.gate.rate.lock().unwrap() = 57_000.0;
    until("six serve", async || running(&world.engine, release(1)) == 6).await;
    *world.gate.away.lock().unwrap() = true;
    *world.gate.rate.lock().unwrap() = 0.0;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(desired(&control).await, 6);
    assert!(
        reason(&control).await.contains("the load is not known (the gateway does not answer"),
        "{}",
        reason(&control).await
    );
    control.close().await;
    let control = open(&world).await;
    *world.gate.away.lock().unwrap() = false;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(desired(&control).await, 6, "{}", reason(&control).await);
    *world.gate.rate.lock().unwrap() = 57_000.0;
    up(&control, wanted(2, counted(WEB))).await;
    assert_eq!((desired(&control).await, running(&world.engine, release(2))), (6, 6));
    up(&control, wanted(2, counted("4"))).await;
    assert_eq!(desired(&control).await, 4, "a number is a number");
    assert_eq!(control.group_status(&web()).await.unwrap().scaling, None);
}

#[tokio::test]
async fn host_decisions_can_be_made_again_from_the_audit_log() {
    let world = World::new(quick());
    let control = open(&world).await;
    let rules =
        "{ min = 1, max = 20, target = { requests_per_second = 10000 }, scale_out = { wait = \"1s\", step = 3 } }";
    up(&control, wanted(1, counted(rules))).await;
    *world.gate.rate.lock().unwrap() = 87_000.0;
    until("all that are needed serve", async || running(&world.engine, release(1)) == 9).await;
    control.close().await;
    let entries = Log::open(world.directory.path()).unwrap().entries(0, Some("web"), 1000).unwrap();
    let moves: Vec<_> = entries.iter().filter(|entry| entry.action == "scale").collect();
    assert_eq!(moves.len(), 3, "from 1 to 4, 7 and 9: {moves:?}");
    for entry in moves {
        let inputs: serde_json::Value = serde_json::from_str(&entry.inputs).unwrap();
        let rules = serde_json::from_value(inputs["rules"].clone()).unwrap();
        let load: Load = serde_json::from_value(inputs["load"].clone()).unwrap();
        let from = u32::try_from(inputs["from"].as_u64().unwrap()).unwrap();
        let again = plan::scale(&rules, &mut ScaleMemory::default(), from, &load);
        assert_eq!((u64::from(again.count), &again.why), (inputs["to"].as_u64().unwrap(), &entry.reason));
    }
}
