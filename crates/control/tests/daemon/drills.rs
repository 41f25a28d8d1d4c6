//! Recovery drills of real servers, the real gateway and the real daemon, with a client that checks every answer.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use kiln_api::{ApiError, ClientError, ErrorCode, Event, recovery::RecoveryRequest, request::Loss};
use kiln_control::{
    audit::{Entry, Log},
    http::{Ask, ask},
};
use kiln_model::{
    ByteSize, ImageDigest,
    fleet::{DrillPolicy, Objectives, Toll},
};

use crate::{
    bench::{Bench, assert_ok, endpoint, request, start},
    loss::{BIG, writer},
};

/// Three servers of which much is expected.
async fn strict(bench: &Bench, image: ImageDigest, lost: Option<ByteSize>) -> String {
    let mut wanted = request(image);
    for group in wanted.fleet.groups.values_mut() {
        // A machine that does other things as well.
        let objectives = Objectives { ready_within: Some(Duration::from_secs(5)), failed: Some(0), lost };
        group.drill = DrillPolicy { objectives, ..DrillPolicy::default() };
    }
    let last = bench.client.apply(&wanted).await.unwrap().finish(|_| ()).await.unwrap();
    assert_ok(&last);
    endpoint(&last)
}

fn of_the_group(servers: u32, loss: Loss) -> RecoveryRequest {
    RecoveryRequest::Group { group: "web".parse().unwrap(), toll: Some(Toll::Servers(servers)), loss }
}

async fn drill(bench: &Bench, request: &RecoveryRequest) -> Event {
    bench.client.recovery(request).await.unwrap().finish(|_| ()).await.unwrap()
}

fn error(last: &Event) -> ApiError {
    let Event::Result { error: Some(error), .. } = last else { panic!("{last:#?}") };
    error.clone()
}

/// A client that asks all the time, and counts what is not as it should be.
struct Client {
    over: Arc<AtomicBool>,
    counts: Arc<(AtomicU64, AtomicU64)>,
    asking: tokio::task::JoinHandle<()>,
}

impl Client {
    fn of(endpoint: &str, page: &'static str) -> Self {
        let address = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        let (over, counts) = (Arc::new(AtomicBool::new(false)), Arc::new((AtomicU64::new(0), AtomicU64::new(0))));
        let (ended, seen) = (over.clone(), counts.clone());
        let asking = tokio::spawn(async move {
            let headers = BTreeMap::new();
            while !ended.load(Ordering::Relaxed) {
                match ask(Ask { address, method: "GET", path: "/", headers: &headers }).await {
                    Ok(answer) if answer.body == page.as_bytes() => seen.0.fetch_add(1, Ordering::Relaxed),
                    other => {
                        println!("not what was asked for: {other:?}");
                        seen.1.fetch_add(1, Ordering::Relaxed)
                    }
                };
            }
        });
        Self { over, counts, asking }
    }

    /// Right and wrong answers.
    async fn stop(self) -> (u64, u64) {
        self.over.store(true, Ordering::Relaxed);
        self.asking.await.unwrap();
        (self.counts.0.load(Ordering::Relaxed), self.counts.1.load(Ordering::Relaxed))
    }
}

fn entries(bench: &Bench, action: &str) -> Vec<Entry> {
    let log = Log::open(&bench.directory.path().join("state")).unwrap();
    log.entries(0, None, 1000).unwrap().into_iter().filter(|entry| entry.action == action).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_drill_of_a_group_under_load_fails_no_request_and_says_so() {
    let mut bench = Bench::new().await;
    let image = bench.image("drilled", "drilled", |_, _| ());
    let at = strict(&bench, image, None).await;
    let clients: Vec<Client> = (0..4).map(|_| Client::of(&at, "drilled")).collect();
    for servers in [1, 2, 1, 2, 1] {
        let before = bench.group().await.servers;
        let last = drill(&bench, &of_the_group(servers, Loss::Refuse)).await;
        assert_ok(&last);
        let group = bench.group().await;
        let told = group.drill.clone().unwrap();
        println!("{servers} of 3: {told:?}");
        assert_eq!((told.state.as_str(), told.failed, told.lost), ("met", Some(0), Some(0)), "{told:?}");
        assert_eq!(told.servers.len(), servers as usize);
        assert!(told.servers.iter().all(|id| before.iter().any(|server| server.id == *id)), "{told:?}");
        let serving = group.servers.iter().filter(|server| server.state == "ready");
        assert!(serving.clone().all(|server| !told.servers.contains(&server.id)), "{group:#?}");
        assert_eq!(serving.count(), 3, "it is whole when the drill is over");
        // The last of what was killed must be gone before the next one begins.
        while bench.group().await.servers.len() != 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let (mut right, mut wrong) = (0, 0);
    for client in clients {
        let counts = client.stop().await;
        (right, wrong) = (right + counts.0, wrong + counts.1);
    }
    assert!(right > 50 && wrong == 0, "{right} right, {wrong} wrong");
    let ended = entries(&bench, "drill-over");
    assert_eq!((entries(&bench, "drill").len(), ended.len(), entries(&bench, "drilled").len()), (5, 5, 7));
    assert!(ended[0].reason.contains("every objective was met"), "{:?}", ended[0]);
    assert_eq!(entries(&bench, "failed").len(), 0, "a drill is no failure");
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_drill_never_takes_more_than_may_be_lost_and_counts_what_went() {
    let mut bench = Bench::new().await;
    let image = writer(&bench, "writer", BIG);
    strict(&bench, image, Some(ByteSize::mib(1))).await;
    let written = async || {
        let report = bench.client.loss(Some("web")).await.unwrap();
        report.groups[0].servers.iter().all(|server| server.bytes >= BIG)
    };
    while !written().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = bench.group().await.servers;
    let refused = error(&drill(&bench, &of_the_group(1, Loss::Refuse)).await);
    assert_eq!(refused.code, ErrorCode::WouldLose, "{refused:?}");
    assert_eq!(bench.group().await.servers, before, "nothing was touched");
    let missed = error(&drill(&bench, &of_the_group(1, Loss::Accept)).await);
    assert_eq!(missed.code, ErrorCode::ObjectivesMissed, "{missed:?}");
    assert!(missed.message.contains("at most 1MiB may"), "{missed:?}");
    let told = bench.group().await.drill.unwrap();
    assert_eq!(told.state, "missed");
    assert!(told.lost.is_some_and(|lost| lost >= BIG), "{told:?}");
    assert_eq!(entries(&bench, "accept-loss").len(), 1);
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_drill_of_the_gateway_ends_when_another_has_its_ports() {
    let mut bench = Bench::new().await;
    let image = bench.image("drilled", "drilled", |_, _| ());
    let at = strict(&bench, image, None).await;
    let gateway = bench.gateway().await;
    assert_ok(&drill(&bench, &RecoveryRequest::Gateway {}).await);
    assert_ne!(bench.gateway().await, gateway);
    let told = bench.client.status().await.unwrap().drills;
    assert_eq!((told.len(), told[0].what.as_str(), told[0].state.as_str()), (1, "gateway", "met"), "{told:?}");
    assert!(told[0].ready.is_some_and(|ready| ready > Duration::ZERO), "{told:?}");
    assert_eq!(bench.page(&at).await, "drilled");
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_drill_of_the_daemon_is_ended_by_the_next_one_and_traffic_goes_on() {
    let mut bench = Bench::new().await;
    let image = bench.image("drilled", "drilled", |_, _| ());
    let at = strict(&bench, image, None).await;
    let servers = bench.group().await.servers;
    let client = Client::of(&at, "drilled");
    let stream = bench.client.recovery(&RecoveryRequest::Daemon {}).await.unwrap();
    let ended = stream.finish(|_| ()).await;
    assert!(matches!(ended, Err(ClientError::Ended { .. } | ClientError::Broken { .. })), "{ended:?}");
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(bench.daemon.wait().unwrap().signal(), Some(9));
    bench.daemon = start(bench.directory.path());
    bench.wait_until_it_answers().await;
    let told = bench.client.status().await.unwrap().drills;
    println!("{told:?}");
    assert_eq!((told.len(), told[0].what.as_str(), told[0].state.as_str()), (1, "daemon", "met"), "{told:?}");
    assert!(told[0].ready.is_some_and(|ready| ready > Duration::from_millis(1)), "{told:?}");
    assert_eq!(told[0].failed, Some(0));
    assert_eq!(bench.group().await.servers, servers, "no server was touched");
    let (right, wrong) = client.stop().await;
    assert!(right > 50 && wrong == 0, "{right} right, {wrong} wrong");
    bench.purge().await;
}
