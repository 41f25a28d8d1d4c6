//! Log lines of real servers, at a real collector.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use kiln_api::{
    Event,
    request::{ApplyRequest, Loss, RebuildRequest},
};
use kiln_control::audit::Log;
use kiln_model::{
    ImageDigest,
    fleet::{LogsPolicy, Transport},
    manifest::{Service, Stop},
};

use crate::{
    bench::{Bench, assert_ok, request, until},
    collector::{Collector, Line, Program},
};

/// A service that says something at its start, on both ways, and at its end.
fn talker() -> Service {
    let script =
        "trap 'echo last words; exit 0' TERM; echo hello; logger -t talk a message; while :; do sleep 0.05; done";
    Service {
        stop: Stop { signal: "SIGTERM".into(), grace: Duration::from_secs(5) },
        ..Service::new(["/bin/sh", "-c", script].map(str::to_owned).to_vec())
    }
}

fn wanted(image: ImageDigest, policy: &LogsPolicy) -> ApplyRequest {
    let mut request = request(image);
    request.fleet.groups.values_mut().for_each(|group| group.logs = Some(policy.clone()));
    request
}

async fn finish(stream: kiln_api::client::EventStream) -> (Event, Vec<Event>) {
    let mut seen = Vec::new();
    let last = stream.finish(|event| seen.push(event.clone())).await.unwrap();
    (last, seen)
}

/// The texts of each server, with the number of times that each came.
fn by_server(lines: &[Line]) -> BTreeMap<String, BTreeMap<String, u32>> {
    let mut servers = BTreeMap::<String, BTreeMap<String, u32>>::new();
    for line in lines {
        *servers.entry(line.data["server"].clone()).or_default().entry(line.text()).or_default() += 1;
    }
    servers
}

/// A rebuild although the collector is away.
fn accepting() -> RebuildRequest {
    RebuildRequest { loss: Loss::Accept, ..RebuildRequest::group("web".parse().unwrap()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_the_last_lines_of_replaced_servers_arrive_before_their_spools_go() {
    let mut collector = Collector::started(Program::Rsyslog, Transport::Relp).await;
    let mut bench = Bench::new().await;
    let image = bench.image("one", "hello", |manifest, _| {
        manifest.services.insert("talk".parse().unwrap(), talker());
    });
    let policy = collector.policy();
    assert_ok(&finish(bench.client.apply(&wanted(image, &policy)).await.unwrap()).await.0);
    let first: Vec<String> = bench.group().await.servers.into_iter().map(|server| server.id).collect();
    until("every server has spoken", async || collector.lines().len() >= 6).await;
    for line in collector.lines() {
        assert_eq!(line.data["group"], "web");
        assert!(first.contains(&line.host) && line.data["server"] == line.host, "{line:?}");
    }
    assert!(collector.lines().iter().any(|line| line.app == "talk" && line.text() == "a message"));

    // The collector is killed when the rollout begins and comes back after it, and the daemon is killed as well.
    collector.kill();
    let rebuilt = bench.client.rebuild(&accepting()).await.unwrap();
    assert_ok(&finish(rebuilt).await.0);
    let status = bench.group().await;
    assert_eq!(status.ready, 3);
    let waiting: Vec<_> = status.servers.iter().filter(|server| first.contains(&server.id)).collect();
    assert!(!waiting.is_empty(), "the rollout waits for nobody, the old servers wait for the collector: {status:#?}");
    assert!(status.logs.as_ref().unwrap().away.is_some(), "{status:#?}");
    bench.kill_and_restart().await;
    collector.start().await;
    until("the old servers are gone", async || bench.group().await.servers.len() == 3).await;
    let servers = by_server(&collector.lines());
    for server in &first {
        let texts = &servers[server];
        assert!(texts.contains_key("last words"), "{server}: {texts:?}");
        assert!(!bench.directory.path().join("state/spool").join(server).exists());
    }
    let last: Vec<String> = bench.group().await.servers.into_iter().map(|server| server.id).collect();
    bench.purge().await;
    let servers = by_server(&collector.lines());
    for server in first.iter().chain(&last) {
        for text in ["hello", "a message", "last words"] {
            let times = servers[server].get(text).copied().unwrap_or(0);
            assert!((1..=3).contains(&times), "{server}: {text} came {times} times");
        }
    }
    let audit = Log::open(&bench.directory.path().join("state")).unwrap().entries(0, None, 1000).unwrap();
    assert!(audit.iter().all(|entry| entry.action != "logs-lost"), "nothing was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_lines_that_a_collector_does_not_get_in_time_are_counted_in_the_audit_log() {
    let collector = Collector::new(Program::Rsyslog, Transport::Relp);
    let mut bench = Bench::new().await;
    let image = bench.image("one", "hello", |manifest, _| {
        manifest.services.insert("talk".parse().unwrap(), talker());
    });
    let policy = LogsPolicy { receipt: Duration::from_secs(8), ..collector.policy() };
    let mut request = wanted(image, &policy);
    request.fleet.groups.values_mut().for_each(|group| group.count = 1);
    assert_ok(&finish(bench.client.apply(&request).await.unwrap()).await.0);
    let old = bench.group().await.servers[0].id.clone();
    let begun = Instant::now();
    let rebuilt = bench.client.rebuild(&accepting()).await.unwrap();
    assert_ok(&finish(rebuilt).await.0);
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "the rollout does not wait for the collector: {:?}",
        begun.elapsed()
    );
    until("the old server waits for the collector", async || {
        let waits = |reason: &String| reason.contains("wait for the collector");
        bench.group().await.servers.iter().any(|server| server.id == old && server.reason.as_ref().is_some_and(waits))
    })
    .await;
    let spool = bench.directory.path().join("state/spool").join(&old);
    let bytes = [0, 1].map(|n: u8| fs::read(spool.join(n.to_string())).unwrap());
    let frames: Vec<_> = bytes.iter().flat_map(|file| kiln_boot::spool::frames(file)).collect();
    let expected: u64 = frames.iter().map(kiln_boot::spool::Frame::lines).sum();
    until("the old server is gone", async || bench.group().await.servers.len() == 1).await;
    assert!(!spool.exists());
    let state = bench.directory.path().join("state");
    let audit = Log::open(&state).unwrap().entries(0, Some("web"), 1000).unwrap();
    let lost = audit.iter().find(|entry| entry.action == "logs-lost").expect("an entry");
    assert_eq!(lost.server.as_deref(), Some(old.as_str()));
    let inputs: serde_json::Value = serde_json::from_str(&lost.inputs).unwrap();
    assert_eq!(inputs["lines"], expected, "{frames:#?}");
    assert!(expected >= 4, "hello, a message, last words, and what PID 1 says");
    let socket = state.join("kiln.sock");
    let page =
        Command::new("curl").args(["-sS", "--unix-socket"]).arg(socket).arg("http://kiln/metrics").output().unwrap();
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(page.contains(&format!("kiln_log_lines_lost_total{{group=\"web\"}} {expected}\n")), "{page}");
    assert!(page.contains("kiln_log_collector_up{group=\"web\"} 0\n"), "{page}");
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_full_disk_loses_lines_that_are_counted_and_the_server_goes_on() {
    let collector = Collector::started(Program::Rsyslog, Transport::Relp).await;
    let mut bench = Bench::with_small_disk(64).await;
    let image = bench.image("one", "hello", |manifest, _| {
        let script =
            "i=0; while [ $i -lt 1500 ]; do echo line $i; i=$((i+1)); usleep 3000; done; echo done; exec sleep 1000";
        let service = Service::new(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
        manifest.services.insert("count".parse().unwrap(), service);
    });
    let mut request = wanted(image, &collector.policy());
    request.fleet.groups.values_mut().for_each(|group| group.count = 1);
    assert_ok(&finish(bench.client.apply(&request).await.unwrap()).await.0);
    until("lines arrive", async || collector.lines().len() > 20).await;
    let filler = bench.seen_state().join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    let block = [0; 4096];
    let mut fill = || while std::io::Write::write_all(&mut file, &block).is_ok() {};
    for _ in 0..20 {
        fill();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fs::remove_file(&filler).unwrap();
    drop(file);
    until("its last line arrives", async || collector.lines().iter().any(|line| line.text() == "done")).await;
    let lines = collector.lines();
    let last = lines.iter().find(|line| line.text() == "done").unwrap().seq();
    let arrived: std::collections::BTreeSet<u64> = lines.iter().map(Line::seq).filter(|seq| *seq <= last).collect();
    let lost = bench.group().await.logs.unwrap().lost;
    assert_eq!(arrived.len() as u64 + lost, last, "what arrived and what is lost is all there was");
    assert!(lost > 0, "the disk was full");
    assert_eq!(bench.group().await.ready, 1);
    bench.purge().await;
}
