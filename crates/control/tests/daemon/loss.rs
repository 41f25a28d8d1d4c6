//! What would be lost is shown, refused above the limit, and recorded.

use std::time::{Duration, Instant};

use kiln_api::{
    ApiError, ClientError, ErrorCode, Event,
    client::EventStream,
    loss::ServerLoss,
    request::{ApplyRequest, DownRequest, Loss, Rebuild, RebuildRequest, RollbackRequest},
};
use kiln_control::audit::{Entry, Log};
use kiln_model::{
    ByteSize, ImageDigest,
    fleet::{LossPolicy, Transport},
    manifest::{Service, Writable, WritableKind},
};

use crate::{
    bench::{Bench, assert_ok, endpoint, request},
    collector::{Collector, Program},
};

pub const BIG: u64 = 70 << 20;

/// An image whose server writes that many bytes, and a small file, into a declared place, and something into its scratch.
pub fn writer(bench: &Bench, name: &str, bytes: u64) -> ImageDigest {
    let script = format!(
        "cd /root && echo x > /tmp/scratch && echo x > small && head -c {bytes} /dev/zero > big; \
         trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"
    );
    bench.image(name, name, |manifest, _| {
        let service = Service::new(["/bin/sh", "-c", &script].map(str::to_owned).to_vec());
        manifest.services.insert("writer".parse().unwrap(), service);
        let kind = WritableKind::Tmpfs { size: ByteSize::mib(256) };
        manifest.writable = vec![Writable { path: "/root".into(), kind, user: "root".into(), mode: 0o755 }];
    })
}

fn one(image: ImageDigest) -> ApplyRequest {
    let mut request = request(image);
    request.fleet.groups.values_mut().for_each(|group| group.count = 1);
    request
}

async fn finish(stream: Result<EventStream, ClientError>) -> (Event, Vec<Event>) {
    let mut seen = Vec::new();
    let last = stream.unwrap().finish(|event| seen.push(event.clone())).await.unwrap();
    (last, seen)
}

fn refused(last: &Event) -> ApiError {
    let Event::Result { error: Some(error), .. } = last else { panic!("{last:#?}") };
    assert_eq!(error.code, ErrorCode::WouldLose, "{error:?}");
    error.clone()
}

/// The only server, once it has written that much.
async fn server(bench: &Bench, bytes: u64) -> ServerLoss {
    let begun = Instant::now();
    loop {
        let report = bench.client.loss(Some("web")).await.unwrap();
        let servers = &report.groups[0].servers;
        if let Some(server) = servers.iter().find(|server| server.bytes >= bytes && server.state == "ready") {
            return server.clone();
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{report:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn audit(bench: &Bench, action: &str) -> Vec<Entry> {
    let log = Log::open(&bench.directory.path().join("state")).unwrap();
    log.entries(0, None, 1000).unwrap().into_iter().filter(|entry| entry.action == action).collect()
}

/// The entry of a server's loss: a server may be stopped a little after the rollout is done.
async fn lost(bench: &Bench, server: &str) -> Entry {
    let begun = Instant::now();
    loop {
        let found = audit(bench, "loss").into_iter().find(|entry| entry.server.as_deref() == Some(server));
        if let Some(entry) = found {
            return entry;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "no entry of {server}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn inputs(entry: &Entry) -> serde_json::Value {
    serde_json::from_str(&entry.inputs).unwrap()
}

fn rebuild(loss: Loss) -> RebuildRequest {
    RebuildRequest { loss, ..RebuildRequest::group("web".parse().unwrap()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_would_be_lost_is_shown_and_no_verb_loses_it_unless_told() {
    let mut bench = Bench::new().await;
    let (image, next) = (writer(&bench, "one", BIG), writer(&bench, "two", BIG));
    let applied = finish(bench.client.apply(&one(image)).await).await.0;
    assert_ok(&applied);
    let seen = server(&bench, BIG + 2).await;
    assert_eq!((seen.files, seen.bytes, seen.lines, seen.in_flight), (2, BIG + 2, None, Some(0)), "{seen:#?}");
    let place = seen.places.iter().find(|place| place.path == "/root").unwrap();
    assert_eq!((place.kind.as_str(), place.at_least, place.largest[0].path.as_str()), ("tmpfs", false, "/root/big"));
    assert!(place.oldest.is_some() && place.newest.is_some());
    let scratch = seen.places.iter().find(|place| place.path == "/tmp").unwrap();
    assert_eq!((scratch.kind.as_str(), scratch.files), ("scratch", 1));
    assert_eq!(seen.above, ["2 files with 70.0 MiB outside volumes"]);
    assert_eq!(bench.client.loss(Some(&seen.id)).await.unwrap().groups[0].servers.len(), 1);
    assert_eq!(bench.client.loss(None).await.unwrap().groups.len(), 1);
    assert!(
        matches!(bench.client.loss(Some("nobody")).await, Err(ClientError::Refused(e)) if e.code == ErrorCode::NotFound)
    );

    let group = finish(bench.client.rebuild(&rebuild(Loss::Refuse)).await).await.0;
    let error = refused(&group);
    assert!(error.message.contains(&seen.id) && error.message.contains("70.0 MiB"), "{error:?}");
    assert!(error.help.unwrap().contains("`kiln loss web`"));
    refused(&finish(bench.client.rebuild(&RebuildRequest::server(seen.id.parse().unwrap())).await).await.0);
    let down = DownRequest { groups: vec!["web".parse().unwrap()], ..DownRequest::default() };
    refused(&finish(bench.client.down(&down).await).await.0);
    let (last, events) = finish(bench.client.apply(&one(next)).await).await;
    refused(&last);
    assert!(!events.iter().any(|event| matches!(event, Event::SuiteStarted { .. })), "nothing is tested first");
    let plan = finish(bench.client.apply(&ApplyRequest { plan_only: true, ..one(next) }).await).await;
    assert_ok(&plan.0);
    let warned = |event: &Event| matches!(event, Event::Warning { message } if message.contains("70.0 MiB"));
    assert!(plan.1.iter().any(warned), "{:#?}", plan.1);
    // What replaces nothing loses nothing.
    let mut more = one(image);
    more.fleet.groups.values_mut().for_each(|group| group.count = 2);
    assert_ok(&finish(bench.client.apply(&more).await).await.0);
    let status = bench.group().await;
    assert_eq!((status.ready, status.servers.iter().any(|server| server.id == seen.id)), (2, true), "{status:#?}");
    assert!(audit(&bench, "loss").is_empty() && audit(&bench, "accept-loss").is_empty());
    // Fewer servers lose something again.
    refused(&finish(bench.client.apply(&one(image)).await).await.0);

    let rebuilt = finish(bench.client.rebuild(&rebuild(Loss::Accept)).await).await.0;
    assert_ok(&rebuilt);
    let accepted = audit(&bench, "accept-loss");
    let mine = accepted.iter().find(|entry| entry.server.as_deref() == Some(&seen.id)).expect("an entry");
    assert_eq!((inputs(mine)["files"].as_u64(), inputs(mine)["bytes"].as_u64()), (Some(2), Some(BIG + 2)));
    assert!(mine.reason.contains("`rebuild`"), "{mine:?}");
    let mine = &lost(&bench, &seen.id).await;
    assert_eq!((inputs(mine)["files"].as_u64(), inputs(mine)["at_least"].as_bool()), (Some(2), Some(false)));
    assert!(bench.page(&endpoint(&applied)).await.contains("one"));
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_the_fleet_says_how_much_may_be_lost_and_healing_never_waits() {
    let mut bench = Bench::new().await;
    let image = writer(&bench, "one", BIG);
    assert_ok(&finish(bench.client.apply(&one(image)).await).await.0);
    let first = server(&bench, BIG + 2).await;
    // A server that is killed is replaced, whatever it had.
    let pid = bench.group().await.servers[0].pid.unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    let second = loop {
        let second = server(&bench, BIG + 2).await;
        if second.id != first.id {
            break second;
        }
    };
    let mut roomy = one(image);
    let policy = LossPolicy { data: ByteSize::mib(128), ..LossPolicy::default() };
    roomy.fleet.groups.values_mut().for_each(|group| group.loss = policy);
    assert_ok(&finish(bench.client.apply(&roomy).await).await.0);
    assert_ok(&finish(bench.client.rebuild(&rebuild(Loss::Refuse)).await).await.0);
    lost(&bench, &second.id).await;
    assert!(audit(&bench, "accept-loss").is_empty(), "nothing had to be accepted");
    // A rollback is a change like any other.
    let small = writer(&bench, "two", 10);
    let mut strict = one(small);
    strict.loss = Loss::Accept;
    assert_ok(&finish(bench.client.apply(&strict).await).await.0);
    let back = RollbackRequest { group: "web".parse().unwrap(), with_data: false, loss: Loss::Refuse };
    assert_ok(&finish(bench.client.rollback(&back).await).await.0);
    server(&bench, BIG + 2).await;
    refused(&finish(bench.client.rollback(&back).await).await.0);
    assert_ok(&finish(bench.client.rollback(&RollbackRequest { loss: Loss::Accept, ..back }).await).await.0);
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_lines_that_no_collector_has_stop_a_change_and_those_under_way_do_not() {
    let mut collector = Collector::started(Program::Rsyslog, Transport::Relp).await;
    let mut bench = Bench::new().await;
    let image = bench.image("one", "hello", |manifest, _| {
        let mut say = |name: &str, script: &str| {
            let service = Service::new(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
            manifest.services.insert(name.parse().unwrap(), service);
        };
        say("talk", "trap 'exit 0' TERM; while :; do echo again; sleep 0.005; done");
        say("prompt", "trap 'exit 0' TERM; printf 'no end yet'; while :; do sleep 1000 & wait $!; done");
    });
    let mut request = one(image);
    request.fleet.groups.values_mut().for_each(|group| group.logs = Some(collector.policy()));
    assert_ok(&finish(bench.client.apply(&request).await).await.0);
    // It writes all the time, and all of it arrives.
    assert_ok(&finish(bench.client.rebuild(&rebuild(Loss::Refuse)).await).await.0);
    collector.kill();
    let begun = Instant::now();
    let error = loop {
        let (last, _) = finish(bench.client.rebuild(&rebuild(Loss::Refuse)).await).await;
        if matches!(&last, Event::Result { error: Some(_), .. }) {
            break refused(&last);
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{last:?}");
    };
    assert!(error.message.contains("that no collector has acknowledged"), "{error:?}");
    let report = bench.client.loss(Some("web")).await.unwrap();
    assert!(report.groups[0].collector.as_ref().unwrap().starts_with("relp://"), "{report:#?}");
    assert!(report.groups[0].servers.iter().any(|server| server.lines.unwrap() > 0), "{report:#?}");
    let mut patient = request.clone();
    let policy = LossPolicy { logs: 1_000_000, ..LossPolicy::default() };
    patient.fleet.groups.values_mut().for_each(|group| group.loss = policy);
    assert_ok(&finish(bench.client.apply(&patient).await).await.0);
    assert_ok(&finish(bench.client.rebuild(&rebuild(Loss::Refuse)).await).await.0);
    assert_ok(&finish(bench.client.apply(&request).await).await.0);
    let what = Rebuild::Group("web".parse().unwrap());
    assert_ok(&finish(bench.client.rebuild(&RebuildRequest { what, loss: Loss::Accept }).await).await.0);
    let accepted = audit(&bench, "accept-loss");
    assert!(accepted.iter().any(|entry| inputs(entry)["lines"].as_u64().unwrap() > 0), "{accepted:#?}");
    collector.start().await;
    bench.purge().await;
}
