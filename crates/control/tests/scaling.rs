//! Groups that follow their load: an engine and a gateway that serve nothing, and everything between them.

mod metric;
mod world;

use std::time::Duration;

use kiln_control::{
    Control,
    audit::{AuditError, Entry, Log, Replayed},
};
use kiln_model::{Fleet, Group, plan::ScaleInputs};
use kiln_testkit::Manners;
use world::{World, group, release, running, until, up, wanted, web};

fn quick() -> Manners {
    let ms = Duration::from_millis;
    Manners { launch: ms(2), ready: ms(5), stop: ms(2), destroy: ms(1), ..Manners::default() }
}

fn counted(count: &str) -> Group {
    let publish = "publish = [{ listen = 8080, port = 80, protocol = \"http\" }]";
    let text = format!("[group.web]\nimage = \"hello\"\n{publish}\ncount = {count}\n");
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
async fn host_a_group_follows_the_processor_time_of_its_servers_against_what_they_may_use() {
    let world = World::new(quick());
    let control = open(&world).await;
    let count = "{ min = 2, max = 12, target = { cpu = \"50%\" }, scale_in = { wait = \"1s\" } }";
    let half_a_core = || {
        let mut group = counted(count);
        group.limits.cpu_millis = Some(500);
        group
    };
    up(&control, wanted(1, half_a_core())).await;
    world.engine.set_manners(|manners| manners.busy_millis = 1900);
    until("1.9 processors are half of what eight may use", async || desired(&control).await == 8).await;
    until("the number rests", async || reason(&control).await.ends_with("the number is right")).await;
    assert!(reason(&control).await.contains("% of a server's processor time, of which each server is to carry 50; "));
    world.engine.set_manners(|manners| (manners.unmetered, manners.busy_millis) = (true, 0));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(desired(&control).await, 8, "nothing is taken away in the dark");
    let held = "the load is not known (this host does not tell the processor time of its servers), so nothing changes";
    assert!(reason(&control).await.starts_with(held), "{}", reason(&control).await);
    world.engine.set_manners(|manners| (manners.unmetered, manners.busy_millis) = (false, 1000));
    until("fewer than five would use more than 45 %", async || desired(&control).await == 5).await;
    up(&control, wanted(1, counted(count))).await;
    until("without a limit a server may use one", async || desired(&control).await == 3).await;
}

#[tokio::test]
async fn host_a_group_without_servers_is_woken_at_once_by_a_request_and_sleeps_again() {
    let world = World::new(quick());
    let mut options = world.options();
    // Too seldom to wake anybody.
    options.load_every = Duration::from_millis(700);
    let control = world.open_with(options).await;
    let count = "{ min = 0, max = 5, target = { requests_per_second = 1000 }, scale_in = { wait = \"1s\" } }";
    up(&control, wanted(1, counted(count))).await;
    assert_eq!(desired(&control).await, 1, "it is seen to work");
    assert_eq!(world.gate.table.lock().unwrap().routes[0].hold, Some(Duration::from_secs(30)));
    for round in 1..=3 {
        until("it sleeps", async || world.engine.servers().is_empty()).await;
        assert_eq!(world.gate.drained.lock().unwrap().len(), round, "whoever goes is drained first");
        assert_eq!((desired(&control).await, world.gate.backends().len()), (0, 0));
        assert_eq!(control.group_status(&web()).await.unwrap().rollout, None, "that is as it should be");
        let asked = std::time::Instant::now();
        *world.gate.waiting.lock().unwrap() = 1;
        world.gate.rings.notify_one();
        until("it serves", async || !world.gate.backends().is_empty()).await;
        let took = asked.elapsed();
        assert!(took < Duration::from_millis(500), "{took:?} is a wait for the clock");
        *world.gate.waiting.lock().unwrap() = 0;
    }
    *world.gate.rate.lock().unwrap() = 20.0;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(desired(&control).await, 1, "who is asked does not sleep");
}

#[tokio::test]
async fn host_a_request_that_comes_while_a_group_goes_to_sleep_wakes_it_although_nobody_says_so() {
    let world = World::new(quick());
    let control = open(&world).await;
    let count = "{ min = 0, max = 5, target = { requests_per_second = 1000 }, scale_in = { wait = \"1s\" } }";
    *world.gate.drain.lock().unwrap() = Duration::from_millis(300);
    up(&control, wanted(1, counted(count))).await;
    until("the last one drains", async || world.gate.backends().iter().any(|backend| backend.draining)).await;
    *world.gate.waiting.lock().unwrap() = 3;
    until("another one serves", async || world.gate.backends().iter().any(|backend| !backend.draining)).await;
    assert!(!world.gate.drained.lock().unwrap().is_empty() || running(&world.engine, release(1)) == 2);
    assert_eq!(desired(&control).await, 1);
}

#[tokio::test]
async fn host_decisions_can_be_made_again_from_the_audit_log() {
    let world = World::new(quick());
    let control = open(&world).await;
    let rules = "{ min = 0, max = 20, target = { requests_per_second = 10000 }, \
                 scale_out = { wait = \"1s\", step = 3 }, scale_in = { wait = \"1s\", step = 4 } }";
    up(&control, wanted(1, counted(rules))).await;
    *world.gate.rate.lock().unwrap() = 87_000.0;
    until("all that are needed serve", async || running(&world.engine, release(1)) == 9).await;
    *world.gate.rate.lock().unwrap() = 0.0;
    until("it sleeps", async || world.engine.servers().is_empty()).await;
    *world.gate.waiting.lock().unwrap() = 2;
    world.gate.rings.notify_one();
    // Nothing is launched before the decision is on the disk.
    until("it is woken", async || running(&world.engine, release(1)) == 1).await;
    control.close().await;
    let log = Log::open(world.directory.path()).unwrap();
    let entries = log.entries(0, Some("web"), 1000).unwrap();
    let moves: Vec<_> = entries.iter().filter(|entry| entry.action == "scale").collect();
    assert!(moves.len() >= 7, "up by threes, down by fours, and up: {moves:?}");
    for entry in &moves {
        let inputs: ScaleInputs = serde_json::from_str(&entry.inputs).unwrap();
        let again = inputs.again().unwrap();
        assert_eq!((again.count, &again.why), (inputs.to, &entry.reason));
        assert!(entry.inputs.len() < 3000, "{}", entry.inputs);
    }
    let replayed = Replayed { same: moves.len() as u64, incomplete: 0 };
    assert_eq!(log.replay(0, None).unwrap(), replayed);
    assert_eq!(log.replay(moves[1].number, Some("web")).unwrap().same, replayed.same - 2);
    assert_eq!(log.replay(0, Some("db")).unwrap(), Replayed::default());
    drop(log);

    // Somebody who can write the file says that something else was decided.
    let file = rusqlite::Connection::open(world.directory.path().join("kiln.db")).unwrap();
    let forged = moves[2].inputs.replacen(&format!("\"to\":{}", to(moves[2])), "\"to\":19", 1);
    file.execute_batch("DROP TRIGGER audit_log_stays").unwrap();
    file.execute("UPDATE audit_log SET inputs = ?1 WHERE number = ?2", (forged, moves[2].number)).unwrap();
    drop(file);
    let found = Log::open(world.directory.path()).unwrap().replay(0, None).unwrap_err();
    assert!(matches!(found, AuditError::Otherwise { number, .. } if number == moves[2].number), "{found}");
}

fn to(entry: &Entry) -> u32 {
    serde_json::from_str::<ScaleInputs>(&entry.inputs).unwrap().to
}
