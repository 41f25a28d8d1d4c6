//! Servers that live and do not work.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use kiln_api::status::ServerStatus;
use kiln_model::{
    ImageManifest,
    manifest::{Liveness, ServiceCheck},
};

use crate::bench::{Bench, assert_ok, endpoint};

/// Well as long as nobody writes `/run/sick`; without an answer once somebody writes `/run/stuck`.
fn watched(manifest: &mut ImageManifest) {
    let script = "test ! -e /run/stuck || sleep 60; test ! -e /run/sick";
    let check = ServiceCheck::Command { command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec() };
    let (interval, timeout) = (Duration::from_millis(100), Duration::from_millis(500));
    for service in manifest.services.values_mut() {
        service.liveness = Some(Liveness { check: check.clone(), interval, timeout, failures: 2 });
    }
}

fn mark(server: &ServerStatus, name: &str) {
    let (pid, path) = (server.pid.unwrap().to_string(), format!("/run/{name}"));
    let mut inside = Command::new("nsenter");
    inside.args(["--target", &pid, "--user", "--mount", "/bin/busybox", "touch", &path]);
    assert!(inside.status().unwrap().success());
}

/// Waits until three servers serve and this one is not among them. Answers what was said of it.
async fn replaced(bench: &Bench, server: &ServerStatus) -> String {
    let (start, mut reason) = (Instant::now(), String::new());
    loop {
        let group = bench.group().await;
        if let Some(found) = group.servers.iter().find(|known| known.id == server.id) {
            reason = found.reason.clone().unwrap_or(reason);
        }
        let others = group.servers.iter().filter(|known| known.state == "ready" && known.id != server.id);
        if others.count() == 3 {
            return reason;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{group:#?}\n{}", bench.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_server_that_lives_and_does_not_work_is_replaced() {
    let mut bench = Bench::new().await;
    let image = bench.image("watched", "watched", |manifest, _| watched(manifest));
    let (last, _) = bench.apply(image).await;
    assert_ok(&last);
    let well = bench.group().await.servers;
    tokio::time::sleep(Duration::from_millis(800)).await;
    let same = bench.group().await.servers;
    assert!(well.iter().all(|server| same.iter().any(|s| s.id == server.id && s.state == "ready")), "{same:#?}");

    mark(&well[0], "sick");
    let reason = replaced(&bench, &well[0]).await;
    assert!(reason.contains("does not work any more") && reason.contains("2 times in a row"), "{reason:?}");

    // One that gives no answer, watched by a daemon that took it over.
    bench.kill_and_restart().await;
    let stuck = bench.group().await.servers.into_iter().find(|server| server.state == "ready").unwrap();
    mark(&stuck, "stuck");
    replaced(&bench, &stuck).await;
    assert_eq!(bench.page(&endpoint(&last)).await, "watched");
    bench.purge().await;
}
