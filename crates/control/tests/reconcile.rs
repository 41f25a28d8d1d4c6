//! Whole rollouts over the fake engine.

mod world;

use std::time::{Duration, Instant};

use kiln_control::Unsettled;
use kiln_model::{
    fleet::OnRevoked,
    shared::{Nfs, NfsVersion, Place, SharedDirectory},
};
use kiln_testkit::{Manners, fake::Deed};
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

#[tokio::test]
async fn host_a_broken_release_is_taken_back_fast_and_traffic_never_notices() {
    let world = World::new(Manners { exits: [release(2)].into(), ..quick() });
    let control = world.open().await;
    up(&control, wanted(1, group(3))).await;
    let begun = Instant::now();
    let settled = up(&control, wanted(2, group(3))).await;
    let Err(Unsettled::Failed { reason }) = settled.outcome else { panic!("{settled:?}") };
    assert!(reason.contains("failed one after another") && reason.contains("killed by signal 9"), "{reason}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!((running(&world.engine, release(1)), world.gate.fewest_since(3)), (3, 3));
    let status = control.status().await.unwrap();
    assert_eq!(status.groups[0].rollout.as_ref().unwrap().state, "failed");
    // The way forward is open: a good release follows.
    assert_eq!(up(&control, wanted(3, group(3))).await.outcome, Ok(()));
}

#[tokio::test]
async fn host_without_auto_revert_the_group_is_left_as_it_serves() {
    let world = World::new(Manners { fails: [release(2)].into(), ..quick() });
    let control = world.open().await;
    let mut kept = group(2);
    kept.rollout.auto_revert = false;
    up(&control, wanted(1, kept.clone())).await;
    let settled = up(&control, wanted(2, kept)).await;
    let Err(Unsettled::Failed { reason }) = settled.outcome else { panic!("{settled:?}") };
    assert!(reason.contains("the release is broken"), "{reason}");
    assert_eq!(running(&world.engine, release(1)), 2);
}

#[tokio::test]
async fn host_of_two_changes_the_later_wins_and_the_earlier_is_told() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, group(3))).await;
    control.apply(wanted(2, group(3))).await.unwrap();
    let (first, ()) = tokio::join!(world::settle(&control), async {
        tokio::time::sleep(Duration::from_millis(15)).await;
        control.apply(wanted(3, group(4))).await.unwrap();
    });
    assert_eq!(first.outcome, Err(Unsettled::Superseded));
    assert_eq!(world::settle(&control).await.outcome, Ok(()));
    assert_eq!((running(&world.engine, release(3)), world.gate.fewest_since(3)), (4, 3));
}

#[tokio::test]
async fn host_rollback_goes_to_the_release_before_and_checks_its_evidence() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, group(2))).await;
    assert!(control.rollback(&web(), kiln_control::Data::Kept).await.is_err(), "there is nothing to go back to yet");
    up(&control, wanted(2, group(2))).await;
    control.rollback(&web(), kiln_control::Data::Kept).await.unwrap();
    assert_eq!(world::settle(&control).await.outcome, Ok(()));
    assert_eq!(running(&world.engine, release(1)), 2);
    world.shelf.revoked.lock().unwrap().push(world::image(2));
    control.rollback(&web(), kiln_control::Data::Kept).await.unwrap();
    let settled = world::settle(&control).await;
    assert!(matches!(&settled.outcome, Err(Unsettled::Refused { code, .. }) if code == "revoked"), "{settled:?}");
    assert_eq!(running(&world.engine, release(1)), 2, "and nothing was changed");
}

#[tokio::test]
async fn host_rebuild_replaces_every_server_by_one_of_the_same_release() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, group(2))).await;
    let before: Vec<_> = world.engine.running().into_iter().map(|seen| seen.server).collect();
    control.rebuild(&kiln_control::RebuildTarget::Group(web())).await.unwrap();
    assert_eq!(world::settle(&control).await.outcome, Ok(()));
    until("the old ones are gone", async || {
        world.engine.servers().len() == 2 && world.engine.servers().iter().all(|s| !before.contains(&s.server))
    })
    .await;
    assert_eq!(world.gate.fewest_since(2), 2);
    let one = world.engine.running()[0].server.clone();
    control.rebuild(&kiln_control::RebuildTarget::Server(one.clone())).await.unwrap();
    assert_eq!(world::settle(&control).await.outcome, Ok(()));
    until("that one is gone", async || world.engine.servers().iter().all(|s| s.server != one)).await;
}

#[tokio::test]
async fn host_other_limits_come_by_replacement() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, group(2))).await;
    let before: Vec<_> = world.engine.running().into_iter().map(|seen| seen.server).collect();
    let mut limited = group(2);
    limited.limits.pids = Some(64);
    assert_eq!(up(&control, wanted(1, limited)).await.outcome, Ok(()));
    assert!(world.gate.backends().iter().filter(|b| !b.draining).all(|b| !before.contains(&b.server)));
}

#[tokio::test]
async fn host_a_group_is_not_ready_while_what_it_shares_is_away() {
    let world = World::new(quick());
    let control = world.open().await;
    let mut sharing = group(2);
    let nfs =
        Nfs { export: "nas:/srv/uploads".parse().unwrap(), version: NfsVersion::V4_2, timeout: Duration::from_secs(3) };
    let bound = SharedDirectory { place: Place::Nfs(nfs), read_only: false, execute: false };
    sharing.shared.insert("uploads".parse().unwrap(), bound);
    assert_eq!(up(&control, wanted(1, sharing)).await.outcome, Ok(()));
    let status = async || control.status().await.unwrap().groups.remove(0);
    let before = status().await;
    assert_eq!((before.ready, before.shared[0].away.clone(), world.gate.backends().len()), (2, None, 2));

    world.engine.set_manners(|manners| manners.away = Some("nobody answers".to_owned()));
    until("it is seen that it is away", async || status().await.ready == 0).await;
    until("nobody gets traffic", async || world.gate.backends().is_empty()).await;
    let away = status().await;
    assert!(away.shared[0].away.as_ref().is_some_and(|reason| reason.contains("nobody answers")), "{away:?}");
    assert!(away.shared[0].since.is_some() && away.shared[0].place == "nfs nas:/srv/uploads", "{away:?}");

    world.engine.set_manners(|manners| manners.away = None);
    until("it is ready again", async || status().await.ready == 2 && world.gate.backends().len() == 2).await;
    assert_eq!(running(&world.engine, release(1)), 2);
    let launched = world.engine.deeds().iter().filter(|deed| matches!(deed, Deed::Launched(..))).count();
    assert_eq!(launched, 2, "no server was replaced for it");
}

#[tokio::test]
async fn host_an_expired_report_refuses_a_rollout_and_heals_what_runs() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, group(2))).await;
    let later = jiff::Timestamp::now() + Duration::from_secs(40 * 86_400);
    *world.clock.lock().unwrap() = Some(later);
    let mut events = control.subscribe();
    let settled = up(&control, wanted(2, group(2))).await;
    assert!(matches!(&settled.outcome, Err(Unsettled::Refused { code, .. }) if code == "expired"), "{settled:?}");
    world.engine.kill(&world.engine.running()[0].server.clone());
    until("two serve again", async || running(&world.engine, release(1)) == 2).await;
    let mut warned = false;
    while let Ok(event) = events.try_recv() {
        warned |= matches!(event, kiln_api::Event::Warning { message } if message.contains("EXPIRED"));
    }
    assert!(warned, "healing with an expired report must be said loudly");
}

#[tokio::test]
async fn host_healing_stops_with_an_expired_report_where_the_fleet_says_so() {
    let world = World::new(quick());
    let control = world.open().await;
    let mut strict = wanted(1, group(2));
    strict.fleet.evidence.on_expiry = kiln_model::fleet::OnExpiry::Stop;
    up(&control, strict).await;
    *world.clock.lock().unwrap() = Some(jiff::Timestamp::now() + Duration::from_secs(40 * 86_400));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.engine.kill(&world.engine.running()[0].server.clone());
    until("status says that healing has stopped", async || {
        let status = control.status().await.unwrap();
        status.groups[0].rollout.as_ref().is_some_and(|r| r.state == "refused" && r.reason.contains("expired"))
    })
    .await;
    assert_eq!(running(&world.engine, release(1)), 1);
}

#[tokio::test]
async fn host_a_lost_answer_launches_no_second_server_for_long() {
    let world = World::new(Manners { lose_every: 2, ..quick() });
    let control = world.open().await;
    assert_eq!(up(&control, wanted(1, group(4))).await.outcome, Ok(()));
    until("nothing is left behind", async || world.engine.servers().len() == 4).await;
}

#[tokio::test]
async fn host_a_slow_and_eventually_consistent_engine_is_not_mistaken_for_a_dead_one() {
    let world = World::new(Manners { shows_after: Duration::from_secs(1), ..quick() });
    let control = world.open().await;
    up(&control, wanted(1, group(3))).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let launched = world.engine.deeds().len();
    assert_eq!(launched, 3, "{:?}", world.engine.deeds());
}

#[tokio::test]
async fn host_a_lost_host_is_healed() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, group(3))).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    world.engine.running().iter().for_each(|seen| world.engine.lose(&seen.server));
    until("three serve again", async || running(&world.engine, release(1)) == 3).await;
}

#[tokio::test]
async fn host_a_used_up_host_fails_the_rollout_with_that_reason() {
    let world = World::new(Manners { capacity: Some(2), ..quick() });
    let control = world.open().await;
    let settled = up(&control, wanted(1, group(3))).await;
    let Err(Unsettled::Failed { reason }) = settled.outcome else { panic!("{settled:?}") };
    assert!(reason.contains("no addresses left"), "{reason}");
}

#[tokio::test]
async fn host_a_taken_port_is_told_and_used_once_it_is_free() {
    let world = World::new(quick());
    world.gate.taken.lock().unwrap().push(8080);
    let control = world.open().await;
    let settled = up(&control, wanted(1, group(2))).await;
    let Err(Unsettled::Failed { reason }) = settled.outcome else { panic!("{settled:?}") };
    assert!(reason.contains("8080") && reason.contains("httpd"), "{reason}");
    world.gate.taken.lock().unwrap().clear();
    assert_eq!(up(&control, wanted(1, group(2))).await.outcome, Ok(()));
}

#[tokio::test]
async fn host_blue_green_switches_all_at_once() {
    let world = World::new(quick());
    let control = world.open().await;
    let mut both = group(3);
    both.rollout.strategy = kiln_model::fleet::Strategy::BlueGreen;
    up(&control, wanted(1, both.clone())).await;
    let tables = world.gate.serving.lock().unwrap().len();
    assert_eq!(up(&control, wanted(2, both)).await.outcome, Ok(()));
    let serving = world.gate.serving.lock().unwrap()[tables..].to_vec();
    assert!(serving.iter().all(|n| *n == 3), "never a mixture: {serving:?}");
    assert_eq!(running(&world.engine, release(2)), 3);
}

#[tokio::test]
async fn host_a_rollout_that_fails_because_the_gateway_takes_no_table_comes_to_its_end() {
    let world = World::new(quick());
    *world.gate.away.lock().unwrap() = true;
    let control = world.open().await;
    let mut group = group(2);
    group.rollout.progress_deadline = Duration::from_millis(300);
    let settled = up(&control, wanted(1, group)).await;
    let reason = settled.outcome.unwrap_err().to_string();
    assert!(reason.contains("made no progress"), "{reason}");
}

#[tokio::test]
async fn host_a_gateway_that_is_away_is_waited_for() {
    let world = World::new(quick());
    *world.gate.away.lock().unwrap() = true;
    let control = world.open().await;
    control.apply(wanted(1, group(2))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(control.status().await.unwrap().groups[0].ready, 0);
    *world.gate.away.lock().unwrap() = false;
    assert_eq!(world::settle(&control).await.outcome, Ok(()));
}

#[tokio::test]
async fn host_a_restarted_daemon_touches_no_server() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, group(3))).await;
    let touched = world.engine.running()[0].server.clone();
    control.touch(&touched, &["sh".to_owned()]).await.unwrap();
    let before = (world.engine.deeds(), control.status().await.unwrap());
    control.close().await;
    drop(control);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let control = world.open().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((world.engine.deeds(), control.status().await.unwrap()), before);
    assert!(before.1.groups[0].servers.iter().any(|s| s.touched && s.id == touched.as_str()));
    assert_eq!(control.images_in_use().await.unwrap(), [world::image(1)]);
}

#[tokio::test]
async fn host_what_runs_and_nobody_wants_is_destroyed_at_start() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, group(1))).await;
    control.close().await;
    drop(control);
    tokio::time::sleep(Duration::from_millis(20)).await;
    std::fs::remove_file(world.directory.path().join("kiln.db")).unwrap();
    let _control = world.open().await;
    until("it is gone", async || world.engine.servers().is_empty()).await;
}

#[tokio::test]
async fn host_a_plan_is_told_and_nothing_is_done() {
    let world = World::new(quick());
    let control = world.open().await;
    let steps = control.plan_only(wanted(1, group(2))).await.unwrap();
    assert!(world.engine.deeds().is_empty() && control.status().await.unwrap().groups.is_empty());
    let words: Vec<_> = steps
        .iter()
        .map(|event| match event {
            kiln_api::Event::Step { action, reason, .. } if reason.len() > 10 => action.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(words, ["launch", "route", "route", "done"]);
    up(&control, wanted(1, group(2))).await;
    let steps = control.plan_only(wanted(2, group(2))).await.unwrap();
    assert!(steps.len() > 8, "{steps:?}");
    assert_eq!(running(&world.engine, release(1)), 2);
}

#[tokio::test]
async fn host_another_port_is_bound_before_the_change_is_done() {
    let world = World::new(quick());
    let control = world.open().await;
    up(&control, wanted(1, group(2))).await;
    let before = world.engine.deeds();
    let mut moved = group(2);
    moved.publish[0].listen = 9090;
    let settled = up(&control, wanted(1, moved.clone())).await;
    assert_eq!((settled.outcome, settled.endpoints), (Ok(()), vec!["http://127.0.0.1:9090".to_owned()]));
    assert_eq!(world.gate.table.lock().unwrap().routes[0].listen, 9090);
    world.gate.taken.lock().unwrap().push(7070);
    moved.publish[0].listen = 7070;
    let settled = up(&control, wanted(1, moved)).await;
    assert!(matches!(&settled.outcome, Err(Unsettled::Failed { reason }) if reason.contains("7070")), "{settled:?}");
    assert_eq!(world.engine.deeds(), before, "no server was touched for that");
}

#[tokio::test]
async fn host_a_group_asked_for_again_while_it_leaves_comes_back() {
    let world = World::new(quick());
    *world.gate.drain.lock().unwrap() = Duration::from_millis(200);
    let control = world.open().await;
    up(&control, wanted(1, group(2))).await;
    let (down, settled) = tokio::join!(control.down(&[]), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        up(&control, wanted(2, group(2))).await
    });
    assert!(matches!(down, Err(kiln_control::ControlError::Superseded(_))), "{down:?}");
    assert_eq!(settled.outcome, Ok(()));
    until("only the new ones are left", async || world.engine.servers().len() == 2).await;
}

#[tokio::test]
async fn host_state_of_a_newer_kiln_is_refused() {
    let world = World::new(quick());
    let control = world.open().await;
    control.close().await;
    let file = rusqlite::Connection::open(world.directory.path().join("kiln.db")).unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    let engine = std::sync::Arc::new(world.engine.clone());
    let opened = kiln_control::Control::open(world.options(), engine, world.shelf.clone(), world.gate.clone()).await;
    assert!(matches!(opened, Err(kiln_control::ControlError::Db(kiln_control::DbError::TooNew { found: 99, .. }))));
}

/// A group of two that follows revocations as the fleet says, brought to image 1 and then to image 2.
async fn on_image_two(world: &World, control: &kiln_control::Control, on_revoked: OnRevoked) -> kiln_model::Group {
    let group = kiln_model::Group { on_revoked, ..group(2) };
    up(control, wanted(1, group.clone())).await;
    up(control, wanted(2, group.clone())).await;
    until("the old ones are gone", async || world.engine.servers().len() == 2).await;
    group
}

async fn revoke(world: &World, control: &kiln_control::Control, n: u8) {
    world.shelf.revoked.lock().unwrap().push(world::image(n));
    control.look_again().await.unwrap();
}

#[tokio::test]
async fn host_a_group_leaves_a_revoked_image_for_the_latest_release_with_good_evidence() {
    let world = World::new(quick());
    let control = world.open().await;
    let group = on_image_two(&world, &control, OnRevoked::Replace).await;
    up(&control, wanted(3, group)).await;
    // The release before was revoked as well: it is passed over.
    revoke(&world, &control, 2).await;
    revoke(&world, &control, 3).await;
    until("the revoked ones are gone", async || {
        world.engine.servers().len() == 2 && running(&world.engine, release(1)) == 2
    })
    .await;
    assert_eq!(world::settle(&control).await.outcome, Ok(()));
    assert_eq!(world.gate.fewest_since(2), 2, "traffic never noticed");
    let status = control.status().await.unwrap();
    assert_eq!((status.groups[0].image.clone(), status.groups[0].refused.len()), (world::image(1).to_string(), 0));
    // A daemon that comes later goes on like this.
    control.close().await;
    let control = world.open().await;
    assert_eq!(world::settle(&control).await.outcome, Ok(()));
    assert_eq!(running(&world.engine, release(1)), 2);
}

#[tokio::test]
async fn host_servers_of_a_revoked_image_run_on_where_the_fleet_says_so_and_are_named_and_not_healed() {
    let world = World::new(quick());
    let control = world.open().await;
    on_image_two(&world, &control, OnRevoked::Keep).await;
    revoke(&world, &control, 2).await;
    let group = control.status().await.unwrap().groups.remove(0);
    let refused = &group.refused[0];
    assert_eq!((refused.code.as_str(), refused.servers.len()), ("revoked", 2), "{refused:?}");
    assert!(refused.reason.contains("was revoked on this host (a hole)"), "{refused:?}");
    world.engine.kill(&world.engine.running()[0].server.clone());
    until("one is gone", async || world.engine.servers().len() == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(running(&world.engine, release(2)), 1, "nothing is launched of it");
}

#[tokio::test]
async fn host_a_group_without_a_good_release_stays_and_says_so() {
    let world = World::new(quick());
    let control = world.open().await;
    on_image_two(&world, &control, OnRevoked::Replace).await;
    let mut events = control.subscribe();
    revoke(&world, &control, 1).await;
    revoke(&world, &control, 2).await;
    let warned = async {
        loop {
            if let kiln_api::Event::Warning { message } = events.recv().await.unwrap() {
                return message;
            }
        }
    };
    let message = tokio::time::timeout(Duration::from_secs(5), warned).await.unwrap();
    assert!(message.contains("no earlier one has good evidence"), "{message}");
    assert_eq!(running(&world.engine, release(2)), 2);
    assert_eq!(control.status().await.unwrap().groups[0].refused[0].code, "revoked");
}
