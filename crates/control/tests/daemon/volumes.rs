//! Data that outlives servers, daemons and releases, with real servers.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kiln_api::{
    Event,
    event::Outcome,
    request::{ApplyRequest, RebuildRequest, RollbackRequest},
    volume::{DrillRequest, VolumeRequest, VolumeStatus},
};
use kiln_model::{
    ByteSize, ImageDigest,
    manifest::{Service, Stop, Writable, WritableKind},
    suite::{TestKind, TextMatch},
    volume::{Hooks, ScaleFrom, VolumePolicy},
};

use crate::bench::{Bench, assert_ok, endpoint, request};

/// Writes numbers, each on the disk before the next, and goes on where the one before it ended.
const WRITER: &str = "n=$(tail -n 1 /data/numbers 2>/dev/null || echo 0); n=${n:-0}; \
                      while :; do n=$((n+1)); echo $n >> /data/numbers; sync -d /data/numbers; done";

/// An image whose data is a volume: every start is a line of its log, and another service writes all the time.
fn image(bench: &Bench, name: &str, hooks: Hooks, scale_from: ScaleFrom) -> ImageDigest {
    bench.image(name, name, |manifest, suite| {
        let script =
            format!("echo {name} >> /data/log; echo {name} > /data/index.html; exec httpd -f -p 8080 -h /data");
        let shell = |script: &str| ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let stop = Stop { signal: "SIGTERM".into(), grace: Duration::from_secs(2) };
        let main = manifest.services.values_mut().next().unwrap();
        main.command = shell(&script);
        let writer = Service { stop, ..Service::new(shell(&format!("trap 'exit 0' TERM; {WRITER}"))) };
        manifest.services.insert("writer".parse().unwrap(), writer);
        let kind = WritableKind::Volume { name: "data".parse().unwrap(), hooks, scale_from };
        manifest.writable = vec![Writable { path: "/data".into(), kind, user: "root".into(), mode: 0o755 }];
        // A file named `bad` makes the tests fail: a drill on data that is broken.
        let script = "test ! -e /data/bad".to_owned();
        suite.tests.push(kiln_model::suite::Test {
            name: "the data is good".into(),
            within: Duration::from_millis(500),
            kind: TestKind::Command {
                command: vec!["/bin/sh".into(), "-c".into(), script],
                user: "root".into(),
                exit: 0,
                stdout: Vec::new(),
                stderr: Vec::new(),
            },
        });
    })
}

fn of(bench: &Bench, name: &str) -> ImageDigest {
    std::fs::create_dir_all(bench.directory.path().join("images").join(name).join("root/data")).unwrap();
    image(bench, name, Hooks::default(), ScaleFrom::Empty)
}

fn wish(image: ImageDigest, count: u32) -> ApplyRequest {
    let mut request = request(image);
    let group = request.fleet.groups.values_mut().next().unwrap();
    group.count = count;
    group.rollout.drain = Duration::from_millis(100);
    group.volumes = BTreeMap::from([("data".parse().unwrap(), VolumePolicy::new(ByteSize::mib(64)))]);
    request
}

async fn apply(bench: &Bench, request: &ApplyRequest) -> (Event, Vec<Event>) {
    let mut seen = Vec::new();
    let stream = bench.client.apply(request).await.unwrap();
    let last = stream.finish(|event| seen.push(event.clone())).await.unwrap();
    (last, seen)
}

async fn rebuild(bench: &Bench) {
    let stream = bench.client.rebuild(&RebuildRequest::Group("web".parse().unwrap())).await.unwrap();
    assert_ok(&stream.finish(|_| ()).await.unwrap());
}

/// A file of the group's data, through the gateway.
async fn file(at: &str, name: &str) -> String {
    let address = at.strip_prefix("http://").unwrap().parse().unwrap();
    let headers = BTreeMap::new();
    let ask = kiln_control::http::Ask { address, method: "GET", path: &format!("/{name}"), headers: &headers };
    String::from_utf8(kiln_control::http::ask(ask).await.unwrap().body).unwrap()
}

/// Every number that was written is there, and none twice: how many.
async fn numbers(at: &str) -> u64 {
    let text = file(at, "numbers").await;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let all: Vec<u64> = whole.lines().map(|line| line.parse().unwrap_or_else(|_| panic!("{line:?}"))).collect();
    let wrong = all.iter().zip(1..).find(|(found, wanted)| **found != *wanted);
    assert_eq!(wrong, None, "of {}", all.len());
    all.len() as u64
}

async fn volume(bench: &Bench, id: &str) -> VolumeStatus {
    let volumes = bench.client.volumes().await.unwrap().volumes;
    volumes.iter().find(|volume| volume.id == id).unwrap_or_else(|| panic!("no {id}: {volumes:?}")).clone()
}

async fn until(what: &str, good: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !good().await {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn hand_overs(events: &[Event]) -> Vec<Duration> {
    let took = |event: &Event| match event {
        Event::HandOver { handover, .. } => *handover,
        _ => None,
    };
    events.iter().filter_map(took).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_data_outlives_rebuilds_upgrades_kills_and_daemons() {
    let mut bench = Bench::new().await;
    let (first, second) = (of(&bench, "first"), of(&bench, "second"));
    let (last, _) = apply(&bench, &wish(first, 1)).await;
    assert_ok(&last);
    let at = endpoint(&last);
    assert_eq!(file(&at, "log").await, "first\n");
    let written = numbers(&at).await;

    rebuild(&bench).await;
    assert_eq!(file(&at, "log").await, "first\nfirst\n");
    let after = numbers(&at).await;
    assert!(after > written, "{after} after {written}");

    let (last, events) = apply(&bench, &wish(second, 1)).await;
    assert_ok(&last);
    assert_eq!(bench.page(&at).await, "second\n");
    assert_eq!(file(&at, "log").await, "first\nfirst\nsecond\n");
    assert!(numbers(&at).await > after);
    let took = hand_overs(&events);
    assert!(took.len() == 1 && took[0] < Duration::from_secs(5), "{took:?}");
    let data = volume(&bench, "web.data.0").await;
    assert_eq!(data.handover_ms, Some(took[0].as_millis() as u64));
    assert_eq!((data.state.as_str(), data.fence), ("attached", 3));
    assert_eq!(
        data.snapshots.iter().map(|s| s.cause.as_str()).collect::<Vec<_>>(),
        ["rollout"],
        "one for the new release"
    );

    // The server is killed: its successor has the data.
    let pid = bench.group().await.servers[0].pid.unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    until("it is healed", async || file_of(&at).await == "first\nfirst\nsecond\nsecond\n").await;
    let healed = numbers(&at).await;

    // The daemon is killed: the server goes on, and so does the next daemon.
    bench.kill_and_restart().await;
    assert!(numbers(&at).await >= healed);
    rebuild(&bench).await;
    assert_eq!(file(&at, "log").await.lines().count(), 5);
    numbers(&at).await;
    bench.purge().await;
    assert!(bench.directory.path().join("state/volumes").exists(), "data is not part of what Kiln made on the host");
}

/// As [`file`], while there may be nobody.
async fn file_of(at: &str) -> String {
    let address = at.strip_prefix("http://").unwrap().parse().unwrap();
    let headers = BTreeMap::new();
    let ask = kiln_control::http::Ask { address, method: "GET", path: "/log", headers: &headers };
    kiln_control::http::ask(ask).await.map(|answer| String::from_utf8(answer.body).unwrap()).unwrap_or_default()
}
