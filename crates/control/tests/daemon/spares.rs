//! Spares of real servers: what takes the place of a server that was killed is the process that waited for that.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use kiln_api::{
    config::LiveRequest,
    status::{GroupStatus, ServerStatus},
};
use kiln_model::{ImageDigest, ImageManifest, Suite};

use crate::{
    bench::{Bench, assert_ok, endpoint, request},
    config::schema,
};

/// Its services may be held when they are ready.
fn held_when_ready(manifest: &mut ImageManifest, _: &mut Suite) {
    manifest.config = schema(&[("beta", r#"{ "type": "boolean", "default": false, "delivery": "live" }"#)]);
    manifest.services.values_mut().for_each(|service| service.hold_ready = Some(Duration::from_secs(3600)));
}

/// Three servers and so many spares.
async fn up(bench: &Bench, image: ImageDigest, spares: u32) -> String {
    let mut wanted = request(image);
    for group in wanted.fleet.groups.values_mut() {
        // Many are killed on purpose.
        (group.spares, group.healing.always) = (spares, 100);
    }
    let last = bench.client.apply(&wanted).await.unwrap().finish(|_| ()).await.unwrap();
    assert_ok(&last);
    endpoint(&last)
}

fn spares(group: &GroupStatus) -> Vec<&ServerStatus> {
    group.servers.iter().filter(|server| server.state == "spare").collect()
}

fn ready(group: &GroupStatus) -> Vec<&ServerStatus> {
    group.servers.iter().filter(|server| server.state == "ready").collect()
}

/// Three serve, so many spares are held, and nothing else is there.
fn at_rest(group: &GroupStatus, held: u32) -> bool {
    let spared = group.spares.as_ref().is_some_and(|spares| spares.held == held);
    spared && ready(group).len() == 3 && group.servers.len() as u32 == 3 + held
}

async fn rest(bench: &Bench, held: u32) -> GroupStatus {
    bench.until("three servers and the spares", |group| at_rest(group, held)).await
}

fn kill(server: &ServerStatus) {
    let pid = server.pid.unwrap().to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
}

fn runs(server: &ServerStatus) -> bool {
    // What has ended and was not waited for has no program any more.
    std::fs::read_link(format!("/proc/{}/exe", server.pid.unwrap())).is_ok()
}

/// The processes that the daemon knows, of servers and spares.
async fn processes(bench: &Bench) -> BTreeSet<String> {
    let items = bench.client.host().await.unwrap().items;
    items.into_iter().filter(|item| item.kind == "process" && item.server.is_some()).map(|item| item.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_killed_server_is_replaced_by_the_spare_that_waited() {
    let mut bench = Bench::new().await;
    let image = bench.image("spared", "spared", |_, _| ());
    let endpoint = up(&bench, image, 1).await;
    let before = rest(&bench, 1).await;
    let (spare, victim) = (spares(&before)[0], ready(&before)[0]);
    assert!(spare.spare && spare.ready.is_none() && runs(spare), "{spare:#?}");

    kill(victim);
    let after = bench.until("the spare serves", |group| ready(group).iter().any(|s| s.id == spare.id)).await;
    let taken = ready(&after).into_iter().find(|server| server.id == spare.id).unwrap();
    assert_eq!((taken.pid, &taken.address), (spare.pid, &spare.address), "it is the process that waited");
    assert!(!taken.spare);
    let again = rest(&bench, 1).await;
    assert!(spares(&again)[0].id != spare.id && !again.servers.iter().any(|server| server.id == victim.id));
    assert_eq!(bench.page(&endpoint).await, "spared");

    // Something was written into one.
    let last = not_used(&bench, &again, write_into).await;

    // A spare that ends while it is held is made anew.
    let held = spares(&last)[0];
    kill(held);
    let others = |group: &GroupStatus| at_rest(group, 1) && spares(group)[0].id != held.id;
    let whole = bench.until("another spare", others).await;
    assert_eq!(ready(&whole).len(), 3);

    // No more are wanted.
    up(&bench, image, 0).await;
    let none = bench.until("no spare", |group| group.servers.len() == 3).await;
    assert!(none.spares.is_none() && ready(&none).len() == 3);
    bench.purge().await;
}

/// Somebody writes into a server.
fn write_into(server: &ServerStatus) {
    let pid = server.pid.unwrap().to_string();
    let mut inside = Command::new("nsenter");
    inside.args(["--target", &pid, "--user", "--mount", "/bin/busybox", "touch", "/run/odd"]);
    assert!(inside.status().unwrap().success());
}

/// The directory of a server in the hierarchy of version 2, which stops and starts it.
fn control_group(server: &ServerStatus) -> PathBuf {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", server.pid.unwrap())).unwrap();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let found =
        roots.iter().map(|root| PathBuf::from(root).join(group)).find(|path| path.join("cgroup.freeze").exists());
    found.expect("a host that has version 2")
}

/// Somebody lets a server go on for a moment.
fn let_go_on(server: &ServerStatus) {
    let freeze = control_group(server).join("cgroup.freeze");
    for state in ["0", "1"] {
        fs::write(&freeze, state).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether its service answers within a moment.
fn answers(server: &ServerStatus) -> bool {
    let address: SocketAddr = format!("{}:8080", server.address.as_ref().unwrap()).parse().unwrap();
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { return false };
    stream.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    stream.read(&mut [0; 16]).is_ok_and(|count| count > 0)
}

/// Something is done to the only spare: the next death does not use it, and what takes the place is new.
async fn not_used(bench: &Bench, before: &GroupStatus, spoil: fn(&ServerStatus)) -> GroupStatus {
    let (spoilt, victim) = (spares(before)[0], ready(before)[0]);
    spoil(spoilt);
    kill(victim);
    let gone = |group: &GroupStatus| at_rest(group, 1) && group.servers.iter().all(|server| server.id != victim.id);
    let after = bench.until("it is replaced", gone).await;
    assert!(after.servers.iter().all(|server| server.pid != spoilt.pid), "{after:#?}");
    assert!(!runs(spoilt), "it is gone");
    after
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_killed_server_is_replaced_by_one_that_was_ready_and_stood_still() {
    let mut bench = Bench::new().await;
    let image = bench.image("held", "held", held_when_ready);
    let endpoint = up(&bench, image, 1).await;
    let before = rest(&bench, 1).await;
    let (spare, victim) = (spares(&before)[0], ready(&before)[0]);
    assert!(spare.spare && spare.ready.is_none() && runs(spare), "{spare:#?}");
    assert!(answers(victim) && !answers(spare), "it stands still");
    assert_eq!(before.spares.as_ref().map(|spares| spares.ready), Some(1), "{before:#?}");
    let events = fs::read_to_string(control_group(spare).join("cgroup.events")).unwrap();
    assert!(events.contains("frozen 1"), "{events}");

    kill(victim);
    let after = bench.until("the spare serves", |group| ready(group).iter().any(|s| s.id == spare.id)).await;
    let taken = ready(&after).into_iter().find(|server| server.id == spare.id).unwrap();
    assert_eq!((taken.pid, &taken.address), (spare.pid, &spare.address), "it is the process that waited");
    assert_eq!(taken.started_at, spare.started_at, "it is as old as its services");
    assert!(answers(taken));
    let again = rest(&bench, 1).await;
    assert!(spares(&again)[0].id != spare.id && !again.servers.iter().any(|server| server.id == victim.id));
    assert_eq!(bench.page(&endpoint).await, "held");

    let again = not_used(&bench, &again, write_into).await;
    let again = not_used(&bench, &again, let_go_on).await;

    // One that ends while it is held, and one that began with live values of before, are made anew.
    let anew = async |before: &GroupStatus| {
        let old = spares(before)[0].clone();
        let others = |group: &GroupStatus| at_rest(group, 1) && spares(group)[0].id != old.id;
        let after = bench.until("another spare", others).await;
        assert!(!runs(&old) && ready(&after).iter().all(|server| server.id != old.id));
        after
    };
    kill(spares(&again)[0]);
    let again = anew(&again).await;
    let (group, key) = ("web".parse().unwrap(), "beta".parse().unwrap());
    bench.client.set_live(&LiveRequest { group, key, value: Some("true".to_owned()) }).await.unwrap();
    let last = anew(&again).await;

    // No more are wanted.
    up(&bench, image, 0).await;
    let none = bench.until("no spare", |group| group.servers.len() == 3).await;
    assert!(none.spares.is_none() && ready(&none).len() == 3 && !runs(spares(&last)[0]));
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_daemon_that_dies_around_a_take_leaves_no_spare_behind_and_none_that_serves() {
    a_daemon_dies_around_a_take(|_, _| ()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_daemon_that_dies_leaves_nothing_behind_that_stands_still() {
    a_daemon_dies_around_a_take(held_when_ready).await;
}

async fn a_daemon_dies_around_a_take(change: impl FnOnce(&mut ImageManifest, &mut Suite)) {
    let mut bench = Bench::new().await;
    let image = bench.image("spared", "spared", change);
    let endpoint = up(&bench, image, 2).await;
    let before = rest(&bench, 2).await;
    bench.kill_and_restart().await;
    let after = rest(&bench, 2).await;
    let ids =
        |servers: Vec<&ServerStatus>| servers.into_iter().map(|server| server.id.clone()).collect::<BTreeSet<_>>();
    assert_eq!(ids(ready(&before)), ids(ready(&after)), "servers outlive the daemon");
    assert!(ids(spares(&before)).is_disjoint(&ids(spares(&after))));
    assert!(!spares(&before).into_iter().any(runs), "what the daemon held ended with it");

    for milliseconds in [0, 2, 4, 6, 9, 13, 20, 40] {
        let group = rest(&bench, 2).await;
        kill(ready(&group)[0]);
        std::thread::sleep(Duration::from_millis(milliseconds));
        bench.kill_and_restart().await;
        let whole = rest(&bench, 2).await;
        let known: BTreeSet<String> = whole.servers.iter().filter_map(|server| Some(server.pid?.to_string())).collect();
        let begun = Instant::now();
        while processes(&bench).await != known {
            assert!(
                begun.elapsed() < Duration::from_secs(5),
                "{milliseconds} ms: {:?} {known:?}",
                processes(&bench).await
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(bench.page(&endpoint).await, "spared");
    }
    bench.purge().await;
}
