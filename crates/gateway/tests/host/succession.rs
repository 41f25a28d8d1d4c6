//! One gateway process after another.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use kiln_model::manifest::Protocol;

use crate::support::{
    Gateway, eventually,
    load::{Load, Mix},
    nginx::Nginx,
    route,
    web::{Web, text},
    wire::Wire,
};

fn any_answer(path: &str, answer: &str) -> bool {
    answer.ends_with(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn host_succession_under_load_fails_no_request() {
    let backends = [Nginx::start("s0"), Nginx::start("s1")];
    let mut gateway = Gateway::start().await;
    let servers = [("s-0", backends[0].address()), ("s-1", backends[1].address())];
    let port = gateway.route(1, Protocol::Http, &servers).await;
    let load = Load::start(port, 8, Mix::GetsAndPosts, any_answer);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut old = gateway.succeed().await;
        eventually("the old process ends", async || old.try_wait().unwrap().is_some()).await;
        assert!(old.wait().unwrap().success());
    }
    let (good, failures) = load.stop();
    assert!(failures.is_empty(), "{} of {good}: {failures:?}", failures.len());
    assert!(good > 500, "{good}");
    let status = gateway.client.status().await.unwrap();
    assert_eq!((status.version, status.routes[0].bound.bound), (1, port));
    let left: Vec<_> = std::fs::read_dir(gateway.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.iter().filter(|n| n.to_string_lossy().starts_with("gateway-")).count(), 1, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_succession_keeps_long_connections_and_drains_them() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut byte = [0];
                while let Ok(1) = stream.read(&mut byte) {
                    stream.write_all(&byte).unwrap();
                }
            });
        }
    });
    let mut gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Tcp, &[("db-a", address)]).await;
    let mut long = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut say = move |byte: u8| {
        let mut answer = [0];
        long.write_all(&[byte]).and_then(|()| long.read_exact(&mut answer)).map(|()| answer[0])
    };
    assert_eq!(say(1).unwrap(), 1);
    let mut first = gateway.succeed().await;
    let mut second = gateway.succeed().await;
    assert_eq!(say(2).unwrap(), 2, "two processes later the connection lives");
    assert_eq!(gateway.client.status().await.unwrap().earlier, 1);
    eventually("the one between has nothing to finish", async || second.try_wait().unwrap().is_some()).await;
    gateway.route(2, Protocol::Tcp, &[]).await;
    assert_eq!(say(3).unwrap(), 3, "a table without the server leaves its connections alone");
    let drained = gateway.client.drain(&"db-a".parse().unwrap(), Duration::from_millis(100)).await.unwrap();
    assert_eq!(drained.cut, 1, "the drain reaches the process that holds the connection");
    assert!(say(4).is_err());
    eventually("the first process ends", async || first.try_wait().unwrap().is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_succession_comes_back_by_itself_with_the_same_port() {
    let web = Web::start("a").await;
    let mut gateway = Gateway::start().await;
    let port = gateway.route(7, Protocol::Http, &[("web-a", web.address)]).await;
    gateway.kill();
    assert!(Wire::connect(port).is_err());
    gateway.child = crate::support::spawn(gateway.dir.path());
    let status = gateway.client.status().await.unwrap();
    assert_eq!((status.version, status.routes[0].bound.bound), (7, port));
    assert_eq!(Wire::connect(port).unwrap().get("/").unwrap().text(), text("a", "/"));
}

#[tokio::test(flavor = "multi_thread")]
async fn host_succession_kept_sockets_let_clients_wait_over_a_kill() {
    let web = Web::start("a").await;
    let mut gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", web.address)]).await;
    let kept = gateway.client.take_listeners().await.unwrap();
    for _ in 0..3 {
        gateway.kill();
        let waiting = std::thread::spawn(move || Wire::connect(port).unwrap().get("/waited").unwrap());
        tokio::time::sleep(Duration::from_millis(100)).await;
        gateway.start_with(&kept);
        assert_eq!(waiting.join().unwrap().text(), text("a", "/waited"));
    }
    gateway.client.status().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn host_succession_a_port_lost_to_another_is_taken_back_later() {
    let web = Web::start("a").await;
    let mut gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", web.address)]).await;
    gateway.kill();
    let other = TcpListener::bind(("0.0.0.0", port)).unwrap();
    gateway.child = crate::support::spawn(gateway.dir.path());
    assert_eq!(gateway.client.status().await.unwrap().routes[0].bound.bound, 0);
    drop(other);
    eventually("the port is served again", async || {
        gateway.client.status().await.unwrap().routes[0].bound.bound == port
    })
    .await;
    assert_eq!(Wire::connect(port).unwrap().get("/").unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_succession_stop_closes_ports_and_finishes_requests() {
    let web = Web::start("a").await;
    let mut gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", web.address)]).await;
    let slow = std::thread::spawn(move || Wire::connect(port).unwrap().get("/slow/500").unwrap());
    let mut idle = Wire::connect(port).unwrap();
    idle.get("/").unwrap();
    let begin = std::time::Instant::now();
    eventually("the request is in flight", async || {
        gateway.client.status().await.unwrap().routes[0].backends[0].in_flight == 1
    })
    .await;
    gateway.client.stop().await.unwrap();
    assert!(Wire::connect(port).is_err());
    assert_eq!(slow.join().unwrap().text(), text("a", "/slow/500"));
    eventually("the process ends", async || gateway.child.try_wait().unwrap().is_some()).await;
    let left: Vec<_> = std::fs::read_dir(gateway.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".sock")), "{left:?}");
    assert!(begin.elapsed() < Duration::from_secs(4), "a connection without a request does not hold it up");
    gateway.child = crate::support::spawn(gateway.dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn host_succession_a_connection_of_before_is_served_although_its_port_is_asked_for_by_its_number_now() {
    let (mut gateway, first, second) = (Gateway::start().await, Web::start("a").await, Web::start("b").await);
    let port = gateway.route(1, Protocol::Http, &[("web-a", first.address)]).await;
    let mut wire = Wire::connect(port).unwrap();
    assert_eq!(wire.get("/x").unwrap().text(), text("a", "/x"));
    let mut old = gateway.succeed().await;
    gateway.bind(2, vec![route("web", port, Protocol::Http, &[("web-b", second.address)])]).await;
    assert_eq!(wire.get("/y").unwrap().text(), text("b", "/y"));
    drop(wire);
    tokio::task::spawn_blocking(move || old.wait().unwrap()).await.unwrap();
}
