//! The suite that every engine must pass: what `control` relies on.
//!
//! An engine is handed to it by a [`Factory`], with a release and a manifest that really start on that engine; each check
//! gets its own engine and cleans up behind itself. A check that fails panics with what was expected. Run it from a
//! test: `kiln_testkit::conformance::run(&factory).await`.

use std::{sync::Arc, time::Duration};

use kiln_engine::{Engine, EngineError, LaunchSpec, Observed, Phase, StopOutcome, Times};
use kiln_model::{GroupName, ImageManifest, ServerId, VerifiedRelease, fleet::Limits};
use tokio::time::{Instant, sleep, timeout};

/// Makes engines, and knows something that starts on them.
#[async_trait::async_trait]
pub trait Factory: Sync {
    /// An engine with nothing on it.
    async fn engine(&self) -> Arc<dyn Engine>;
    /// The same engine as seen by a daemon that was restarted: new handles, the same servers.
    async fn reopened(&self, engine: Arc<dyn Engine>) -> Arc<dyn Engine>;
    /// A release that starts and keeps running.
    fn release(&self) -> VerifiedRelease;
    /// Its manifest.
    fn manifest(&self) -> Arc<ImageManifest>;
    /// Ends a server's PID 1 from outside, as a crash would.
    async fn kill(&self, engine: &Arc<dyn Engine>, server: &Observed);
    /// How long the engine may take until `observe` shows a change.
    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// Runs every check, one after another.
pub async fn run(factory: &dyn Factory) {
    launch_is_idempotent(factory).await;
    an_older_generation_is_refused(factory).await;
    observe_shows_all_that_exists(factory).await;
    a_stop_ends_the_server_and_keeps_its_remains(factory).await;
    destroy_is_idempotent(factory).await;
    a_running_server_can_be_destroyed(factory).await;
    a_restarted_daemon_finds_its_servers(factory).await;
    a_launch_may_be_asked_again_after_its_answer_was_lost(factory).await;
    a_server_that_ended_by_itself_is_seen(factory).await;
    a_server_that_is_killed_is_seen_as_one_that_was(factory).await;
    launches_run_side_by_side(factory).await;
    commands_run_inside(factory).await;
    processor_time_is_told_from_outside(factory).await;
    what_is_held_when_it_is_ready_goes_on(factory).await;
}

/// A server to launch.
fn spec(factory: &dyn Factory, name: &str, generation: u64) -> LaunchSpec {
    LaunchSpec {
        server: id(name),
        generation,
        group: Some(group()),
        slot: None,
        manifest: factory.manifest(),
        limits: Limits::default(),
        secrets: Arc::default(),
        volumes: Vec::new(),
        shared: Vec::new(),
        times: Times::default(),
    }
}

fn id(name: &str) -> ServerId {
    format!("suite-{name}").parse().expect("check names are valid ids")
}

fn group() -> GroupName {
    "suite".parse().expect("a valid group name")
}

async fn begin(factory: &dyn Factory) -> Arc<dyn Engine> {
    let engine = factory.engine().await;
    engine.prepare(factory.release().release().image).await.expect("prepare");
    engine.prepare(factory.release().release().image).await.expect("prepare is idempotent");
    engine
}

async fn launch(factory: &dyn Factory, engine: &Arc<dyn Engine>, name: &str) -> Observed {
    engine.launch(&factory.release(), &spec(factory, name, 1)).await.expect("launch")
}

async fn see(engine: &Arc<dyn Engine>, server: &ServerId) -> Option<Observed> {
    let all = engine.observe().await.expect("observe");
    assert!(all.iter().filter(|seen| seen.server == *server).count() <= 1, "{server} is seen twice");
    all.into_iter().find(|seen| seen.server == *server)
}

/// Waits until the engine sees a server as it should be.
async fn until(
    factory: &dyn Factory,
    engine: &Arc<dyn Engine>,
    server: &ServerId,
    what: &str,
    good: impl Fn(Option<&Observed>) -> bool,
) {
    let deadline = Instant::now() + factory.patience();
    loop {
        let seen = see(engine, server).await;
        if good(seen.as_ref()) {
            return;
        }
        assert!(Instant::now() < deadline, "{server} should be {what}, but is {seen:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn destroy(factory: &dyn Factory, engine: &Arc<dyn Engine>, server: &ServerId) {
    engine.destroy(server, u64::MAX).await.expect("destroy");
    until(factory, engine, server, "gone", |seen| seen.is_none()).await;
}

async fn launch_is_idempotent(factory: &dyn Factory) {
    let engine = begin(factory).await;
    let first = launch(factory, &engine, "twice").await;
    let second = launch(factory, &engine, "twice").await;
    assert_eq!((first.pid, first.address), (second.pid, second.address), "a repeated launch returns the same server");
    assert_eq!(first.phase, Phase::Running, "launch returns when PID 1 runs");
    assert_eq!(first.release, factory.release().release().id());
    assert_eq!(first.group, Some(group()));
    destroy(factory, &engine, &first.server).await;
}

async fn an_older_generation_is_refused(factory: &dyn Factory) {
    let engine = begin(factory).await;
    let release = factory.release();
    let newer = engine.launch(&release, &spec(factory, "stale", 7)).await.expect("launch");
    let stale = |error: &EngineError| matches!(error, EngineError::Stale { asked: 6, known: 7, .. });
    let older = engine.launch(&release, &spec(factory, "stale", 6)).await.expect_err("an older launch");
    assert!(stale(&older), "{older}");
    let older = engine.destroy(&newer.server, 6).await.expect_err("an older destroy");
    assert!(stale(&older), "{older}");
    let older = engine.stop(&newer.server, 6, Duration::from_secs(5)).await.expect_err("an older stop");
    assert!(stale(&older), "{older}");
    until(factory, &engine, &newer.server, "untouched", |seen| seen.is_some_and(|s| s.phase == Phase::Running)).await;
    destroy(factory, &engine, &newer.server).await;
}

async fn observe_shows_all_that_exists(factory: &dyn Factory) {
    let engine = begin(factory).await;
    let names = ["all-a", "all-b", "all-c"];
    for name in names {
        let launched = launch(factory, &engine, name).await;
        until(factory, &engine, &launched.server, "seen", |seen| {
            seen.is_some_and(|s| s.generation == 1 && s.image == factory.release().release().image)
        })
        .await;
    }
    let seen = engine.observe().await.expect("observe");
    assert!(names.iter().all(|name| seen.iter().any(|s| s.server == id(name))), "the full set: {seen:?}");
    let some = [id("all-a"), id("all-c"), id("never-was")].into();
    let mut some = engine.observe_some(&some).await.expect("observe some");
    some.sort_by(|one, other| one.server.cmp(&other.server));
    let expected: Vec<&Observed> = seen.iter().filter(|s| s.server == id("all-a") || s.server == id("all-c")).collect();
    assert_eq!(some.iter().collect::<Vec<_>>(), expected, "the same of those that were asked for");
    for name in names {
        destroy(factory, &engine, &id(name)).await;
    }
}

async fn a_stop_ends_the_server_and_keeps_its_remains(factory: &dyn Factory) {
    let engine = begin(factory).await;
    let server = launch(factory, &engine, "stop").await.server;
    let outcome = engine.stop(&server, 1, Duration::from_secs(10)).await.expect("stop");
    assert_ne!(outcome, StopOutcome::AlreadyGone);
    until(factory, &engine, &server, "exited", |seen| seen.is_some_and(|s| matches!(s.phase, Phase::Exited { .. })))
        .await;
    let again = engine.stop(&server, 1, Duration::from_secs(10)).await.expect("a second stop");
    assert_eq!(again, StopOutcome::AlreadyGone);
    destroy(factory, &engine, &server).await;
}

async fn destroy_is_idempotent(factory: &dyn Factory) {
    let engine = begin(factory).await;
    engine.destroy(&id("never-was"), 1).await.expect("destroying an unknown server is a success");
    let server = launch(factory, &engine, "destroy").await.server;
    engine.stop(&server, 1, Duration::from_secs(10)).await.expect("stop");
    destroy(factory, &engine, &server).await;
    engine.destroy(&server, 1).await.expect("a second destroy");
}

async fn a_running_server_can_be_destroyed(factory: &dyn Factory) {
    let engine = begin(factory).await;
    let server = launch(factory, &engine, "destroy-running").await.server;
    destroy(factory, &engine, &server).await;
}

async fn a_restarted_daemon_finds_its_servers(factory: &dyn Factory) {
    let engine = begin(factory).await;
    let before = launch(factory, &engine, "adopt").await;
    let engine = factory.reopened(engine).await;
    until(factory, &engine, &before.server, "found", |seen| {
        seen.is_some_and(|s| s.phase == Phase::Running && s.pid == before.pid && s.address == before.address)
    })
    .await;
    let outcome = engine.stop(&before.server, 1, Duration::from_secs(10)).await.expect("stop after a restart");
    assert_ne!(outcome, StopOutcome::AlreadyGone);
    destroy(factory, &engine, &before.server).await;
}

async fn a_launch_may_be_asked_again_after_its_answer_was_lost(factory: &dyn Factory) {
    let engine = begin(factory).await;
    let spec = spec(factory, "lost", 1);
    {
        // The caller gives up at once; what it asked for may happen or not.
        let release = factory.release();
        let call = engine.launch(&release, &spec);
        timeout(Duration::from_micros(50), call).await.ok();
    }
    let engine = factory.reopened(engine).await;
    let launched = engine.launch(&factory.release(), &spec).await.expect("asked again");
    assert_eq!(launched.phase, Phase::Running);
    until(factory, &engine, &launched.server, "there once", |seen| seen.is_some()).await;
    destroy(factory, &engine, &launched.server).await;
}

async fn a_server_that_ended_by_itself_is_seen(factory: &dyn Factory) {
    let engine = begin(factory).await;
    let server = launch(factory, &engine, "dies").await;
    let mut hints = engine.hints();
    factory.kill(&engine, &server).await;
    until(factory, &engine, &server.server, "exited", |seen| {
        seen.is_some_and(|s| matches!(&s.phase, Phase::Exited { reason, .. } if !reason.is_empty()))
    })
    .await;
    let hint = timeout(factory.patience(), hints.recv()).await;
    assert!(hint.is_ok_and(|hint| hint.is_ok()), "the end of a server sends a hint");
    destroy(factory, &engine, &server.server).await;
}

async fn a_server_that_is_killed_is_seen_as_one_that_was(factory: &dyn Factory) {
    let engine = begin(factory).await;
    let Some(killing) = engine.killing() else { return };
    let server = launch(factory, &engine, "drilled").await;
    let unknown = killing.kill(&id("never-was"), 1).await;
    assert!(matches!(unknown, Err(EngineError::Unknown { .. })), "{unknown:?}");
    let stale = killing.kill(&server.server, 0).await;
    assert!(matches!(stale, Err(EngineError::Stale { .. })), "{stale:?}");
    killing.kill(&server.server, server.generation).await.expect("kill");
    until(factory, &engine, &server.server, "killed", |seen| {
        seen.is_some_and(|s| matches!(&s.phase, Phase::Exited { killed: true, .. }))
    })
    .await;
    killing.kill(&server.server, server.generation).await.expect("kill again");
    destroy(factory, &engine, &server.server).await;
}

async fn launches_run_side_by_side(factory: &dyn Factory) {
    let engine = begin(factory).await;
    let release = factory.release();
    let specs: Vec<LaunchSpec> = (0..5).map(|n| spec(factory, &format!("many-{n}"), 1)).collect();
    let launches = futures::future::join_all(specs.iter().map(|spec| engine.launch(&release, spec))).await;
    let mut addresses: Vec<_> = launches.into_iter().map(|launched| launched.expect("launch").address).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 5, "each server has its own address");
    for spec in &specs {
        destroy(factory, &engine, &spec.server).await;
    }
}

async fn commands_run_inside(factory: &dyn Factory) {
    let engine = begin(factory).await;
    let server = launch(factory, &engine, "inside").await.server;
    if let Some(inside) = engine.inside() {
        let exec = async |command: &[&str]| {
            let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
            inside.exec(&server, &command, "root", Duration::from_secs(10), 4096).await.expect("exec")
        };
        assert_eq!(exec(&["/bin/sh", "-c", "exit 7"]).await.exit, 7);
        assert_eq!(exec(&["/bin/echo", "hello"]).await.stdout, b"hello\n");
        let gone = inside.exec(&id("never-was"), &["/bin/true".to_owned()], "root", Duration::from_secs(1), 16).await;
        assert!(matches!(gone, Err(EngineError::Unknown { .. })), "{gone:?}");
    }
    destroy(factory, &engine, &server).await;
}

async fn processor_time_is_told_from_outside(factory: &dyn Factory) {
    let engine = begin(factory).await;
    let server = launch(factory, &engine, "metered").await.server;
    if let Some(meters) = engine.meters() {
        let first = meters.processor_time(&group()).await.expect("processor time");
        assert_eq!(first.keys().collect::<Vec<_>>(), [&server], "of every server of the group, and of no other");
        sleep(Duration::from_millis(20)).await;
        let then = meters.processor_time(&group()).await.expect("processor time");
        assert!(then[&server] >= first[&server], "it only grows: {first:?}, {then:?}");
        let other = meters.processor_time(&"another".parse().expect("a valid group name")).await;
        assert!(other.expect("processor time").is_empty(), "another group has none");
    }
    destroy(factory, &engine, &server).await;
}

async fn what_is_held_when_it_is_ready_goes_on(factory: &dyn Factory) {
    let engine = begin(factory).await;
    let Some(holding) = engine.holding() else { return };
    let (release, first, second) = (factory.release(), spec(factory, "held", 1), spec(factory, "held-too", 1));
    for spec in [&first, &second] {
        let warm = holding.warm(&release, spec).await.expect("warm");
        assert_eq!(holding.warm(&release, spec).await.expect("warm again").pid, warm.pid, "it is the same server");
        holding.freeze(&spec.server, 1).await.expect("freeze");
        holding.freeze(&spec.server, 1).await.expect("freeze again");
    }
    let seen = engine.observe().await.expect("observe");
    let held: Vec<&Observed> = seen.iter().filter(|seen| seen.server == first.server).collect();
    assert!(held.len() == 1 && held[0].phase == Phase::Running, "{seen:?}");
    let taken = engine.launch(&release, &first).await.expect("take");
    assert_eq!((taken.pid, taken.address), (held[0].pid, held[0].address), "it is the process that waited");
    if let Some(inside) = engine.inside() {
        let command = ["/bin/echo".to_owned(), "on".to_owned()];
        let said = inside.exec(&first.server, &command, "root", Duration::from_secs(10), 16).await.expect("exec");
        assert_eq!(said.stdout, b"on\n", "it goes on");
    }
    let stopped = timeout(factory.patience(), engine.stop(&second.server, 1, Duration::from_secs(5))).await;
    assert_eq!(stopped.expect("a stop in time").expect("stop"), StopOutcome::Clean, "what is held can be asked to end");
    for spec in [&first, &second] {
        destroy(factory, &engine, &spec.server).await;
    }
    holding.warm(&release, &first).await.expect("warm");
    holding.freeze(&first.server, 1).await.expect("freeze");
    destroy(factory, &engine, &first.server).await;
}
