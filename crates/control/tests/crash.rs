//! The daemon dies before and after every step of the journal, and the next one goes on; a server dies there, or the gateway
//! is away for a while, and the same daemon goes on.
//!
//! The same story is told again and again: three servers come up, are replaced, and are taken away; each time the core
//! dies at a later place. Whatever the place, the next daemon finds out from the engine what became of it: no server is
//! launched twice, none is left behind, traffic never has fewer servers than it should, and the story can be ended.

mod world;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use kiln_api::{request::Loss, volume::VolumeRequest};
use kiln_control::{Control, ControlError, FailPoint, Settled, VolumesError};
use kiln_model::ByteSize;
use kiln_testkit::{Manners, fake::Deed};
use world::{Countdown, World, group, release, running, stateful, until, wanted, web};

/// Something else happens at the place reached after so many others; the daemon lives.
struct Mishap {
    left: AtomicI64,
    place: Mutex<Option<String>>,
    happen: Box<dyn Fn() + Send + Sync>,
}

impl FailPoint for Mishap {
    fn dies_at(&self, place: &str) -> bool {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            *self.place.lock().unwrap() = Some(place.to_owned());
            (self.happen)();
        }
        false
    }
}

/// The story. Says when the servers are taken away: from then on they need not serve.
async fn tell(control: &Control, leaving: &AtomicBool) -> Result<(), ControlError> {
    arrive(control, 1).await?;
    arrive(control, 2).await?;
    leaving.store(true, Ordering::SeqCst);
    control.down(&[]).await
}

async fn arrive(control: &Control, image: u8) -> Result<(), ControlError> {
    control.apply(wanted(image, group(3))).await?;
    let settled: Vec<Settled> = control.settle(&[web()]).await?;
    assert_eq!(settled[0].outcome, Ok(()));
    Ok(())
}

/// Tells the story with a death after so many places. False if it ended before.
async fn with_death_after(places: i64) -> bool {
    let ms = Duration::from_millis;
    let world = World::new(Manners { launch: ms(1), ready: ms(1), ..Manners::default() });
    let countdown = Countdown::new(places);
    let control = world.open_dying(countdown.clone()).await;
    let leaving = AtomicBool::new(false);
    let told = tokio::time::timeout(Duration::from_secs(20), tell(&control, &leaving)).await;
    let Some(place) = countdown.place() else {
        assert!(told.expect("the story must end").is_ok());
        return false;
    };
    drop(control);
    // The dead daemon's tasks let go of the state file.
    tokio::time::sleep(ms(20)).await;

    let control = world.open().await;
    let context = format!("after dying at `{place}` (number {places})");
    let told = tokio::time::timeout(Duration::from_secs(20), go_on(&world, &control, leaving, &context)).await;
    told.unwrap_or_else(|_| panic!("{context}: no end; {:?}", world.engine.servers()));
    true
}

/// The next daemon ends the story, and everything is as if nobody had died.
async fn go_on(world: &World, control: &Control, leaving: AtomicBool, context: &str) {
    arrive(control, 2).await.unwrap();
    assert_eq!(running(&world.engine, release(2)), 3, "{context}");
    let leftover = async || world.engine.servers().len() == 3;
    until(&format!("{context}: nothing is left behind"), leftover).await;
    assert_eq!(world.gate.backends().iter().filter(|b| !b.draining).count(), 3, "{context}");
    let serving = world.gate.fewest_since(3);
    assert!(serving >= 3 || leaving.into_inner(), "{context}: {serving} served");

    control.down(&[]).await.unwrap();
    assert!(world.engine.servers().is_empty(), "{context}");
    let mut launched = BTreeSet::new();
    for deed in world.engine.deeds() {
        if let Deed::Launched(server, _) = deed {
            assert!(launched.insert(server.clone()), "{context}: {server} was launched twice");
        }
    }
    assert_journal_is_closed(world, context);
}

fn assert_journal_is_closed(world: &World, context: &str) {
    let file = rusqlite::Connection::open(world.directory.path().join("kiln.db")).unwrap();
    let count = |sql: &str| file.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM intentions WHERE closed_at IS NULL"), 0, "{context}");
    assert_eq!(count("SELECT count(*) FROM servers"), 0, "{context}");
    assert_eq!(count("SELECT count(*) FROM groups"), 0, "{context}");
}

/// Every fourth place, beginning with this one: four tests share the work.
async fn quarter(first: i64) {
    let mut places = first;
    while with_death_after(places).await {
        places += 4;
    }
    assert!(places > 100, "only {places} places were reached: the journal has more steps than that");
}

#[tokio::test]
async fn host_death_at_every_step_first_quarter() {
    quarter(0).await;
}

#[tokio::test]
async fn host_death_at_every_step_second_quarter() {
    quarter(1).await;
}

#[tokio::test]
async fn host_death_at_every_step_third_quarter() {
    quarter(2).await;
}

#[tokio::test]
async fn host_death_at_every_step_fourth_quarter() {
    quarter(3).await;
}

/// Tells the story with a mishap after so many places. False if it ended before. With one server gone, so many still serve.
async fn with_mishap_after(places: i64, serve: usize, mishap: impl Fn(&World) -> Box<dyn Fn() + Send + Sync>) -> bool {
    let ms = Duration::from_millis;
    let world = World::new(Manners { launch: ms(1), ready: ms(1), ..Manners::default() });
    let happen = mishap(&world);
    let mishap = Arc::new(Mishap { left: AtomicI64::new(places), place: Mutex::default(), happen });
    let control = world.open_dying(mishap.clone()).await;
    let context = || format!("after a mishap at {:?} (number {places})", mishap.place.lock().unwrap());
    let told = tokio::time::timeout(Duration::from_secs(20), arrive_twice(&control)).await;
    told.unwrap_or_else(|_| panic!("{}: no end; {:?}", context(), world.engine.servers())).unwrap();
    let healed = async || running(&world.engine, release(2)) == 3 && world.engine.servers().len() == 3;
    until(&format!("{}: three serve and nothing is left behind", context()), healed).await;
    let serving = world.gate.fewest_since(3);
    assert!(serving >= serve, "{}: {serving} served", context());
    let gone = tokio::time::timeout(Duration::from_secs(20), control.down(&[])).await;
    gone.unwrap_or_else(|_| panic!("{}: not gone; {:?}", context(), world.engine.servers())).unwrap();
    assert!(world.engine.servers().is_empty() && world.gate.backends().is_empty(), "{}", context());
    assert_journal_is_closed(&world, &context());
    mishap.place.lock().unwrap().is_some()
}

/// Servers with volumes: two slots, of which the second is cloned from the first, are brought to another release; then all that
/// can be done with volumes is done.
async fn tell_of_volumes(control: &Control, file: &Path) -> Result<(), ControlError> {
    for image in [1, 2] {
        control.apply(wanted(image, stateful(2))).await?;
        let settled: Vec<Settled> = control.settle(&[web()]).await?;
        assert_eq!(settled[0].outcome, Ok(()));
    }
    let snapshot = || "web.data.0@kept".parse().unwrap();
    let volume = |name: &str| name.parse().unwrap();
    let path = || file.display().to_string();
    let stories = [
        VolumeRequest::Snapshot { volume: volume("web.data.0"), name: Some("kept".parse().unwrap()) },
        VolumeRequest::Create { volume: volume("spare"), size: ByteSize::mib(64), filesystem: Default::default() },
        VolumeRequest::Clone { from: snapshot(), volume: volume("copy") },
        VolumeRequest::Export { snapshot: snapshot(), file: path() },
        VolumeRequest::Import { file: path(), volume: volume("again") },
        VolumeRequest::Grow { volume: volume("web.data.0"), size: ByteSize::mib(128) },
        VolumeRequest::Restore { snapshot: snapshot(), loss: Loss::Accept },
    ];
    for request in stories {
        match control.volume(&request).await {
            // Asked again after a death in the middle of it.
            Ok(_) | Err(VolumesError::SnapshotExists(_) | VolumesError::Exists(_)) => {}
            Err(_) if matches!(request, VolumeRequest::Export { .. }) && file.exists() => {}
            Err(error) => panic!("{request:?}: {error}"),
        }
    }
    control.put_back(&web(), 0).await?;
    let settled: Vec<Settled> = control.settle(&[web()]).await?;
    assert_eq!(settled[0].outcome, Ok(()));
    Ok(())
}

/// As [`with_death_after`], of servers with volumes.
async fn volumes_with_death_after(places: i64) -> bool {
    let ms = Duration::from_millis;
    let world = World::new(Manners { launch: ms(1), ready: ms(1), ..Manners::default() });
    world.shelf.volumes.store(true, Ordering::SeqCst);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("out");
    let countdown = Countdown::new(places);
    let control = world.open_dying(countdown.clone()).await;
    let told = async {
        tokio::select! {
            told = tell_of_volumes(&control, &file) => told,
            () = control.ended() => Err(ControlError::Closed),
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(20), told).await;
    let Some(place) = countdown.place() else {
        assert!(told.expect("the story must end").is_ok());
        return false;
    };
    drop(control);
    tokio::time::sleep(ms(20)).await;

    let control = world.open().await;
    let context = format!("after dying at `{place}` (number {places})");
    let told = tokio::time::timeout(Duration::from_secs(20), tell_of_volumes(&control, &file)).await;
    told.unwrap_or_else(|_| panic!("{context}: no end; {:?}", world.engine.servers())).unwrap();
    let two = async || world.engine.servers().len() == 2;
    until(&format!("{context}: nothing is left behind"), two).await;
    let volumes = world.engine.kept();
    assert_eq!(volumes.len(), 5, "{context}: {volumes:?}");
    for (id, volume) in volumes.iter().filter(|(id, _)| id.slot().is_some()) {
        let last = volume.holders.last().unwrap();
        let runs = world.engine.running().iter().filter(|seen| volume.holders.contains(&seen.server)).count();
        assert!(world.engine.running().iter().any(|seen| seen.server == *last), "{context}: {id}: {volume:?}");
        // The second slot was cloned from the first: whoever had that before is in its history as well.
        assert!(runs <= 2, "{context}: {id}: {volume:?}");
        let before = volume.snapshots.keys().filter(|name| name.as_str().starts_with("rollout-")).count();
        assert!(before >= 1, "{context}: {id} has no snapshot of before the rollout: {volume:?}");
    }
    // No server that served was ended for a volume: the book and the planner keep the order, fencing is the last resort.
    let fenced = world.engine.deeds().iter().filter(|deed| matches!(deed, Deed::Fenced(_))).count();
    assert_eq!(fenced, 0, "{context}: {:?}", world.engine.deeds());
    let kept = &volumes[&"web.data.0".parse().unwrap()].snapshots;
    let then = kept.get(&"kept".parse().unwrap()).unwrap_or_else(|| panic!("{context}: {kept:?}"));
    let of = |id: &str| &volumes[&id.parse().unwrap()];
    assert!(of("copy").holders == *then && of("again").holders == *then, "{context}: {volumes:?}");
    assert!(of("web.data.0").holders.starts_with(then), "{context}: it was put back: {volumes:?}");
    assert_eq!(of("web.data.0").size, ByteSize::mib(128), "{context}");

    control.down(&[]).await.unwrap();
    assert!(world.engine.servers().is_empty(), "{context}");
    assert_eq!(world.engine.kept().len(), 5, "{context}: data stays");
    let left = control.volumes().await.unwrap().volumes;
    let states = |state: &str| left.iter().filter(|volume| volume.state == state).count();
    assert!(states("orphan") == 2 && states("free") == 3, "{context}: {left:?}");
    true
}

#[tokio::test]
async fn host_death_at_every_step_loses_no_volume_and_gives_none_to_two() {
    let mut places = 0;
    while volumes_with_death_after(places).await {
        places += 1;
    }
    assert!(places > 80, "only {places} places were reached: the journal has more steps than that");
}

async fn arrive_twice(control: &Control) -> Result<(), ControlError> {
    arrive(control, 1).await?;
    arrive(control, 2).await
}

async fn at_every_step(serve: usize, mishap: impl Fn(&World) -> Box<dyn Fn() + Send + Sync>) {
    let mut places = 0;
    while with_mishap_after(places, serve, &mishap).await {
        places += 1;
    }
    assert!(places > 100, "only {places} places were reached: the journal has more steps than that");
}

#[tokio::test]
async fn host_a_server_that_dies_at_any_step_is_replaced() {
    at_every_step(2, |world| {
        let engine = world.engine.clone();
        Box::new(move || {
            if let Some(server) = engine.running().first() {
                engine.kill(&server.server);
            }
        })
    })
    .await;
}

#[tokio::test]
async fn host_a_gateway_that_is_away_at_any_step_is_waited_for() {
    at_every_step(3, |world| {
        let gate = world.gate.clone();
        Box::new(move || {
            *gate.away.lock().unwrap() = true;
            let gate = gate.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(30));
                *gate.away.lock().unwrap() = false;
            });
        })
    })
    .await;
}
