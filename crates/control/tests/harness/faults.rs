//! Tests and services that misbehave: everything ends, in time and with a reason.

use std::time::{Duration, Instant};

use kiln_model::{
    evidence::Verdict,
    manifest::{Readiness, Restart, Service, ServiceCheck},
    suite::TestKind,
};

use crate::bench::{Bench, failure, image, outcome, shell, test, web};

const IDLE: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done";

fn command(script: &str) -> TestKind {
    TestKind::Command {
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        user: "root".into(),
        exit: 0,
        stdout: Vec::new(),
        stderr: Vec::new(),
    }
}

fn script(content: &str) -> TestKind {
    TestKind::Script {
        file: "check.sh".into(),
        content: format!("#!/bin/sh\n{content}\n"),
        arguments: Vec::new(),
        secrets: Default::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_test_that_hangs_ends_at_its_limit() {
    let bench = Bench::new();
    let start = Instant::now();
    let marker = "8251723";
    let tests = vec![
        test("command", command("sleep 1000")),
        test("script", script(&format!("setsid sleep {marker} & sleep {marker}"))),
        test(
            "silent",
            TestKind::Tcp { port: 8080, send: None, expect: Some(kiln_model::suite::TextMatch::Contains("x".into())) },
        ),
    ];
    let run = bench.run(web(), tests).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(failure(&run.report, "silent"), "it did not end (tried for 1200ms)");
    let seen = failure(&run.report, "script");
    assert!(seen.contains("check.sh did not end within ") && seen.contains("and was killed"), "{seen}");
    assert_eq!(failure(&run.report, "command"), "it did not end (tried for 1200ms)");
    let left = std::process::Command::new("pgrep").args(["-f", &format!("sleep {marker}")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "the script's processes are gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_service_that_never_gets_ready_fails_the_suite_and_its_tests_are_not_run() {
    let bench = Bench::new();
    let readiness = Readiness { check: ServiceCheck::Tcp { port: 9 }, within: Duration::from_millis(300) };
    let manifest = image(Service { readiness: Some(readiness), ..shell(IDLE) });
    let run = bench.run(manifest, vec![test("page", command("true"))]).await;
    let seen = failure(&run.report, "kiln/services-ready");
    assert!(seen.contains("service `main` was not ready: could not connect to") && seen.contains("300ms"), "{seen}");
    assert!(failure(&run.report, "page").starts_with("not run: service `main`"));
    assert_eq!(run.ready, None);
    assert_eq!(outcome(&run.report, "kiln/clean-stop").verdict, Verdict::Passed);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_service_that_exits_at_once_fails_at_once() {
    let bench = Bench::new();
    let readiness = Readiness { check: ServiceCheck::Tcp { port: 9 }, within: Duration::from_secs(30) };
    let service = Service { readiness: Some(readiness), restart: Restart::Never, ..shell("echo broken >&2; exit 3") };
    let run = bench.run(image(service), Vec::new()).await;
    assert!(run.took < Duration::from_secs(10), "{:?}", run.took);
    let seen = failure(&run.report, "kiln/services-ready");
    assert!(seen.contains("the server ended before it was ready"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_service_that_ignores_its_stop_signal_is_killed_and_fails_the_suite() {
    let bench = Bench::new();
    let mut service = shell("trap '' TERM; while :; do sleep 1; done");
    service.stop.grace = Duration::from_millis(300);
    let run = bench.run(image(service), Vec::new()).await;
    let seen = failure(&run.report, "kiln/clean-stop");
    assert_eq!(seen, "a service did not end within its grace (at most 300ms) and was killed");
    assert!(run.took < Duration::from_secs(10), "{:?}", run.took);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_server_that_ends_during_its_tests_fails_them_at_once() {
    let bench = Bench::new();
    let start = Instant::now();
    let mut slow = test("page", TestKind::Port { port: 9, listening: true });
    slow.within = Duration::from_secs(60);
    let run = bench.run(image(shell("sleep 0.3; exit 1")), vec![slow]).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(failure(&run.report, "page").starts_with("the server ended: "), "{}", failure(&run.report, "page"));
}
