//! What the reconcilers of many groups cost, over a fake engine. Run by `cargo xtask bench planner`, which reads what this prints.
//!
//! This is the real path: a wish is written to the state file, the group's task wakes, looks at its evidence, plans, writes its
//! intentions and begins them. The groups publish no port, so the gateway's table, which is always sent whole, is not in it.

mod world;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kiln_api::Event;
use kiln_control::{Control, Wanted};
use kiln_model::{
    Fleet, FrozenConfig, Group, GroupName,
    fleet::{EvidencePolicy, HealingPolicy, Strategy},
};
use kiln_testkit::Manners;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::broadcast::error::RecvError;
use world::{World, group, image};

/// Servers of each group.
const EACH: u32 = 100;
/// Fleets of so many servers.
const SIZES: [u32; 3] = [1_000, 10_000, 100_000];
/// Changes, one after another.
const CHANGES: u32 = 21;
/// The daemon is watched for so long while nothing happens.
const REST: Duration = Duration::from_secs(20);

fn name(number: u32) -> GroupName {
    format!("g{number:04}").parse().unwrap()
}

fn many(count: u32) -> Group {
    let mut many = group(count);
    many.publish.clear();
    many.rollout.strategy = Strategy::Rolling { max_surge: EACH, max_unavailable: 0 };
    many.rollout.progress_deadline = Duration::from_secs(3600);
    many.healing = HealingPolicy { always: 10_000, ..HealingPolicy::default() };
    many
}

fn wanted(groups: impl Iterator<Item = (u32, u32)>) -> Wanted {
    let groups: BTreeMap<GroupName, Group> = groups.map(|(number, count)| (name(number), many(count))).collect();
    let images = groups.keys().map(|name| (name.clone(), image(1))).collect();
    let configs = groups.keys().map(|name| (name.clone(), FrozenConfig::default())).collect();
    let fleet = Fleet { groups, evidence: EvidencePolicy::default(), config: BTreeMap::new() };
    Wanted { fleet, images, configs, origins: BTreeMap::new() }
}

async fn settled(control: &Control) {
    let settled = control.settle(&[]).await.unwrap();
    assert!(settled.iter().all(|group| group.outcome.is_ok()), "{settled:?}");
}

fn processor() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Milliseconds until something is told.
async fn told(
    events: &mut tokio::sync::broadcast::Receiver<Event>,
    begun: Instant,
    good: impl Fn(&Event) -> bool,
) -> f64 {
    loop {
        match events.recv().await {
            Ok(event) if good(&event) => return begun.elapsed().as_secs_f64() * 1e3,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => panic!("the core ended"),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One more server is wanted of one group: milliseconds to the plan, and to the launch that is begun.
async fn change(control: &Control, groups: u32) -> (f64, f64) {
    let (mut plans, mut launches) = (Vec::new(), Vec::new());
    for round in 0..CHANGES {
        let number = round * 7 % groups;
        let mut events = control.subscribe();
        let begun = Instant::now();
        control.apply(wanted([(number, EACH + 1 + round / groups)].into_iter())).await.unwrap();
        let of = name(number);
        let step = |event: &Event| matches!(event, Event::Step { group, action, .. } if action == "launch" && *group == *of.as_str());
        plans.push(told(&mut events, begun, step).await);
        let started = |event: &Event| matches!(event, Event::Server { group, state, .. } if state == "starting" && *group == *of.as_str());
        launches.push(told(&mut events, begun, started).await);
        control.settle(&[name(number)]).await.unwrap();
    }
    (median(plans), median(launches))
}

/// A server dies: milliseconds to the plan that replaces it.
async fn death(world: &World, control: &Control) -> f64 {
    let mut times = Vec::new();
    let running = world.engine.running();
    for round in 0..CHANGES as usize {
        let victim = &running[round * running.len() / CHANGES as usize];
        let of = victim.group.clone().unwrap();
        let mut events = control.subscribe();
        let begun = Instant::now();
        world.engine.kill(&victim.server);
        let step = |event: &Event| matches!(event, Event::Step { group, action, .. } if action == "launch" && *group == *of.as_str());
        times.push(told(&mut events, begun, step).await);
        let ready = |event: &Event| matches!(event, Event::Server { group, state, .. } if state == "ready" && *group == *of.as_str());
        told(&mut events, begun, ready).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    median(times)
}

/// A daemon begins anew over everything: seconds until every group has made its plan.
async fn cold(world: &World) -> (Control, f64) {
    let begun = Instant::now();
    let control = world.open().await;
    // The first answer comes before a group's first plan, the second after it.
    for _ in 0..2 {
        let status = control.status().await.unwrap();
        assert!(status.groups.iter().all(|group| group.ready == group.desired), "nothing was lost");
    }
    (control, begun.elapsed().as_secs_f64())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a benchmark"]
async fn perf_reconcilers() {
    let sizes = std::env::var("KILN_PLANNER_SIZES").ok();
    let sizes = sizes.map_or(SIZES.to_vec(), |sizes| sizes.split(',').map(|size| size.parse().unwrap()).collect());
    for servers in sizes {
        let groups = servers / EACH;
        let world = World::new(Manners::default());
        let control = world.open().await;
        let begun = Instant::now();
        control.apply(wanted((0..groups).map(|number| (number, EACH)))).await.unwrap();
        settled(&control).await;
        let up = begun.elapsed().as_secs_f64();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (plan, launch) = change(&control, groups).await;
        let death = death(&world, &control).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (before, watched) = (processor(), Instant::now());
        tokio::time::sleep(REST).await;
        let rest = (processor() - before) / watched.elapsed().as_secs_f64() * 100.0;
        control.close().await;
        drop(control);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (control, cold) = cold(&world).await;
        println!(
            "PERF plan_ms_{servers} {plan:.3} launch_ms_{servers} {launch:.3} death_ms_{servers} {death:.3} \
             cold_s_{servers} {cold:.4} up_s_{servers} {up:.3} rest_pc_{servers} {rest:.3}"
        );
        control.close().await;
    }
}
