//! Data that outlives servers, daemons and releases, with real servers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kiln_api::{
    Event,
    event::Outcome,
    request::{ApplyRequest, Loss, RebuildRequest, RollbackRequest},
    volume::{DrillRequest, VolumeRequest, VolumeStatus},
};
use kiln_model::{
    ByteSize, ImageDigest,
    fleet::Publish,
    manifest::{Protocol, Service, Stop, Writable, WritableKind},
    suite::TestKind,
    volume::{Hooks, ScaleFrom, VolumePolicy},
};

use crate::bench::{Bench, assert_ok, endpoint, request, until};

/// Writes numbers, each on the disk before the next, and goes on where the one before it ended.
const WRITER: &str = "n=$(tail -n 1 /data/numbers 2>/dev/null || echo 0); n=${n:-0}; \
                      while :; do n=$((n+1)); echo $n >> /data/numbers; sync -d /data/numbers; done";

/// An image whose data is a volume: every start is a line of its log, and another service writes all the time.
fn image(bench: &Bench, name: &str, hooks: Hooks, scale_from: ScaleFrom) -> ImageDigest {
    bench.image(name, name, |manifest, suite| {
        let script =
            format!("echo {name} >> /data/log; echo {name} > /data/index.html; echo $KILN_SLOT > /data/slot; exec httpd -f -p 8080 -h /data");
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
    let stream = bench.client.rebuild(&RebuildRequest::group("web".parse().unwrap())).await.unwrap();
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
    let servers = bench.group().await.servers;
    let pid = servers.iter().find(|server| server.state == "ready").unwrap().pid.unwrap();
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

async fn ask(bench: &Bench, request: VolumeRequest) -> Result<String, kiln_api::ApiError> {
    match bench.client.volume(&request).await {
        Ok(done) => Ok(done.done),
        Err(kiln_api::ClientError::Refused(error)) => Err(error),
        Err(other) => panic!("{other:?} {}", bench.log()),
    }
}

fn snapshot(name: &str) -> VolumeRequest {
    let (volume, name) = name.split_once('@').unwrap();
    VolumeRequest::Snapshot { volume: volume.parse().unwrap(), name: Some(name.parse().unwrap()) }
}

async fn drill(bench: &Bench) -> Result<(), String> {
    let stream = bench.client.drill(&DrillRequest { group: None }).await.unwrap();
    match stream.finish(|_| ()).await.unwrap() {
        Event::Result { result: Outcome::Ok, .. } => Ok(()),
        Event::Result { error: Some(error), .. } => Err(error.message),
        other => panic!("{other:?}"),
    }
}

async fn inside(bench: &Bench, script: &str) -> String {
    let group = bench.group().await;
    let server = group.servers.iter().find(|server| server.state == "ready").unwrap();
    let details = bench.client.server(&server.id.parse().unwrap()).await.unwrap();
    let socket = details.control_socket.unwrap();
    let (mut read, write) = std::io::pipe().unwrap();
    let exec = kiln_runtime::protocol::Exec {
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        user: "root".into(),
        environment: Vec::new(),
        directory: None,
        terminal: None,
    };
    let null = std::fs::File::open("/dev/null").unwrap();
    use std::os::fd::AsFd as _;
    let stdio = Some([null.as_fd(), write.as_fd(), write.as_fd()]);
    let session = kiln_runtime::open_session(socket.as_ref(), exec, stdio).unwrap();
    session.wait().unwrap();
    drop(write);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut read, &mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn root_snapshots_restores_rollbacks_and_drills_of_a_group_that_is_used() {
    let mut bench = Bench::new().await;
    let (first, second) = (of(&bench, "first"), of(&bench, "second"));
    let (last, _) = apply(&bench, &wish(first, 1)).await;
    assert_ok(&last);
    let at = endpoint(&last);
    assert_eq!(drill(&bench).await.unwrap_err(), "there is no snapshot to try");

    ask(&bench, snapshot("web.data.0@good")).await.unwrap();
    let taken = ask(&bench, snapshot("web.data.0@good")).await.unwrap_err();
    assert_eq!(taken.code, kiln_api::ErrorCode::Conflict);
    drill(&bench).await.unwrap();
    let proven = volume(&bench, "web.data.0").await.proven.unwrap();
    inside(&bench, "touch /data/bad").await;
    ask(&bench, snapshot("web.data.0@worse")).await.unwrap();
    let failed = drill(&bench).await.unwrap_err();
    assert!(failed.contains("the data is good"), "{failed}");
    let data = volume(&bench, "web.data.0").await;
    assert_eq!(data.proven, Some(proven), "what was proven stays proven");
    assert!(data.drill_failed.unwrap().contains("the data is good"));

    // What is attached or wanted is not removed.
    let attached = ask(&bench, VolumeRequest::Remove { volume: "web.data.0".parse().unwrap() }).await.unwrap_err();
    assert!(attached.message.contains("is attached to server"), "{attached:?}");
    let restored = VolumeRequest::Restore { snapshot: "web.data.0@good".parse().unwrap(), loss: Loss::Refuse };
    ask(&bench, restored).await.unwrap();
    until("the volume is put back", async || {
        volume(&bench, "web.data.0").await.state == "attached" && file_of(&at).await == "first\nfirst\n"
    })
    .await;
    assert_eq!(inside(&bench, "ls /data/bad 2>/dev/null").await, "", "what was written since is gone");
    numbers(&at).await;
    let data = volume(&bench, "web.data.0").await;
    assert!(data.snapshots.iter().any(|s| s.cause == "restore"), "but kept as a snapshot: {data:?}");

    // To another release and back, with the data of then.
    let (last, _) = apply(&bench, &wish(second, 1)).await;
    assert_ok(&last);
    inside(&bench, "echo new > /data/new").await;
    let rollback = RollbackRequest { group: "web".parse().unwrap(), with_data: true, loss: Loss::Refuse };
    let stream = bench.client.rollback(&rollback).await.unwrap();
    assert_ok(&stream.finish(|_| ()).await.unwrap());
    assert_eq!(file_of(&at).await, "first\nfirst\nfirst\n", "nothing of the second release is left in it");
    assert_eq!(inside(&bench, "cat /data/new 2>/dev/null").await, "");
    numbers(&at).await;

    // A copy of its own, out and in again.
    let clone = VolumeRequest::Clone { from: "web.data.0@good".parse().unwrap(), volume: "copy".parse().unwrap() };
    ask(&bench, clone).await.unwrap();
    let file = bench.directory.path().join("out").display().to_string();
    let export = VolumeRequest::Export { snapshot: "web.data.0@good".parse().unwrap(), file: file.clone() };
    ask(&bench, export).await.unwrap();
    ask(&bench, VolumeRequest::Import { file, volume: "again".parse().unwrap() }).await.unwrap();
    ask(&bench, VolumeRequest::Grow { volume: "again".parse().unwrap(), size: ByteSize::mib(128) }).await.unwrap();
    assert_eq!(volume(&bench, "again").await.size, "128MiB");
    for (wrong, message) in [
        (
            VolumeRequest::Create {
                volume: "x.y.0".parse().unwrap(),
                size: ByteSize::mib(64),
                filesystem: Default::default(),
            },
            "choose one without dots",
        ),
        (
            VolumeRequest::Create {
                volume: "copy".parse().unwrap(),
                size: ByteSize::mib(64),
                filesystem: Default::default(),
            },
            "already",
        ),
        (
            VolumeRequest::Create {
                volume: "tiny".parse().unwrap(),
                size: ByteSize::mib(1),
                filesystem: Default::default(),
            },
            "no size",
        ),
        (VolumeRequest::Grow { volume: "again".parse().unwrap(), size: ByteSize::mib(64) }, "never made smaller"),
        (VolumeRequest::Export { snapshot: "again@x".parse().unwrap(), file: "/tmp/x".into() }, "no snapshot"),
        (VolumeRequest::Import { file: "../x".into(), volume: "new".parse().unwrap() }, "absolute"),
    ] {
        let error = ask(&bench, wrong).await.unwrap_err();
        assert!(error.message.contains(message), "{error:?}");
    }
    let whole = ask(&bench, VolumeRequest::Remove { volume: "again".parse().unwrap() }).await.unwrap();
    assert_eq!(whole, "volume again and its snapshots are gone");

    // A group that has fewer servers keeps the data of those it had.
    let (last, _) = apply(&bench, &wish(first, 2)).await;
    assert_ok(&last);
    let (last, _) = apply(&bench, &wish(first, 1)).await;
    assert_ok(&last);
    until("it is an orphan", async || volume(&bench, "web.data.1").await.state == "orphan").await;
    let orphan = volume(&bench, "web.data.1").await;
    assert!(orphan.since.is_some() && orphan.reason.unwrap().contains("the group has 1 servers"));
    let wanted = ask(&bench, VolumeRequest::Remove { volume: "web.data.0".parse().unwrap() }).await.unwrap_err();
    assert_eq!(wanted.code, kiln_api::ErrorCode::Conflict);
    ask(&bench, VolumeRequest::Remove { volume: "web.data.1".parse().unwrap() }).await.unwrap();
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_replica_begins_with_a_clone_of_the_first_slot_that_was_quiet_for_it() {
    let mut bench = Bench::new().await;
    let shell = |script: &str| ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let hooks = Hooks {
        quiesce: shell("echo quiet >> /data/hooks"),
        resume: shell("echo resumed >> /data/hooks"),
        hand_over: shell("echo leaving >> /data/hooks; exit 3"),
    };
    std::fs::create_dir_all(bench.directory.path().join("images/first/root/data")).unwrap();
    let first = image(&bench, "first", hooks, ScaleFrom::Clone);
    let published = |count| {
        let mut request = wish(first, count);
        let to = |slot| Publish { listen: 0, port: 8080, protocol: Protocol::Http, slot };
        request.fleet.groups.values_mut().next().unwrap().publish = vec![to(None), to(Some(0)), to(Some(1))];
        request
    };
    let (last, _) = apply(&bench, &published(1)).await;
    assert_ok(&last);
    let before = numbers(&endpoint(&last)).await;
    let (last, _) = apply(&bench, &published(2)).await;
    assert_ok(&last);
    let (mut logs, mut hooks) = (Vec::new(), Vec::new());
    for server in bench.group().await.servers {
        let at = format!("http://{}:8080", server.address.unwrap());
        assert!(numbers(&at).await > before, "the replica has what the first had");
        logs.push(file(&at, "log").await);
        hooks.push(file(&at, "hooks").await);
    }
    logs.sort();
    hooks.sort();
    assert_eq!(logs, ["first\n", "first\nfirst\n"]);
    assert_eq!(hooks, ["quiet\n", "quiet\nresumed\n"]);
    assert!(volume(&bench, "web.data.0").await.snapshots.is_empty(), "the snapshot for it is gone");

    // Each knows its slot, and a port of the host leads to one of them or to both.
    let ports = bench.group().await.endpoints;
    let mut behind = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
    for _ in 0..10 {
        for (port, slots) in ports.iter().zip(&mut behind) {
            slots.insert(file(port, "slot").await);
        }
    }
    let slots = |slots: &[&str]| slots.iter().map(|slot| format!("{slot}\n")).collect::<BTreeSet<_>>();
    assert_eq!(behind, [slots(&["0", "1"]), slots(&["0"]), slots(&["1"])], "{ports:?}");
    bench.kill_and_restart().await;
    assert_eq!(bench.group().await.endpoints, ports, "the ports stay");

    // Before a slot goes to the next server, the old one does what the recipe wants; a failure is told.
    let stream = bench.client.rebuild(&RebuildRequest::group("web".parse().unwrap())).await.unwrap();
    let mut warnings = Vec::new();
    assert_ok(&stream.finish(|event| warnings.extend(serde_json::to_string(event))).await.unwrap());
    assert!(
        warnings.iter().any(|event| event.contains("the recipe's `hand_over` of volume `data` ended with exit code 3"))
    );
    assert_eq!(file(&ports[1], "hooks").await, "quiet\nresumed\nleaving\n");
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_daemon_killed_at_any_time_of_a_hand_over_loses_no_number() {
    let mut bench = Bench::new().await;
    let images = [of(&bench, "first"), of(&bench, "second")];
    let (last, _) = apply(&bench, &wish(images[0], 1)).await;
    assert_ok(&last);
    let at = endpoint(&last);
    let (last, _) = apply(&bench, &wish(images[1], 1)).await;
    assert_ok(&last);
    let mut written = numbers(&at).await;
    for round in 0..12_u64 {
        let request = wish(images[round as usize % 2], 1);
        let (client, asked) = (bench.client.clone(), request.clone());
        let going = tokio::spawn(async move {
            if let Ok(stream) = client.apply(&asked).await {
                drop(stream.finish(|_| ()).await);
            }
        });
        tokio::time::sleep(Duration::from_millis(40 * round)).await;
        bench.kill_and_restart().await;
        going.await.unwrap();
        let (last, _) = apply(&bench, &request).await;
        assert_ok(&last);
        let now = numbers(&at).await;
        assert!(now >= written, "round {round}: {now} after {written}");
        written = now;
    }
    bench.purge().await;
}

/// Asks for something, kills the daemon a moment later, and asks again.
async fn interrupted(bench: &mut Bench, request: VolumeRequest, after: Duration) -> Result<String, kiln_api::ApiError> {
    let (client, asked) = (bench.client.clone(), request.clone());
    let going = tokio::spawn(async move { drop(client.volume(&asked).await) });
    tokio::time::sleep(after).await;
    bench.kill_and_restart().await;
    going.await.unwrap();
    ask(bench, request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_daemon_killed_at_any_time_of_a_grow_an_export_or_an_import_loses_nothing() {
    let mut bench = Bench::new().await;
    let first = of(&bench, "first");
    let (last, _) = apply(&bench, &wish(first, 1)).await;
    assert_ok(&last);
    let at = endpoint(&last);
    inside(&bench, "head -c 20000000 /dev/urandom > /data/random; sync").await;
    ask(&bench, snapshot("web.data.0@good")).await.unwrap();
    let directory = bench.directory.path().to_owned();
    let mut written = numbers(&at).await;
    for round in 0..6_u64 {
        let after = Duration::from_millis(12 * round);
        let size = ByteSize::mib(80 + 16 * round);
        let grow = VolumeRequest::Grow { volume: "web.data.0".parse().unwrap(), size };
        let grown = interrupted(&mut bench, grow, after).await;
        // A host without the right to grow an ext4 in use does it at the next replacement.
        assert!(grown.is_ok() || grown.unwrap_err().message.contains("from its server's next replacement on"));
        assert_eq!(volume(&bench, "web.data.0").await.size, size.to_string());

        let file = directory.join(format!("out-{round}")).display().to_string();
        let export = VolumeRequest::Export { snapshot: "web.data.0@good".parse().unwrap(), file: file.clone() };
        let exported = interrupted(&mut bench, export, after).await;
        // What is there under its name is whole, or the first call had ended before the daemon did.
        assert!(exported.is_ok() || exported.unwrap_err().message.contains("exists"));
        let import = VolumeRequest::Import { file, volume: format!("again-{round}").parse().unwrap() };
        let imported = interrupted(&mut bench, import, after).await;
        assert!(imported.is_ok() || imported.unwrap_err().message.contains("already"));
        assert_eq!(volume(&bench, &format!("again-{round}")).await.state, "free");
        let now = numbers(&at).await;
        assert!(now > written, "round {round}: {now} after {written}: it is written to all the time");
        written = now;
    }
    // A volume that was being made when the daemon ended is not there after it, when nobody asks for it again.
    let import =
        VolumeRequest::Import { file: directory.join("out-0").display().to_string(), volume: "half".parse().unwrap() };
    let client = bench.client.clone();
    let going = tokio::spawn(async move { drop(client.volume(&import).await) });
    until("it is begun", async || bench.client.volumes().await.unwrap().volumes.iter().any(|v| v.id == "half")).await;
    let made = volume(&bench, "half").await.state == "free";
    bench.kill_and_restart().await;
    going.await.unwrap();
    let there =
        async || bench.client.volumes().await.unwrap().volumes.iter().any(|v| v.id == "half" && v.state != "free");
    until("the half is gone", async || !there().await).await;
    assert!(!made || volume(&bench, "half").await.state == "free");
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_restore_is_refused_when_too_much_outside_the_volume_would_go() {
    let mut bench = Bench::new().await;
    std::fs::create_dir_all(bench.directory.path().join("images/first/root/data")).unwrap();
    let image = bench.image("first", "first", |manifest, _| {
        let script =
            "head -c 2000000 /dev/zero > /root/big; trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done";
        let writer = Service::new(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
        manifest.services.insert("writer".parse().unwrap(), writer);
        let place = |path: &str, kind| Writable { path: path.into(), kind, user: "root".into(), mode: 0o755 };
        let name = "data".parse().unwrap();
        let data = WritableKind::Volume { name, hooks: Hooks::default(), scale_from: ScaleFrom::Empty };
        manifest.writable = vec![place("/data", data), place("/root", WritableKind::Tmpfs { size: ByteSize::mib(8) })];
    });
    let mut wanted = wish(image, 1);
    let group = wanted.fleet.groups.values_mut().next().unwrap();
    group.loss.data = ByteSize::mib(1);
    assert_ok(&apply(&bench, &wanted).await.0);
    let snapshot =
        VolumeRequest::Snapshot { volume: "web.data.0".parse().unwrap(), name: Some("good".parse().unwrap()) };
    bench.client.volume(&snapshot).await.unwrap();
    until("it is written", async || bench.client.loss(None).await.unwrap().groups[0].servers[0].bytes == 2_000_000)
        .await;
    let first = bench.group().await.servers[0].id.clone();
    let restore = |loss| VolumeRequest::Restore { snapshot: "web.data.0@good".parse().unwrap(), loss };
    let error = bench.client.volume(&restore(Loss::Refuse)).await.unwrap_err().to_string();
    assert!(error.contains("1 file with 1.9 MiB outside volumes"), "{error}");
    assert_eq!(bench.group().await.servers[0].id, first);
    bench.client.volume(&restore(Loss::Accept)).await.unwrap();
    until("it was replaced", async || {
        let status = bench.group().await;
        status.ready == 1 && status.servers.iter().all(|server| server.id != first)
    })
    .await;
    bench.purge().await;
}

/// Fills the disk under the state directory until so many bytes are left.
fn fill(bench: &Bench, left: u64) {
    let filler = bench.seen_state().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    let free = || {
        let status = rustix::fs::statvfs(bench.seen_state()).unwrap();
        status.f_bavail * status.f_frsize
    };
    while free() > left {
        std::io::Write::write_all(&mut file, &[0; 64 << 10]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_full_pool_refuses_what_is_new_and_leaves_what_runs() {
    let mut bench = Bench::with_small_disk(512).await;
    let image = of(&bench, "first");
    let (last, _) = apply(&bench, &wish(image, 1)).await;
    assert_ok(&last);
    let at = endpoint(&last);
    until("something is written", async || file(&at, "numbers").await.starts_with("1\n2\n")).await;
    let first = bench.group().await.servers[0].id.clone();

    fill(&bench, 40 << 20);
    let new = |name: &str| VolumeRequest::Create {
        volume: name.parse().unwrap(),
        size: ByteSize::mib(64),
        filesystem: Default::default(),
    };
    let snapshot = VolumeRequest::Snapshot { volume: "web.data.0".parse().unwrap(), name: None };
    for refused in [new("more"), snapshot.clone()] {
        let error = bench.client.volume(&refused).await.unwrap_err().to_string();
        assert!(error.contains("the pool of the volumes has") && error.contains("too little to"), "{error}");
    }
    assert!(bench.client.volumes().await.unwrap().volumes.iter().all(|volume| volume.id != "more"));
    // A group that is to have one more server, with a volume, keeps those it has, and says why.
    let wider = tokio::time::timeout(Duration::from_secs(60), apply(&bench, &wish(image, 2))).await;
    let (last, seen) = wider.expect("a rollout onto a full pool ends");
    let said = format!("{last:?} {seen:?}");
    assert!(said.contains("the pool of the volumes has"), "{said}");
    let status = bench.group().await;
    assert!(status.servers.iter().any(|server| server.id == first && server.state == "ready"), "{status:#?}");
    let before = numbers(&at).await;
    until("what runs writes on", async || numbers(&at).await > before + 5).await;

    std::fs::remove_file(bench.seen_state().join("filler")).unwrap();
    bench.client.volume(&new("more")).await.unwrap();
    bench.client.volume(&snapshot).await.unwrap();
    let (last, _) = apply(&bench, &wish(image, 2)).await;
    assert_ok(&last);
    assert_eq!(bench.group().await.ready, 2);
    bench.purge().await;
}
