//! Sources that change, say nonsense or are away, through the whole daemon and with a real ZooKeeper.

use std::{
    fs,
    time::{Duration, Instant},
};

use kiln_api::{
    Event,
    request::{ApplyRequest, Loss, RebuildRequest, RollbackRequest},
    status::{GroupStatus, SourcesStatus},
};
use kiln_model::{
    ImageDigest,
    config::{ConfigSource, Registry},
    fleet::OnSourceChange,
    suite::{Test, TestKind},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    bench::{Bench, assert_ok, endpoint},
    config::{apply, configured, files_with, reused, text, with},
    registry::{ZooKeeper, login},
};

/// The group's greeting and workers come from ZooKeeper.
fn sourced(image: ImageDigest, zookeeper: &ZooKeeper, policy: OnSourceChange) -> ApplyRequest {
    let values = [("greeting", zookeeper.source("/greeting")), ("workers", zookeeper.source("/workers"))];
    following(with(image, &values), policy)
}

fn following(mut request: ApplyRequest, policy: OnSourceChange) -> ApplyRequest {
    request.fleet.groups.values_mut().for_each(|group| group.on_source_change = policy);
    request
}

fn prepared() -> ZooKeeper {
    let zookeeper = ZooKeeper::new();
    zookeeper.kazoo("zk.create('/greeting', b'hello'); zk.create('/workers', b'2')");
    zookeeper
}

fn sources(group: &GroupStatus) -> &SourcesStatus {
    group.sources.as_ref().unwrap_or_else(|| panic!("{group:#?}"))
}

fn stands(group: &GroupStatus, key: &str, state: &str) -> bool {
    group.sources.iter().flat_map(|sources| &sources.values).any(|value| value.key == key && value.state == state)
}

fn state(group: &GroupStatus) -> &str {
    group.sources.as_ref().map_or("", |sources| sources.state.as_str())
}

fn ids(group: &GroupStatus) -> Vec<String> {
    group.servers.iter().filter(|server| server.state == "ready").map(|server| server.id.clone()).collect()
}

/// Kills one server as `kill -9` does, and waits until there are three again without it.
async fn heals(bench: &Bench) {
    let victim = bench.group().await.servers.into_iter().find(|server| server.state == "ready").unwrap();
    kill_process(Pid::from_raw(victim.pid.unwrap() as i32).unwrap(), Signal::KILL).unwrap();
    let healed = |group: &GroupStatus| group.ready == 3 && !ids(group).contains(&victim.id);
    bench.until("it heals", healed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_changed_node_becomes_a_tested_release_and_a_wrong_value_a_state() {
    let (mut bench, zookeeper) = (Bench::new().await, prepared());
    let image = bench.image("one", "unused", configured);
    let (last, _) = apply(&bench, &sourced(image, &zookeeper, OnSourceChange::Rollout)).await;
    assert_ok(&last);
    let at = endpoint(&last);
    assert_eq!(bench.page(&at).await, "hello ");
    let first = bench.until("it is compared", |group| state(group) == "same").await;
    assert!(stands(&first, "greeting", "fresh") && stands(&first, "workers", "fresh"), "{first:#?}");

    let mut events = bench.client.events().await.unwrap();
    zookeeper.kazoo("zk.set('/greeting', b'good evening')");
    let second = bench.until("it is rolled out", |group| state(group) == "rolled_out").await;
    assert_eq!(bench.page(&at).await, "good evening ");
    assert!(ids(&second).len() == 3 && ids(&second).iter().all(|id| !ids(&first).contains(id)), "{second:#?}");
    assert_eq!(sources(&second).config.as_ref(), Some(&second.config));
    let mut seen = Vec::new();
    while !matches!(seen.last(), Some(Event::SourcesChanged { state, .. }) if state == "rolled_out") {
        let next = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
        seen.push(next.expect("the change is told").unwrap().unwrap());
    }
    assert_eq!(reused(&seen), [false], "it was tested before it was rolled out");

    zookeeper.kazoo("zk.set('/workers', b'many')");
    let wrong = bench.until("it is wrong", |group| stands(group, "workers", "wrong")).await;
    assert!(sources(&wrong).reason.contains("`workers` must be a whole number"), "{wrong:#?}");
    assert_eq!((state(&wrong), ids(&wrong)), ("failed", ids(&second)), "nothing was changed");
    zookeeper.kazoo("zk.set('/workers', b'\\xff\\xff')");
    let no_text = |group: &GroupStatus| format!("{:?}", group.sources).contains("the value is not text: byte 0");
    let wrong = bench.until("it is no text", no_text).await;
    assert_eq!((state(&wrong), ids(&wrong)), ("waiting", ids(&second)), "nothing was changed");
    zookeeper.kazoo("zk.set('/workers', b'2')");
    bench.until("it is good again", |group| stands(group, "workers", "fresh") && state(group) == "same").await;

    bench.kill_and_restart().await;
    let after = bench.until("it is compared again", |group| state(group) == "same").await;
    assert_eq!(ids(&after), ids(&second), "a restart changes nothing");

    let rolled = bench
        .client
        .rollback(&RollbackRequest { group: "web".parse().unwrap(), with_data: false, loss: Loss::Refuse })
        .await
        .unwrap();
    assert_ok(&rolled.finish(|_| ()).await.unwrap());
    bench.until("it is declined", |group| state(group) == "declined").await;
    bench.kill_and_restart().await;
    let back = bench.until("it is declined after a restart", |group| state(group) == "declined").await;
    assert_eq!((bench.page(&at).await.as_str(), &back.release), ("hello ", &first.release));
    zookeeper.kazoo("zk.set('/greeting', b'good night')");
    bench.until("another value is rolled out", |group| state(group) == "rolled_out").await;
    assert_eq!(bench.page(&at).await, "good night ");
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_change_of_a_source_waits_for_a_change_window() {
    let (mut bench, zookeeper) = (Bench::new().await, prepared());
    let image = bench.image("one", "unused", configured);
    let mut wanted = sourced(image, &zookeeper, OnSourceChange::Rollout);
    let web = wanted.fleet.groups.values_mut().next().unwrap();
    web.windows.closed = vec!["2000-01-01/2999-12-31".parse().unwrap()];
    let (last, _) = apply(&bench, &wanted).await;
    assert_ok(&last);
    let first = bench.until("it is compared", |group| state(group) == "same").await;
    zookeeper.kazoo("zk.set('/greeting', b'good evening')");
    let waits =
        |group: &GroupStatus| format!("{:?}", group.sources).contains("none of the group's change windows is open");
    let second = bench.until("it waits", waits).await;
    assert_eq!((state(&second), ids(&second)), ("waiting", ids(&first)));
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_with_the_registry_away_servers_are_replaced_from_the_frozen_configuration() {
    let (mut bench, mut zookeeper) = (Bench::new().await, prepared());
    let image = bench.image("one", "unused", configured);
    let wanted = sourced(image, &zookeeper, OnSourceChange::Rollout);
    let (last, _) = apply(&bench, &wanted).await;
    assert_ok(&last);
    let at = endpoint(&last);
    let first = bench.until("it is compared", |group| state(group) == "same").await;

    zookeeper.process.kill();
    let away = bench.until("it is away", |group| stands(group, "greeting", "away")).await;
    assert_eq!((state(&away), &away.release, ids(&away)), ("waiting", &first.release, ids(&first)));
    heals(&bench).await;
    bench.kill_and_restart().await;
    heals(&bench).await;
    let rebuilt = bench.client.rebuild(&RebuildRequest::group("web".parse().unwrap())).await.unwrap();
    assert_ok(&rebuilt.finish(|_| ()).await.unwrap());
    assert_eq!((bench.page(&at).await.as_str(), bench.group().await.release), ("hello ", first.release.clone()));
    let (refused, _) = apply(&bench, &wanted).await;
    assert_away(&refused, "no server can be reached");
    bench.until("it is away for the new daemon, too", |group| stands(group, "greeting", "away")).await;

    zookeeper.process.start();
    bench.until("it is back", |group| state(group) == "same").await;
    zookeeper.process.signal(Signal::STOP);
    let (refused, _) = apply(&bench, &wanted).await;
    assert_away(&refused, "no answer within 10s");
    heals(&bench).await;
    zookeeper.process.signal(Signal::CONT);
    zookeeper.kazoo("zk.set('/greeting', b'good evening')");
    bench.until("it is rolled out", |group| state(group) == "rolled_out").await;
    assert_eq!(bench.page(&at).await, "good evening ");
    bench.purge().await;
}

fn assert_away(result: &Event, expected: &str) {
    let Event::Result { error: Some(error), .. } = result else { panic!("{result:#?}") };
    assert!(error.message.contains(expected), "{error:?}");
    assert!(error.help.as_deref().is_some_and(|help| help.starts_with("nothing was changed")), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_registry_that_ends_during_a_test_or_a_rollout_is_not_missed() {
    let (mut bench, mut zookeeper) = (Bench::new().await, prepared());
    let image = bench.image("one", "unused", |manifest, suite| {
        configured(manifest, suite);
        suite.tests.push(slow());
    });
    let mut wanted = sourced(image, &zookeeper, OnSourceChange::Rollout);
    wanted.fleet.groups.values_mut().for_each(|group| group.rollout.min_healthy_time = Duration::from_secs(1));
    let mut stream = bench.client.apply(&wanted).await.unwrap();
    let mut last = None;
    while let Some(event) = stream.next().await.unwrap() {
        if matches!(event, Event::TestServerReady { .. }) {
            zookeeper.process.kill();
        }
        last = Some(event);
    }
    let last = last.unwrap();
    assert_ok(&last);
    let at = endpoint(&last);
    assert_eq!(bench.page(&at).await, "hello ");

    zookeeper.process.start();
    bench.until("it is compared", |group| state(group) == "same").await;
    zookeeper.kazoo("zk.set('/greeting', b'good evening')");
    let under_way = |group: &GroupStatus| group.rollout.as_ref().is_some_and(|rollout| rollout.state == "running");
    let proposed = bench.until("it is under way", under_way).await;
    assert_eq!(state(&proposed), "proposed");
    zookeeper.process.kill();
    let away = bench.until("it is away", |group| stands(group, "greeting", "away")).await;
    assert!(!away.servers.is_empty());
    bench.until("the rollout goes on to its end", |group| group.rollout.is_none() && group.ready == 3).await;
    assert_eq!(bench.page(&at).await, "good evening ");
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_apply_during_a_proposal_wins_and_leaves_no_test_server() {
    let (mut bench, _zookeeper, _) = proposing().await;
    let quick = bench.image("two", "unused", configured);
    let (last, _) = apply(&bench, &with(quick, &[("greeting", text("written down"))])).await;
    assert_ok(&last);
    let start = Instant::now();
    let under_test = async || {
        let host = bench.client.host().await.unwrap();
        host.items.iter().any(|item| item.server.as_deref().is_some_and(|server| server.starts_with("test-")))
    };
    assert!(under_test().await, "the proposal's tests go on to their end");
    while under_test().await {
        assert!(start.elapsed() < Duration::from_secs(20), "test servers are left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let group = bench.group().await;
    assert_eq!(
        (bench.page(&endpoint(&last)).await.as_str(), group.sources, group.rollout),
        ("written down ", None, None)
    );
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_daemon_killed_during_a_proposal_makes_it_again() {
    let (mut bench, _zookeeper, at) = proposing().await;
    bench.kill_and_restart().await;
    let moving = |group: &GroupStatus| group.rollout.as_ref().is_some_and(|rollout| rollout.state == "running");
    bench.until("it is rolled out", moving).await;
    bench.kill_and_restart().await;
    let there = |group: &GroupStatus| group.rollout.is_none() && group.ready == 3 && state(group) == "same";
    let group = bench.until("it is there", there).await;
    assert_eq!(
        (bench.page(&at).await.as_str(), group.servers.iter().filter(|s| s.state == "ready").count()),
        ("good evening ", 3)
    );
    bench.purge().await;
}

/// A group whose node was just changed: the new release is under test. The endpoint too.
async fn proposing() -> (Bench, ZooKeeper, String) {
    let (bench, zookeeper) = (Bench::new().await, prepared());
    let image = bench.image("one", "unused", |manifest, suite| {
        configured(manifest, suite);
        suite.tests.push(slow());
    });
    let (last, _) = apply(&bench, &sourced(image, &zookeeper, OnSourceChange::Rollout)).await;
    assert_ok(&last);
    bench.until("it is compared", |group| state(group) == "same").await;
    zookeeper.kazoo("zk.set('/greeting', b'good evening')");
    bench.until("it is proposed", |group| state(group) == "proposed").await;
    (bench, zookeeper, endpoint(&last))
}

fn slow() -> Test {
    let command = ["/bin/sleep", "1"].map(str::to_owned).to_vec();
    let kind = TestKind::Command { command, user: "root".into(), exit: 0, stdout: Vec::new(), stderr: Vec::new() };
    Test { name: "slow".to_owned(), within: Duration::from_secs(10), kind }
}

const PASSWORD: &str = "tops3cret-of-the-registry";

#[tokio::test(flavor = "multi_thread")]
async fn root_a_group_that_only_reports_and_a_password_that_is_only_sealed() {
    let (mut bench, zookeeper) = (Bench::new().await, ZooKeeper::new());
    zookeeper.kazoo(&format!(
        "zk.create('/greeting', b'hello', acl=[make_digest_acl('kiln', '{PASSWORD}', read=True, write=True)]); \
         zk.add_auth('digest', 'kiln:{PASSWORD}')"
    ));
    let image = bench.image("one", "unused", configured);
    let registry = Registry { login: login("kiln", PASSWORD), ..zookeeper.registry("/greeting") };
    fs::write(bench.directory.path().join("password"), "first secret").unwrap();
    let values =
        [("greeting", ConfigSource::Zookeeper(registry)), ("password", ConfigSource::File("password".to_owned()))];
    let mut wanted = following(with(image, &values), OnSourceChange::Report);
    wanted.directory = bench.directory.path().to_owned();
    let (last, _) = apply(&bench, &wanted).await;
    assert_ok(&last);
    let first = bench.until("it is compared", |group| state(group) == "same").await;

    let set = format!("zk.add_auth('digest', 'kiln:{PASSWORD}'); zk.set('/greeting', b'good evening')");
    zookeeper.kazoo(&set);
    fs::write(bench.directory.path().join("password"), "second secret").unwrap();
    let reported = bench.until("it is reported", |group| state(group) == "reported").await;
    assert_eq!((&reported.release, ids(&reported)), (&first.release, ids(&first)), "nothing is changed");
    assert!(sources(&reported).config.is_some());
    bench.kill_and_restart().await;
    bench.until("the password was kept", |group| state(group) == "reported").await;
    let all = bench.directory.path().join("state");
    for secret in [PASSWORD, "first secret", "second secret"] {
        assert_eq!(files_with(&all, secret.as_bytes()), Vec::<String>::new(), "{secret}");
    }

    let (last, _) = apply(&bench, &wanted).await;
    assert_ok(&last);
    assert_eq!(bench.page(&endpoint(&last)).await, "good evening ");
    bench.until("it is what the sources say", |group| state(group) == "same").await;
    let (last, _) = apply(&bench, &with(image, &[("greeting", text("written down"))])).await;
    assert_ok(&last);
    bench.until("nothing is watched any more", |group| group.sources.is_none()).await;
    bench.purge().await;
}
