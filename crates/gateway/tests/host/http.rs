//! What a request and a response look like on the other side.

use kiln_model::manifest::Protocol;

use crate::support::{
    Gateway, eventually,
    web::{Web, text},
    wire::Wire,
};

async fn one() -> (Gateway, Web, u16) {
    let web = Web::start("a").await;
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", web.address)]).await;
    (gateway, web, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn host_http_keeps_both_connections() {
    let (_gateway, web, port) = one().await;
    let mut wire = Wire::connect(port).unwrap();
    for number in 0..20 {
        let path = format!("/{number}");
        assert_eq!(wire.get(&path).unwrap().text(), text("a", &path));
    }
    assert_eq!(web.connections.load(std::sync::atomic::Ordering::SeqCst), 1, "one connection to the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_http_is_reached_on_every_address() {
    let (_gateway, _web, port) = one().await;
    let mut addresses = vec!["127.0.0.1".to_owned(), "127.0.0.2".to_owned()];
    addresses.extend(std::path::Path::new("/proc/net/if_inet6").exists().then(|| "::1".to_owned()));
    for address in addresses {
        let Ok(mut stream) = std::net::TcpStream::connect((address.as_str(), port)) else {
            assert!(address == "::1" && !loopback_has_ipv6(), "{address}");
            continue;
        };
        use std::io::{Read as _, Write as _};
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.") && answer.ends_with(&text("a", "/")), "{answer}");
    }
}

fn loopback_has_ipv6() -> bool {
    std::net::TcpListener::bind("[::1]:0").is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn host_http_heads_are_made_for_the_next_hop() {
    let (_gateway, _web, port) = one().await;
    let mut wire = Wire::connect(port).unwrap();
    wire.send(
        "GET /headers HTTP/1.1\r\nHost: shop.example\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nTE: trailers\r\n\
         X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Stays: yes\r\n\r\n",
    )
    .unwrap();
    let seen = wire.response().unwrap().text().to_owned();
    for wanted in [
        r#""host": "shop.example""#,
        r#""x-forwarded-for": "127.0.0.1""#,
        r#""x-forwarded-proto": "http""#,
        r#""x-forwarded-host": "shop.example""#,
        r#""x-stays": "yes""#,
    ] {
        assert!(seen.contains(wanted), "{wanted} in {seen}");
    }
    for unwanted in ["x-mine", "\"te\"", "203.0.113.9", "connection"] {
        assert!(!seen.contains(unwanted), "{unwanted} in {seen}");
    }
    let response = wire.get("/status/200").unwrap();
    assert_eq!((response.header("x-hop"), response.header("connection")), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn host_http_bodies_pass_in_every_framing() {
    let (_gateway, _web, port) = one().await;
    let mut wire = Wire::connect(port).unwrap();
    assert_eq!(wire.get("/chunked").unwrap().text(), "one two three");
    assert_eq!(wire.get("/large").unwrap().body.len(), 3 << 20);
    let body = "y".repeat(300_000);
    wire.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())).unwrap();
    assert_eq!(wire.response().unwrap().text(), body);
    wire.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
        .unwrap();
    assert_eq!(wire.response().unwrap().text(), "abcdefg");
    wire.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert_eq!(wire.head().unwrap().status, 100);
    wire.send("ok").unwrap();
    assert_eq!(wire.response().unwrap().text(), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_http_responses_without_a_body_stay_without() {
    let (_gateway, _web, port) = one().await;
    let mut wire = Wire::connect(port).unwrap();
    for status in [204, 304] {
        assert_eq!(wire.get(&format!("/status/{status}")).unwrap().status, status);
    }
    wire.send("HEAD /status/200 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let head = wire.head().unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("6")));
    assert_eq!(wire.get("/after").unwrap().text(), text("a", "/after"), "the connection is in step");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_http_pipelined_requests_are_answered_in_order() {
    let (_gateway, _web, port) = one().await;
    let mut wire = Wire::connect(port).unwrap();
    let requests: String = (0..10).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    wire.send(requests).unwrap();
    for number in 0..10 {
        assert_eq!(wire.response().unwrap().text(), text("a", &format!("/{number}")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_http_upgrade_becomes_a_tunnel_that_a_drain_waits_for() {
    let (gateway, _web, port) = one().await;
    let mut wire = Wire::connect(port).unwrap();
    wire.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n").unwrap();
    let switched = wire.response().unwrap();
    assert_eq!((switched.status, switched.header("upgrade")), (101, Some("shout")));
    for word in ["hello", "again"] {
        wire.send(word).unwrap();
        assert_eq!(wire.read_exact(5).unwrap(), word.to_uppercase().as_bytes());
    }
    let in_flight = gateway.client.status().await.unwrap().routes[0].backends[0].in_flight;
    assert_eq!(in_flight, 1);
    let limit = std::time::Duration::from_millis(50);
    assert_eq!(gateway.client.drain(&"web-a".parse().unwrap(), limit).await.unwrap().cut, 1);
    assert!(wire.is_closed());
    eventually("the tunnel is no longer counted", async || gateway.client.status().await.unwrap().connections == 0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_http_requests_are_spread_over_ready_servers() {
    let webs = [Web::start("a").await, Web::start("b").await, Web::start("c").await];
    let gateway = Gateway::start().await;
    let servers = [("web-a", webs[0].address), ("web-b", webs[1].address), ("web-c", webs[2].address)];
    let port = gateway.route(1, Protocol::Http, &servers).await;
    let mut wire = Wire::connect(port).unwrap();
    for _ in 0..30 {
        wire.get("/").unwrap();
    }
    for web in &webs {
        assert_eq!(web.requests.load(std::sync::atomic::Ordering::SeqCst), 10);
    }
}
