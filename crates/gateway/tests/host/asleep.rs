//! Groups that may have no server: their requests are held, and whoever can launch one is told at once.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use kiln_gateway::table::{Backend, Route};
use kiln_model::manifest::Protocol;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{
    Gateway, eventually, route,
    web::{Web, text},
    wire::Wire,
};

const LONG: Duration = Duration::from_secs(10);

fn held(protocol: Protocol, hold_ms: u32, servers: &[(&str, std::net::SocketAddr)]) -> Route {
    Route { hold_ms: Some(hold_ms), ..route("web", 0, protocol, servers) }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_asleep_a_request_waits_for_a_server_and_the_daemon_hears_of_it() {
    let (gateway, web) = (Gateway::start().await, Web::start("a").await);
    let port = gateway.bind(1, vec![held(Protocol::Http, 20_000, &[])]).await[0].bound;
    let first = gateway.client.asked(0, LONG).await.unwrap();
    assert_eq!(first.groups, [], "a new listener is told at once what is");
    let client = gateway.client.clone();
    let listener = tokio::spawn(async move { (client.asked(first.number, LONG).await.unwrap(), Instant::now()) });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!listener.is_finished(), "nobody waits");

    let asked = Instant::now();
    let request = tokio::task::spawn_blocking(move || Wire::connect(port).unwrap().get("/x").unwrap());
    let (heard, at) = listener.await.unwrap();
    assert_eq!(heard.groups.len(), 1);
    println!("heard {:?} after the request", at - asked);
    assert!(at - asked < Duration::from_secs(1));
    assert_eq!(gateway.client.status().await.unwrap().routes[0].waiting, 1);
    // Longer than requests wait elsewhere.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!request.is_finished());
    gateway.bind(2, vec![held(Protocol::Http, 20_000, &[("web-a", web.address)])]).await;
    assert_eq!(request.await.unwrap().text(), text("a", "/x"));
    assert_eq!(gateway.client.status().await.unwrap().routes[0].waiting, 0);

    // Between two servers: the one goes, the other is not there yet.
    let mut leaving = held(Protocol::Http, 20_000, &[]);
    leaving.backends = vec![Backend { server: "web-a".parse().unwrap(), address: web.address, draining: true }];
    gateway.bind(3, vec![leaving]).await;
    let request = tokio::task::spawn_blocking(move || Wire::connect(port).unwrap().get("/y").unwrap());
    let next = gateway.client.asked(heard.number, LONG).await.unwrap();
    assert_eq!(next.groups.len(), 1);
    let other = Web::start("b").await;
    gateway.bind(4, vec![held(Protocol::Http, 20_000, &[("web-b", other.address)])]).await;
    assert_eq!(request.await.unwrap().text(), text("b", "/y"));
}

#[tokio::test(flavor = "multi_thread")]
async fn host_asleep_a_port_that_was_any_and_is_asked_for_by_its_number_keeps_who_waits() {
    let (gateway, web) = (Gateway::start().await, Web::start("a").await);
    let port = gateway.bind(1, vec![held(Protocol::Http, 10_000, &[])]).await[0].bound;
    let request = tokio::task::spawn_blocking(move || {
        let mut wire = Wire::connect(port).unwrap();
        (wire.get("/x").unwrap(), wire.get("/y").unwrap())
    });
    eventually("it waits", async || gateway.client.status().await.unwrap().routes[0].waiting == 1).await;
    let named = |servers: &[_]| Route { listen: port, ..held(Protocol::Http, 10_000, servers) };
    assert_eq!(gateway.bind(2, vec![named(&[])]).await[0].bound, port);
    gateway.bind(3, vec![named(&[("web-a", web.address)])]).await;
    let (first, second) = request.await.unwrap();
    assert_eq!((first.text(), second.text()), (text("a", "/x").as_str(), text("a", "/y").as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn host_asleep_nobody_waits_for_ever_nor_do_more_than_there_are_places() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let gateway = Gateway::start().await;
    let port = gateway.bind(1, vec![held(Protocol::Http, 4_000, &[])]).await[0].bound;
    let start = Instant::now();
    let mut waiting: Vec<_> = (0..1024).map(|_| Wire::connect(port).unwrap()).collect();
    for wire in &mut waiting {
        wire.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    }
    eventually("all wait", async || gateway.client.status().await.unwrap().routes[0].waiting == 1024).await;
    let refused = tokio::task::spawn_blocking(move || Wire::connect(port).unwrap().get("/").unwrap()).await.unwrap();
    assert_eq!(refused.status, 503);
    assert_eq!(refused.text(), "503 no server is ready, and too many requests wait for one\n");
    assert!(start.elapsed() < Duration::from_secs(4), "at once: {:?}", start.elapsed());
    // Who leaves gives up its place.
    drop(waiting.split_off(1));
    eventually("one waits", async || gateway.client.status().await.unwrap().routes[0].waiting == 1).await;
    let last = tokio::task::spawn_blocking(move || waiting.remove(0).response().unwrap()).await.unwrap();
    assert_eq!((last.status, last.text(), last.header("retry-after")), (503, "503 no server is ready\n", Some("1")));
    let waited = start.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(9)).contains(&waited), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_asleep_a_connection_waits_as_a_request_does() {
    let gateway = Gateway::start().await;
    let port = gateway.bind(1, vec![held(Protocol::Tcp, 20_000, &[])]).await[0].bound;
    let first = gateway.client.asked(0, LONG).await.unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"x").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    });
    assert_eq!(gateway.client.asked(first.number, LONG).await.unwrap().groups.len(), 1);
    gateway.bind(2, vec![held(Protocol::Tcp, 20_000, &[("db-a", address)])]).await;
    let served = tokio::task::spawn_blocking(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
        stream.write_all(b"hello").unwrap();
    });
    assert_eq!(client.await.unwrap(), b"hello");
    served.await.unwrap();
}
