//! Groups that follow their load, with real servers behind the real gateway.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kiln_api::{Event, request::ApplyRequest};
use kiln_control::{
    audit::Log,
    http::{Answer, Ask, ask},
};
use kiln_model::{Fleet, ImageDigest, fleet::Scaling, manifest::Service};

use crate::bench::{Bench, assert_ok, endpoint, request};

fn scaling(count: &str) -> Scaling {
    let publish = "publish = [{ listen = 0, port = 8080, protocol = \"http\" }]";
    let text = format!("[group.web]\nimage = \"web\"\n{publish}\ncount = {count}\n");
    Fleet::parse(&text, "fleet.toml").unwrap().groups.into_values().next().unwrap().scaling.unwrap()
}

fn following(image: ImageDigest, count: &str) -> ApplyRequest {
    let mut request = request(image);
    let group = request.fleet.groups.values_mut().next().unwrap();
    (group.count, group.scaling) = (1, Some(scaling(count)));
    request
}

async fn apply(bench: &Bench, request: &ApplyRequest) -> Event {
    let last = bench.client.apply(request).await.unwrap().finish(|_| ()).await.unwrap();
    assert_ok(&last);
    last
}

async fn get(endpoint: &str) -> Answer {
    let address = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    ask(Ask { address, method: "GET", path: "/", headers: &BTreeMap::new() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_the_first_request_wakes_a_group_without_servers_and_none_is_lost_when_it_sleeps() {
    let mut bench = Bench::new().await;
    let image = bench.image("first", "awake", |_, _| ());
    let count = "{ min = 0, max = 2, target = { requests_per_second = 1000 }, scale_in = { wait = \"1s\" } }";
    let at = endpoint(&apply(&bench, &following(image, count)).await);
    assert_eq!(get(&at).await.body, b"awake");

    // Those that come just when the last server is told to go.
    bench.until("it goes to sleep", |group| group.desired == 0).await;
    let late = futures::future::join_all((0..20).map(|_| get(&at))).await;
    assert!(late.iter().all(|answer| (answer.status, &answer.body[..]) == (200, b"awake")), "{late:#?}");

    let mut took = Vec::new();
    for _ in 0..2 {
        bench.until("it sleeps", |group| group.servers.is_empty() && group.desired == 0).await;
        let asked = Instant::now();
        let answer = get(&at).await;
        took.push(asked.elapsed());
        assert_eq!((answer.status, &answer.body[..]), (200, &b"awake"[..]), "{}", bench.log());
        let group = bench.group().await;
        assert_eq!((group.desired, group.servers.len()), (1, 1), "{group:#?}");
        let log = Log::open(&bench.directory.path().join("state")).unwrap();
        let decided = log.entries(0, Some("web"), 100).unwrap().into_iter().rfind(|entry| entry.action == "scale");
        assert_eq!(decided.unwrap().reason, "1 request waits for a server; from 0 to 1 servers");
    }
    println!("woken by a request that was answered after {took:?}");
    assert!(took.iter().min().unwrap() < &Duration::from_millis(1000), "{took:?}");

    // The gateway holds what comes while there is no daemon, and the next daemon looks.
    bench.until("it sleeps", |group| group.servers.is_empty() && group.desired == 0).await;
    bench.daemon.kill().unwrap();
    bench.daemon.wait().unwrap();
    let held = tokio::spawn({
        let at = at.clone();
        async move { get(&at).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!held.is_finished(), "it is held");
    bench.kill_and_restart().await;
    assert_eq!(held.await.unwrap().status, 200);
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_servers_that_use_their_processor_time_are_made_more() {
    let mut bench = Bench::new().await;
    let image = bench.image("busy", "busy", |manifest, _| {
        let busy = Service::new(["/bin/sh", "-c", "while :; do :; done"].map(str::to_owned).to_vec());
        manifest.services.insert("busy".parse().unwrap(), busy);
    });
    let mut request = following(image, "{ min = 1, max = 2, target = { cpu = \"50%\" } }");
    request.fleet.groups.values_mut().next().unwrap().limits.cpu_millis = Some(200);
    apply(&bench, &request).await;
    let grown = bench.until("it grows", |group| group.desired == 2 && group.ready == 2).await;
    let reason = grown.scaling.unwrap().reason;
    let used: f64 = reason.split_once(" % of a server's processor time").unwrap().0.parse().unwrap();
    assert!((60.0..250.0).contains(&used), "one or two servers that use all they may: {reason}");
    bench.purge().await;
}
