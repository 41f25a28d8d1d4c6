//! The whole loop, and a daemon that is killed, ended, or started twice.

use std::process::Stdio;

use kiln_api::{
    Event,
    event::Outcome,
    request::{Fresh, Loss, PromoteRequest, RebuildRequest, RollbackRequest, TouchRequest},
};

use crate::{
    bench::{Bench, assert_ok, endpoint, request, start, wait_for},
    child,
};

fn suites(events: &[Event]) -> Vec<bool> {
    let reused = |event: &Event| match event {
        Event::SuiteFinished { reused, .. } => Some(*reused),
        _ => None,
    };
    events.iter().filter_map(reused).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_the_whole_loop_from_the_first_image_to_nothing_left() {
    let mut bench = Bench::new().await;
    let first = bench.image("first", "first page", |_, _| ());
    let (last, events) = bench.apply(first).await;
    assert_ok(&last);
    assert_eq!(suites(&events), [false], "tested before it was launched");
    let at = endpoint(&last);
    assert_eq!(bench.page(&at).await, "first page");
    let group = bench.group().await;
    assert_eq!((group.ready, group.servers.len()), (3, 3), "{group:?}");

    let socket = std::fs::metadata(bench.directory.path().join("state/kiln.sock")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&socket.permissions()) & 0o777, 0o600, "nobody else may ask");

    let second = bench.image("second", "second page", |_, _| ());
    let (last, _) = bench.apply(second).await;
    assert_ok(&last);
    assert_eq!(endpoint(&last), at, "the port stays");
    assert_eq!(bench.page(&at).await, "second page");

    let (last, events) = bench.apply(second).await;
    assert_ok(&last);
    assert_eq!(suites(&events), [true], "a valid report is used again");

    let rolled = bench
        .client
        .rollback(&RollbackRequest { group: "web".parse().unwrap(), with_data: false, loss: Loss::Refuse })
        .await
        .unwrap();
    assert_ok(&rolled.finish(|_| ()).await.unwrap());
    assert_eq!(bench.page(&at).await, "first page");

    let before = bench.group().await.servers;
    let one = before[0].id.parse().unwrap();
    let rebuilt = bench.client.rebuild(&RebuildRequest::server(one)).await.unwrap();
    assert_ok(&rebuilt.finish(|_| ()).await.unwrap());
    let after = bench.group().await;
    assert_eq!(after.ready, 3);
    let old = after.servers.iter().find(|server| server.id == before[0].id);
    assert!(old.is_none_or(|old| old.state == "draining" || old.state == "stopping"), "it was replaced: {after:?}");

    let new = after.servers.iter().find(|server| server.state == "ready").unwrap();
    let details = bench.client.server(&new.id.parse().unwrap()).await.unwrap();
    assert!(details.control_socket.is_some() && !details.log.is_empty(), "{details:?}");
    let touched = TouchRequest { server: details.status.id.parse().unwrap(), command: vec!["sh".to_owned()] };
    bench.client.touch(&touched).await.unwrap();
    assert!(bench.group().await.servers.iter().any(|server| server.touched));

    let host = bench.client.host().await.unwrap();
    assert!(host.items.iter().filter(|item| item.kind == "process").count() >= 3, "{host:#?}");
    let gateway = host.gateway.unwrap().pid;
    let run = bench.run_dir();
    assert!(run.exists());
    bench.purge().await;
    assert!(!run.exists(), "the run directory is gone");
    assert!(!std::path::Path::new(&format!("/proc/{gateway}")).exists(), "the gateway is gone");
    for item in host.items.iter().filter(|item| item.kind == "cgroup" || item.kind == "directory") {
        assert!(!std::path::Path::new(&item.name).exists(), "{} is left", item.name);
    }
    for item in host.items.iter().filter(|item| item.kind == "interface") {
        assert!(!std::path::Path::new("/sys/class/net").join(&item.name).exists(), "{} is left", item.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_failing_tests_stop_an_apply_before_anything_is_launched() {
    let mut bench = Bench::new().await;
    let good = bench.image("good", "good", |_, _| ());
    let (last, _) = bench.apply(good).await;
    assert_ok(&last);
    let bad = bench.image("bad", "bad", |_, suite| suite.tests[0].within = std::time::Duration::from_millis(200));
    std::fs::write(bench.directory.path().join("images/bad/root/www/index.html"), "worse").unwrap();
    let (last, _) = bench.apply(bad).await;
    let Event::Result { result: Outcome::Failed, error: Some(error), reports, .. } = last else { panic!("{last:?}") };
    assert_eq!(error.code, kiln_api::ErrorCode::TestsFailed);
    assert!(error.message.contains("page"), "{error:?}");
    assert!(reports[0].tests[0].message.as_deref().unwrap().contains("saw \"worse\""), "{reports:?}");
    let group = bench.group().await;
    assert_eq!((group.image, group.ready), (good.to_string(), 3));
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_killed_daemon_finds_its_servers_and_the_gateway_goes_on() {
    let mut bench = Bench::new().await;
    let image = bench.image("first", "first page", |_, _| ());
    let (last, _) = bench.apply(image).await;
    assert_ok(&last);
    let (before, at) = (bench.group().await.servers, endpoint(&last));
    let gateway = bench.gateway().await;
    bench.daemon.kill().unwrap();
    bench.daemon.wait().unwrap();
    assert_eq!(bench.page(&at).await, "first page", "traffic goes on without the daemon");
    bench.kill_and_restart().await;
    let after = bench.group().await.servers;
    let same = |servers: &[kiln_api::status::ServerStatus]| {
        let mut all: Vec<_> = servers.iter().map(|server| (server.id.clone(), server.pid)).collect();
        all.sort();
        all
    };
    assert_eq!(same(&before), same(&after), "the same servers, the same processes");
    assert_eq!(bench.gateway().await, gateway);
    assert_eq!(bench.page(&at).await, "first page");
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_killed_gateway_comes_back_on_the_same_port() {
    let mut bench = Bench::new().await;
    let image = bench.image("first", "first page", |_, _| ());
    let (last, _) = bench.apply(image).await;
    let at = endpoint(&last);
    let gateway = bench.gateway().await;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(gateway as i32).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    // Not refused: the daemon holds the listening socket, so the connection waits for the next gateway.
    assert_eq!(bench.page(&at).await, "first page");
    assert_ne!(bench.gateway().await, gateway);
    assert_eq!(bench.page(&at).await, "first page");
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_second_daemon_is_refused_and_told_who_holds_the_directory() {
    let mut bench = Bench::new().await;
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(child::arguments("child::daemon"))
        .env(child::DIRECTORY, bench.directory.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(said.contains(&format!("a daemon (process {}) already works on", bench.daemon.id())), "{said}");
    bench.client.status().await.unwrap();
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_daemon_asked_to_end_touches_no_server() {
    let mut bench = Bench::new().await;
    let image = bench.image("first", "first page", |_, _| ());
    let (last, _) = bench.apply(image).await;
    let at = endpoint(&last);
    bench.client.shutdown().await.unwrap();
    assert!(wait_for(&mut bench.daemon).unwrap().success());
    assert_eq!(bench.page(&at).await, "first page");
    let error = bench.client.status().await.unwrap_err();
    assert!(matches!(error, kiln_api::ClientError::NoDaemon { .. }), "{error:?}");
    bench.daemon = start(bench.directory.path());
    bench.wait_until_it_answers().await;
    assert_eq!(bench.group().await.ready, 3);
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_channel_is_moved_only_to_what_has_a_valid_report() {
    let mut bench = Bench::new().await;
    let image = bench.image("first", "first page", |_, _| ());
    let promote = PromoteRequest::new(format!("web@{image}").parse().unwrap(), "stable".parse().unwrap());
    let kiln_api::ClientError::Refused(error) = bench.client.promote(&promote).await.unwrap_err() else { panic!() };
    assert_eq!(error.code, kiln_api::ErrorCode::Refused);
    let (last, _) = bench.test(image).await;
    assert_ok(&last);
    let promoted = bench.client.promote(&promote).await.unwrap();
    assert_eq!((promoted.image, promoted.before), (image.to_string(), None));
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_plan_only_says_what_would_be_done_and_does_nothing() {
    let mut bench = Bench::new().await;
    let image = bench.image("first", "first page", |_, _| ());
    let ask = kiln_api::request::ApplyRequest { plan_only: true, fresh: Fresh::Reuse, ..request(image) };
    let mut steps = Vec::new();
    let stream = bench.client.apply(&ask).await.unwrap();
    let last = stream
        .finish(|event| {
            if let Event::Step { action, reason, .. } = event {
                steps.push((action.clone(), reason.clone()));
            }
        })
        .await
        .unwrap();
    assert_ok(&last);
    assert_eq!(steps[0].0, "test");
    assert!(steps.iter().any(|(action, reason)| action == "launch" && !reason.is_empty()), "{steps:?}");
    assert_eq!(bench.client.status().await.unwrap().groups.len(), 0);
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_running_release_is_tested_again_before_its_report_expires() {
    let mut bench = Bench::new().await;
    let image = bench.image("first", "first page", |_, _| ());
    let mut ask = request(image);
    ask.fleet.evidence.max_age = std::time::Duration::from_secs(4);
    let stream = bench.client.apply(&ask).await.unwrap();
    assert_ok(&stream.finish(|_| ()).await.unwrap());
    let reports = bench.directory.path().join("images/first/reports");
    let servers = bench.group().await.servers;
    let start = std::time::Instant::now();
    while std::fs::read_dir(&reports).unwrap().count() < 3 {
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{}", bench.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(bench.group().await.servers, servers, "the servers in service are not touched");
    bench.purge().await;
}
