//! What others see of the daemon: events, metrics, and keys that verify, read by real clients.

use std::{fs, net::TcpListener, process::Command, time::Duration};

use kiln_api::{client::Follow, event::Happened};

use crate::{
    bench::{Bench, assert_ok},
    child::METRICS,
};

/// The page at a path of the daemon's socket.
fn curl(bench: &Bench, arguments: &[&str], path: &str) -> String {
    let socket = bench.directory.path().join("state/kiln.sock");
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "10", "--unix-socket"]).arg(socket).args(arguments);
    let output = command.arg(format!("http://kiln{path}")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn all(bench: &Bench, after: u64) -> Vec<Happened> {
    let mut stream = bench.client.events_after(after, Follow::No).await.unwrap();
    let mut all = Vec::new();
    while let Some(happened) = stream.next_happened().await.unwrap() {
        all.push(happened);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn root_events_are_kept_and_readers_come_back_to_what_they_missed() {
    let mut bench = Bench::new().await;
    let image = bench.image("one", "hello", |_, _| ());
    assert_ok(&bench.test(image).await.0);
    let mut live = bench.client.events_after(0, Follow::Yes).await.unwrap();
    assert_ok(&bench.apply(image).await.0);
    let events = all(&bench, 0).await;
    assert!(events.windows(2).all(|pair| pair[0].id < pair[1].id), "{events:#?}");
    let kinds: Vec<_> = events.iter().map(|happened| happened.event.kind()).collect();
    for kind in ["suite_started", "test", "suite_finished", "step", "server", "rollout"] {
        assert!(kinds.contains(&kind), "{kind}: {kinds:?}");
    }
    for expected in &events {
        let seen = tokio::time::timeout(Duration::from_secs(5), live.next_happened()).await.unwrap().unwrap();
        assert_eq!(seen.as_ref(), Some(expected), "who follows sees the same");
    }

    let middle = events[events.len() / 2].id;
    let last = format!("Last-Event-ID: {middle}");
    let text = curl(&bench, &["-H", "Accept: text/event-stream", "-H", &last], "/v1/events?follow=false");
    let ids: Vec<u64> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
    let missed: Vec<u64> = events.iter().map(|happened| happened.id).filter(|id| *id > middle).collect();
    assert_eq!(ids, missed, "a reader of server-sent events gets what it missed");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    assert!(
        data.clone().count() == ids.len() && data.clone().all(|data| serde_json::from_str::<Happened>(data).is_ok())
    );
    assert!(curl(&bench, &[], "/v1/events?after=x").contains("\"code\":\"invalid\""));

    bench.kill_and_restart().await;
    bench.client.rebuild(&kiln_api::request::RebuildRequest::group("web".parse().unwrap())).await.unwrap();
    let later = all(&bench, events.last().unwrap().id).await;
    assert!(later.iter().all(|happened| happened.id > events.last().unwrap().id));
    bench.purge().await;
}

/// What the parser of Prometheus's own client for Python makes of a page: name, labels and value of each sample.
fn parsed(page: &str) -> serde_json::Value {
    let script = "import sys,json\nfrom prometheus_client.parser import text_string_to_metric_families as parse\n\
                  print(json.dumps([[s.name,s.labels,s.value] for f in parse(sys.stdin.read()) for s in f.samples]))";
    let mut python = Command::new("/usr/bin/python3");
    let mut python = python
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), page.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{page}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn value(page: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = parsed(page);
    let matches = |sample: &&serde_json::Value| {
        sample[0] == name && labels.iter().all(|(name, value)| sample[1][*name] == **value)
    };
    let found = samples.as_array().unwrap().iter().filter(matches).filter_map(|sample| sample[2].as_f64());
    found.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_metrics_count_what_happened_and_are_offered_where_it_is_said() {
    let mut bench = Bench::new().await;
    let image = bench.image("one", "hello", |_, _| ());
    let (applied, _) = bench.apply(image).await;
    assert_ok(&applied);
    let at = crate::bench::endpoint(&applied);
    for _ in 0..20 {
        assert_eq!(bench.page(&at).await, "hello");
    }
    let answers = value(&curl(&bench, &[], "/metrics"), "kiln_gateway_answer_seconds_count", &[("group", "web")]);
    assert_eq!(answers, 20.0);
    let victim = bench.group().await.servers[0].clone();
    let pid = rustix::process::Pid::from_raw(victim.pid.unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let web = [("group", "web")];
    let healed = || value(&curl(&bench, &[], "/metrics"), "kiln_heal_seconds_count", &web);
    for _ in 0..500 {
        if healed() > 0.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let page = curl(&bench, &[], "/metrics");
    let expected = [
        ("kiln_heal_seconds_count", 1.0),
        ("kiln_failures_total", 1.0),
        ("kiln_launches_total", 4.0),
        ("kiln_ready_seconds_count", 4.0),
        ("kiln_rollout_seconds_count", 1.0),
        ("kiln_servers_desired", 3.0),
    ];
    for (name, expected) in expected {
        assert_eq!(value(&page, name, &web), expected, "{name}: {page}");
    }
    assert_eq!(value(&page, "kiln_suites_total", &[("result", "passed")]), 1.0, "{page}");

    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fs::write(bench.directory.path().join(METRICS), address.to_string()).unwrap();
    bench.kill_and_restart().await;
    let offered = |path: &str| {
        let url = format!("http://{address}{path}");
        let output = Command::new("curl").args(["-sS", "--max-time", "10", "-w", "\n%{http_code}", &url]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let page = offered("/metrics");
    assert_eq!(value(page.rsplit_once('\n').unwrap().0, "kiln_servers", &[("state", "ready")]), 3.0, "{page}");
    let keys = serde_json::to_string(&bench.client.jwks().await.unwrap()).unwrap();
    assert_eq!(offered("/v1/jwks"), format!("{keys}\n200"));
    assert!(offered("/v1/status").ends_with("404"), "nothing else is offered");
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_every_action_is_in_the_audit_log_with_inputs_and_reason_over_restarts() {
    use kiln_api::request::{PromoteRequest, RebuildRequest, TouchRequest};
    let mut bench = Bench::new().await;
    let image = bench.image("one", "hello", |_, _| ());
    assert_ok(&bench.apply(image).await.0);
    let server = bench.group().await.servers[0].id.parse().unwrap();
    let touch = TouchRequest { server, command: vec!["/bin/ls".to_owned()] };
    bench.client.touch(&touch).await.unwrap();
    let promote = PromoteRequest::new(format!("web@{image}").parse().unwrap(), "stable".parse().unwrap());
    bench.client.promote(&promote).await.unwrap();
    let log = |bench: &Bench| kiln_control::audit::Log::open(&bench.directory.path().join("state")).unwrap();
    let before = log(&bench).verify(None).unwrap();
    bench.kill_and_restart().await;
    let rebuilt = bench.client.rebuild(&RebuildRequest::group("web".parse().unwrap())).await.unwrap();
    assert_ok(&rebuilt.finish(|_| ()).await.unwrap());
    let verified = log(&bench).verify(before.head.as_ref()).unwrap();
    assert!(verified.entries > before.entries && verified.first == 1, "{verified:?}");

    let entries = log(&bench).entries(0, None, 1000).unwrap();
    let count = |action: &str| entries.iter().filter(|entry| entry.action == action).count();
    for action in ["test", "apply", "exec", "promote", "rebuild", "done", "route", "drain", "stop", "destroy"] {
        assert!(count(action) >= 1, "{action}: {entries:#?}");
    }
    assert_eq!((count("daemon"), count("launch")), (2, 6));
    assert!(entries.iter().all(|entry| !entry.reason.is_empty()));
    let inputs = |action: &str| {
        let found = entries.iter().find(|entry| entry.action == action).unwrap();
        serde_json::from_str::<serde_json::Value>(&found.inputs).unwrap()
    };
    assert_eq!(inputs("apply")["image"], image.to_string());
    assert_eq!(inputs("exec")["command"][0], "/bin/ls");
    assert_eq!(inputs("launch")["release"], inputs("apply")["release"]);
    // More may have been written meanwhile.
    let after = verified.entries as i64 - 2;
    let web = log(&bench).entries(after, Some("web"), 1000).unwrap();
    assert!(web.iter().all(|entry| entry.number > after && entry.group.as_deref() == Some("web")), "{web:#?}");
    bench.purge().await;
}
