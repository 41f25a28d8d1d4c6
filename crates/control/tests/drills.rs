//! Recovery drills over a fake engine: what they destroy, when they may, and what is said of them.

mod world;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use kiln_api::{Event, recovery::Drill};
use kiln_control::{Control, ControlError, FailPoint};
use kiln_model::{
    Group, ServerId,
    fleet::{DrillPolicy, Objectives, Strategy, Toll},
    plan::NoDrill,
};
use kiln_testkit::{Manners, fake::Deed};
use world::{World, group, release, until, up, wanted, web};

fn quick() -> Manners {
    let ms = Duration::from_millis;
    Manners { launch: ms(2), ready: ms(5), stop: ms(2), destroy: ms(1), ..Manners::default() }
}

fn strict(count: u32) -> Group {
    let objectives = Objectives { ready_within: Some(Duration::from_secs(5)), failed: Some(0), lost: None };
    let mut strict = group(count);
    strict.rollout.strategy = Strategy::Rolling { max_surge: 10, max_unavailable: 0 };
    strict.drill = DrillPolicy { objectives, ..DrillPolicy::default() };
    strict
}

async fn drill(control: &Control, toll: Option<Toll>) -> Result<Drill, ControlError> {
    let victims = control.choose_victims(&web(), toll).await?;
    control.drill(&web(), victims, "a test").await
}

/// One that begins as soon as what is left of the one before is gone.
async fn next_drill(control: &Control, toll: Option<Toll>) -> Drill {
    rest(control).await;
    drill(control, toll).await.unwrap()
}

async fn rest(control: &Control) {
    until("it is at rest", async || control.choose_victims(&web(), None).await.is_ok()).await;
}

async fn ready(control: &Control) -> BTreeSet<String> {
    let status = control.group_status(&web()).await.unwrap();
    status.servers.into_iter().filter(|server| server.state == "ready").map(|server| server.id).collect()
}

fn refused(result: Result<Drill, ControlError>) -> NoDrill {
    match result {
        Err(ControlError::NoDrill { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn host_a_drill_kills_as_many_as_asked_and_says_how_the_group_recovered() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, strict(20))).await;
    let before = ready(&control).await;
    let mut events = control.subscribe();
    let drill = drill(&control, Some(Toll::Share(20))).await.unwrap();
    assert_eq!((drill.state.as_str(), drill.servers.len(), drill.failed, drill.lost), ("met", 4, Some(0), Some(0)));
    assert!(drill.ready.is_some_and(|ready| ready >= Duration::from_millis(7)), "{drill:?}");
    let after = ready(&control).await;
    assert_eq!(after.len(), 20, "it is whole when the drill is over");
    let gone: BTreeSet<_> = before.difference(&after).cloned().collect();
    assert_eq!(gone, drill.servers.iter().cloned().collect(), "these and no others");
    assert_eq!(control.group_status(&web()).await.unwrap().drill, Some(drill.clone()));
    let mut told = Vec::new();
    let mut killed = 0;
    while let Ok(event) = events.try_recv() {
        match event {
            Event::Drill { drill } => told.push(drill.state),
            Event::Server { state, drill: true, reason: Some(reason), .. } if state == "failed" => {
                assert!(reason.contains("a recovery drill killed it"), "{reason}");
                killed += 1;
            }
            _ => {}
        }
    }
    assert_eq!((told, killed), (vec!["running".to_owned(), "met".to_owned()], 4));
    let again = control.group_status(&web()).await.unwrap();
    assert_eq!(again.healing, None);
}

#[tokio::test]
async fn host_drills_do_not_hold_healing_back_and_stopped_healing_holds_drills_back() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, strict(20))).await;
    for _ in 0..4 {
        assert_eq!(next_drill(&control, Some(Toll::Servers(5))).await.state, "met");
    }
    assert_eq!(control.group_status(&web()).await.unwrap().healing, None, "twenty were killed, and none counts");
    world.engine.running().iter().take(9).for_each(|seen| world.engine.kill(&seen.server));
    until("healing has stopped", async || control.group_status(&web()).await.unwrap().healing.is_some()).await;
    assert_eq!(refused(drill(&control, None).await), NoDrill::Held);
}

#[tokio::test]
async fn host_a_drill_never_begins_in_a_rollout_or_in_a_group_that_is_not_whole() {
    let world = World::new(Manners { ready: Duration::from_millis(300), ..quick() });
    let control = world.open().await;
    control.apply(wanted(1, strict(3))).await.unwrap();
    assert_eq!(refused(drill(&control, None).await), NoDrill::Rollout);
    world::settle(&control).await;
    let victims = control.choose_victims(&web(), None).await.unwrap();
    world.engine.running().iter().take(1).for_each(|seen| world.engine.kill(&seen.server));
    until("it is seen", async || ready(&control).await.len() == 2).await;
    let late = control.drill(&web(), victims, "a test").await;
    assert!(
        matches!(&late, Err(ControlError::NoDrill { why: NoDrill::NotWhole { serving: 2, wanted: 3 }, .. }))
            || matches!(&late, Err(ControlError::NoServer(_))),
        "what was chosen may have changed since: {late:?}"
    );
    assert_eq!(refused(drill(&control, None).await), NoDrill::NotWhole { serving: 2, wanted: 3 });
    assert_eq!(control.group_status(&web()).await.unwrap().drill, None, "none of these was a drill");
}

#[tokio::test]
async fn host_what_a_drill_misses_is_named_and_another_change_breaks_it_off() {
    let world = World::new(Manners { ready: Duration::from_millis(150), ..quick() });
    let control = world.open().await;
    let mut wishes = strict(3);
    wishes.drill.objectives.ready_within = Some(Duration::from_millis(100));
    up(&control, wanted(1, wishes.clone())).await;
    let gate = world.gate.clone();
    let failing = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        *gate.failed.lock().unwrap() += 7;
    });
    let missed = drill(&control, None).await.unwrap();
    failing.await.unwrap();
    assert_eq!((missed.state.as_str(), missed.failed), ("missed", Some(7)));
    assert!(missed.missed[0].contains("100ms are wanted"), "{missed:?}");
    assert_eq!(missed.missed[1], "7 requests failed, at most 0 may");
    rest(&control).await;
    // Nobody can count: that is no 0.
    *world.gate.away.lock().unwrap() = true;
    let changing = control.clone();
    let changed = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        changing.apply(wanted(2, wishes)).await.unwrap();
    });
    let broken = drill(&control, None).await.unwrap();
    changed.await.unwrap();
    assert_eq!((broken.state.as_str(), broken.failed), ("broken-off", None));
    assert!(broken.missed[0].contains("somebody asked for something else"), "{broken:?}");
    *world.gate.away.lock().unwrap() = false;
}

#[tokio::test]
async fn host_drills_are_due_as_the_fleet_says_in_a_change_window_and_once() {
    let world = World::new(quick());
    let control = world.open().await;
    let mut daily = strict(3);
    daily.drill.every = Some(Duration::from_secs(86_400));
    daily.drill.gateway = Some(Duration::from_secs(43_200));
    let now = Timestamp::now();
    let later = now + Duration::from_secs(86_400 * 11 / 10 + 60);
    let closed = jiff::tz::TimeZone::UTC.to_datetime(later).date().to_string();
    daily.windows.closed = vec![closed.parse().unwrap()];
    up(&control, wanted(1, daily)).await;
    let due = async |control: &Control| -> Vec<(String, String)> {
        let due = control.due_drills().await;
        due.into_iter().map(|(target, reason)| (target.to_string(), reason)).collect()
    };
    assert_eq!(due(&control).await, [], "a group that had none waits as long");
    *world.clock.lock().unwrap() = Some(later);
    assert_eq!(due(&control).await, [], "the window is closed");
    let open = later + Duration::from_secs(86_400);
    world.shelf.report(1, kiln_model::evidence::Verdict::Passed, open);
    *world.clock.lock().unwrap() = Some(open);
    let (group, gateway) = ("group web asks for one every 1d", "group web asks for one every 12h");
    let said = |target: &str, reason: &str| (target.to_owned(), reason.to_owned());
    assert_eq!(due(&control).await, [said("group:web", group), said("gateway", gateway)]);
    drill(&control, None).await.unwrap();
    rest(&control).await;
    assert_eq!(due(&control).await, [said("gateway", gateway)], "it was made");
    // A daemon that starts anew does not make it again.
    control.close().await;
    drop(control);
    let control = world.open().await;
    rest(&control).await;
    assert_eq!(due(&control).await, [said("gateway", gateway)]);
    assert_eq!(control.group_status(&web()).await.unwrap().drill.map(|drill| drill.state), Some("met".to_owned()));
}

/// Dies the first time a place is reached.
struct At(&'static str);

impl FailPoint for At {
    fn dies_at(&self, place: &str) -> bool {
        place == self.0
    }
}

#[tokio::test]
async fn host_a_daemon_killed_in_a_drill_comes_back_to_a_whole_group_and_says_that_it_broke_off() {
    for place in ["drill: before action", "drill: after action"] {
        let world = World::new(quick());
        let control = world.open().await;
        up(&control, wanted(1, strict(3))).await;
        control.close().await;
        drop(control);
        let control = world.open_dying(Arc::new(At(place))).await;
        rest(&control).await;
        let died = drill(&control, None).await;
        assert!(died.is_err(), "{place}: {died:?}");
        control.ended().await;
        drop(control);
        let control = world.open().await;
        control.finish_drills().await.unwrap();
        until("it is whole", async || ready(&control).await.len() == 3).await;
        let last = control.group_status(&web()).await.unwrap().drill.unwrap();
        assert_eq!(last.state, "broken-off", "{place}");
        assert!(last.missed[0].contains("the daemon ended in the middle of it"), "{last:?}");
        let launched = |deed: &&Deed| matches!(deed, Deed::Launched(_, id) if *id == release(1));
        assert!(world.engine.deeds().iter().filter(launched).count() <= 4, "{place}: nothing is launched twice");
        assert_eq!(next_drill(&control, None).await.state, "met", "{place}: the next one is as good as any");
    }
}

/// Holds up the second launch of a drill.
#[derive(Default)]
struct Slow {
    killing: AtomicBool,
    launches: AtomicU32,
}

const HELD_UP: Duration = Duration::from_millis(250);

impl FailPoint for Slow {
    fn dies_at(&self, place: &str) -> bool {
        self.killing.fetch_or(place == "drill: before action", Ordering::SeqCst);
        let launch = place.starts_with("launch ") && place.ends_with(": before action");
        if launch && self.killing.load(Ordering::SeqCst) && self.launches.fetch_add(1, Ordering::SeqCst) == 1 {
            std::thread::sleep(HELD_UP);
        }
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_drill_is_over_with_its_last_replacement() {
    let world = World::new(quick());
    let control = world.open_dying(Arc::<Slow>::default()).await;
    up(&control, wanted(1, strict(6))).await;
    let drilled = drill(&control, Some(Toll::Servers(3))).await.unwrap();
    assert!(drilled.ready.is_some_and(|ready| ready >= HELD_UP), "the slowest of three counts: {drilled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_drill_kills_nothing_before_it_is_on_disk() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, strict(3))).await;
    rest(&control).await;
    // Somebody else writes to the state file: nothing comes on disk meanwhile.
    let other = rusqlite::Connection::open(world.directory.path().join("kiln.db")).unwrap();
    other.busy_timeout(Duration::from_secs(5)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let drilling = control.clone();
    let drilled = tokio::spawn(async move { drill(&drilling, None).await.unwrap() });
    tokio::time::sleep(HELD_UP).await;
    assert_eq!(world.engine.running().len(), 3, "nothing was killed");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(drilled.await.unwrap().state, "met");
}

#[tokio::test]
async fn host_a_drill_is_not_over_before_the_replacements_get_traffic() {
    let world = World::new(quick());
    let control = world.open().await;
    let mut patient = strict(3);
    patient.drill.objectives = Objectives::default();
    up(&control, wanted(1, patient)).await;
    *world.gate.away.lock().unwrap() = true;
    let gate = world.gate.clone();
    let begun = std::time::Instant::now();
    let back = tokio::spawn(async move {
        tokio::time::sleep(HELD_UP).await;
        *gate.away.lock().unwrap() = false;
    });
    assert_eq!(drill(&control, None).await.unwrap().state, "met");
    assert!(begun.elapsed() >= HELD_UP, "no gateway knew of the replacement after {:?}", begun.elapsed());
    back.await.unwrap();
}

#[tokio::test]
async fn host_servers_with_volumes_are_killed_as_hard_and_keep_their_slots() {
    let world = World::new(quick());
    world.shelf.volumes.store(true, std::sync::atomic::Ordering::SeqCst);
    let control = world.open().await;
    let mut data = world::stateful(3);
    data.drill = strict(3).drill;
    up(&control, wanted(1, data)).await;
    let drilled = drill(&control, Some(Toll::Servers(2))).await.unwrap();
    assert_eq!((drilled.state.as_str(), drilled.servers.len()), ("met", 2));
    let stopped = |id: &String| world.engine.deeds().contains(&Deed::Stopped(id.parse::<ServerId>().unwrap()));
    assert!(!drilled.servers.iter().any(stopped), "nobody asked them to end");
    let status = control.group_status(&web()).await.unwrap();
    let slots: BTreeSet<_> = status.servers.iter().filter(|s| s.state == "ready").map(|s| s.slot).collect();
    assert_eq!(slots, BTreeSet::from([Some(0), Some(1), Some(2)]));
}
