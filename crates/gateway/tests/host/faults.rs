//! Clients and servers that misbehave.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use kiln_model::manifest::Protocol;

use crate::support::{
    Gateway, eventually, nobody,
    web::{Web, text},
    wire::Wire,
};

/// A server that treats each connection by its number. Counts the heads it read.
fn scripted(treat: fn(usize, &mut std::net::TcpStream)) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, heads) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counter = heads.clone();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (mut stream, counter) = (stream.unwrap(), counter.clone());
            std::thread::spawn(move || {
                read_head(&mut stream);
                counter.fetch_add(1, SeqCst);
                treat(number, &mut stream);
            });
        }
    });
    (address, heads)
}

fn read_head(stream: &mut std::net::TcpStream) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap_or(0) > 2 {
        line.clear();
    }
}

fn say(stream: &mut std::net::TcpStream, body: &str) {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn host_faults_a_server_that_dies_before_its_answer_is_replaced_for_get_only() {
    let (dying, heads) = scripted(|_, _| {});
    let web = Web::start("b").await;
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", dying), ("web-b", web.address)]).await;
    let mut wire = Wire::connect(port).unwrap();
    for _ in 0..6 {
        assert_eq!(wire.get("/x").unwrap().text(), text("b", "/x"));
    }
    assert!(heads.load(SeqCst) > 0, "the dying server was asked");
    let mut statuses = Vec::new();
    for _ in 0..12 {
        let before = (heads.load(SeqCst), web.requests.load(SeqCst));
        let body = if statuses.len() % 4 < 2 { "hi" } else { "" };
        wire.send(format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())).unwrap();
        statuses.push(wire.response().unwrap().status);
        let after = (heads.load(SeqCst), web.requests.load(SeqCst));
        assert_eq!(after.0 - before.0 + after.1 - before.1, 1, "a POST is seen by one server, once");
    }
    assert!(statuses.contains(&200) && statuses.contains(&502), "{statuses:?}");
    let failed = statuses.iter().filter(|status| **status == 502).count() as u64;
    assert_eq!(gateway.client.status().await.unwrap().routes[0].failed, failed, "what no server answered is counted");
    // What the client did wrong is not: the same figure after a request without a host.
    wire.send("GET /x HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(wire.response().unwrap().status, 400);
    assert_eq!(gateway.client.status().await.unwrap().routes[0].failed, failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_faults_an_answer_that_breaks_off_counts_as_failed() {
    let (dying, _) = scripted(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nonly the begi").unwrap();
    });
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", dying)]).await;
    assert!(Wire::connect(port).unwrap().get("/x").is_err(), "it is too large to be asked for again");
    eventually("it is counted", async || gateway.client.status().await.unwrap().routes[0].failed == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_faults_a_server_that_dies_in_the_middle_of_a_small_answer_is_replaced() {
    let (dying, heads) = scripted(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly the begi").unwrap();
    });
    let web = Web::start("b").await;
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", dying), ("web-b", web.address)]).await;
    let mut wire = Wire::connect(port).unwrap();
    for _ in 0..20 {
        assert_eq!(wire.get("/x").unwrap().text(), text("b", "/x"));
    }
    assert!(heads.load(SeqCst) > 0, "the dying server was asked");
}

/// A listener whose backlog is full: who wants to connect waits, as for a host that is gone.
fn hole() -> (TcpListener, Vec<std::net::TcpStream>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let limit = Duration::from_millis(100);
    let held = std::iter::from_fn(|| std::net::TcpStream::connect_timeout(&address, limit).ok()).collect();
    (listener, held, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn host_faults_a_server_that_is_gone_is_not_waited_for_once_the_table_says_so() {
    let (_listener, _held, gone) = hole();
    let web = Web::start("b").await;
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Tcp, &[("web-a", gone)]).await;
    let route = |servers: &[(&str, SocketAddr)]| vec![crate::support::route("web", port, Protocol::Http, servers)];
    gateway.bind(2, route(&[("web-a", gone)])).await;
    let asked = std::thread::spawn(move || {
        let begun = Instant::now();
        let answer = Wire::connect(port).unwrap().get("/x").unwrap();
        (answer.text().to_owned(), begun.elapsed())
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    gateway.bind(3, route(&[("web-b", web.address)])).await;
    let (answer, took) = asked.join().unwrap();
    assert_eq!(answer, text("b", "/x"));
    assert!(took < Duration::from_millis(700), "{took:?}: it did not wait for the time limit of a connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_faults_a_request_that_kills_servers_does_not_kill_all() {
    let (dying, heads) = scripted(|_, _| {});
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", dying)]).await;
    assert_eq!(Wire::connect(port).unwrap().get("/").unwrap().status, 502);
    assert!(heads.load(SeqCst) <= 3, "{heads:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_faults_a_keep_alive_connection_closed_as_a_request_arrives() {
    // Promises to keep the connection, and closes it after each answer.
    let (closing, _) = scripted(|_, stream| say(stream, "fine"));
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", closing)]).await;
    let mut wire = Wire::connect(port).unwrap();
    for number in 0..300 {
        if number % 3 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(wire.get("/").unwrap().text(), "fine", "request {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_faults_a_refusing_server_is_left_out_until_it_is_back() {
    let address = nobody();
    let web = Web::start("b").await;
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", address), ("web-b", web.address)]).await;
    let mut wire = Wire::connect(port).unwrap();
    for _ in 0..4 {
        wire.send("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        assert_eq!(wire.response().unwrap().text(), text("b", "/p"), "also with a body: nothing was sent");
    }
    assert!(gateway.client.status().await.unwrap().routes[0].backends[0].down);
    let back = Web::start_at("a", address).await;
    eventually("a probe finds the server", async || !gateway.client.status().await.unwrap().routes[0].backends[0].down)
        .await;
    wire.get("/").unwrap();
    wire.get("/").unwrap();
    assert!(back.requests.load(SeqCst) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_faults_no_ready_server_waits_then_says_when_to_come_again() {
    let web = Web::start("a").await;
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[]).await;
    let start = Instant::now();
    let response = Wire::connect(port).unwrap().get("/").unwrap();
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert!((900..3_000).contains(&start.elapsed().as_millis()));
    let waiting = std::thread::spawn(move || Wire::connect(port).unwrap().get("/w").unwrap());
    tokio::time::sleep(Duration::from_millis(200)).await;
    gateway.route(2, Protocol::Http, &[("web-a", web.address)]).await;
    assert_eq!(waiting.join().unwrap().text(), text("a", "/w"), "who waited is served");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_faults_heads_are_bounded() {
    let web = Web::start("a").await;
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", web.address)]).await;
    for head in [
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100_000)),
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100_000)),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200)),
    ] {
        let mut wire = Wire::connect(port).unwrap();
        // The gateway may close before it has read all.
        drop(wire.send(&head));
        match wire.response() {
            Ok(response) => assert!([414, 431].contains(&response.status), "{response:?}"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
    for nonsense in ["\r\n\r\n\r\n", "GET\r\n\r\n", "\u{16}\u{3}\u{1}", "GET / HTTP/1.1\r\nHost a\r\n\r\n"] {
        let mut wire = Wire::connect(port).unwrap();
        wire.send(nonsense).unwrap();
        wire.shutdown_write();
        assert!(wire.response().is_ok_and(|r| r.status == 400) || wire.is_closed(), "{nonsense:?}");
    }
    assert_eq!(web.requests.load(SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_faults_framing_that_two_parties_could_read_differently_does_not_pass() {
    let web = Web::start("a").await;
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", web.address)]).await;
    let mut wire = Wire::connect(port).unwrap();
    wire.send(
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
         GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .unwrap();
    let response = wire.response().unwrap();
    assert!(response.status == 400 || response.body.is_empty(), "{response:?}");
    for bad in ["Content-Length: 1\r\nContent-Length: 2", "Content-Length: -1", "Transfer-Encoding: chunked, gzip"] {
        let mut wire = Wire::connect(port).unwrap();
        wire.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\n{bad}\r\n\r\n")).unwrap();
        assert_eq!(wire.response().unwrap().status, 400, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_faults_slow_clients_are_cut_and_do_not_hold_up_others() {
    let web = Web::start("a").await;
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", web.address)]).await;
    let start = Instant::now();
    let slow: Vec<_> = (0..100)
        .map(|_| {
            std::thread::spawn(move || {
                let mut wire = Wire::connect(port).unwrap();
                // A byte every 200 ms: the head would take minutes.
                while wire.send("X").is_ok() {
                    std::thread::sleep(Duration::from_millis(200));
                    assert!(start.elapsed() < Duration::from_secs(15), "still connected");
                }
            })
        })
        .collect();
    for _ in 0..50 {
        assert_eq!(Wire::connect(port).unwrap().get("/").unwrap().status, 200);
    }
    tokio::task::spawn_blocking(move || slow.into_iter().for_each(|client| client.join().unwrap())).await.unwrap();
    assert!(start.elapsed() > Duration::from_secs(8), "they had their time");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_faults_a_client_that_leaves_frees_its_server() {
    let web = Web::start("a").await;
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", web.address)]).await;
    let mut wire = Wire::connect(port).unwrap();
    wire.send("GET /slow/60000 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let in_flight = async || gateway.client.status().await.unwrap().routes[0].backends[0].in_flight;
    eventually("the request is in flight", async || in_flight().await == 1).await;
    drop(wire);
    eventually("nothing is in flight", async || in_flight().await == 0).await;
    eventually("the server's connection is closed", async || web.connections.load(SeqCst) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_faults_a_broken_response_body_breaks_the_client_s_too() {
    let (breaking, _) = scripted(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nonly this").unwrap();
    });
    let (garbage, _) = scripted(|_, stream| stream.write_all(b"\x00\x01 no http at all\r\n\r\n").unwrap());
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", breaking)]).await;
    let mut wire = Wire::connect(port).unwrap();
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(wire.head().unwrap().status, 200);
    assert!(wire.read_exact(100_000).is_err(), "a short body is not completed");
    gateway.route(2, Protocol::Http, &[("web-b", garbage)]).await;
    assert_eq!(Wire::connect(port).unwrap().get("/").unwrap().status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_faults_a_server_that_never_answers_holds_up_nobody_else() {
    let (silent, _) = scripted(|_, _| std::thread::sleep(Duration::from_secs(60)));
    let web = Web::start("b").await;
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", silent)]).await;
    let stuck: Vec<Wire> = (0..4)
        .map(|_| {
            let mut wire = Wire::connect(port).unwrap();
            wire.send("GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            wire
        })
        .collect();
    eventually("the silent server has them", async || {
        gateway.client.status().await.unwrap().routes[0].backends[0].in_flight == 4
    })
    .await;
    gateway.route(2, Protocol::Http, &[("web-a", silent), ("web-b", web.address)]).await;
    let mut wire = Wire::connect(port).unwrap();
    for _ in 0..100 {
        assert_eq!(wire.get("/x").unwrap().text(), text("b", "/x"), "the fewest in flight");
    }
    let drained = gateway.client.drain(&"web-a".parse().unwrap(), Duration::from_millis(50)).await.unwrap();
    assert!(drained.cut >= 1);
    drop(stuck);
}
