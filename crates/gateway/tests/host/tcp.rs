//! Plain TCP.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use kiln_model::manifest::Protocol;

use crate::support::{Gateway, eventually, nobody};

/// Answers what it reads, after its name; ends when its client does.
fn echo(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                stream.write_all(name.as_bytes()).unwrap();
                stream.read_to_end(&mut bytes).unwrap();
                stream.write_all(&bytes).unwrap();
            });
        }
    });
    address
}

fn exchange(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn host_tcp_passes_bytes_and_half_closes() {
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Tcp, &[("db-a", echo("a"))]).await;
    let bytes = vec![7; 2 << 20];
    let answer = exchange(port, &bytes);
    assert_eq!((answer[0], &answer[1..]), (b'a', &bytes[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn host_tcp_goes_round_and_past_a_server_that_refuses() {
    let gateway = Gateway::start().await;
    let servers = [("db-a", echo("a")), ("db-dead", nobody()), ("db-b", echo("b"))];
    let port = gateway.route(1, Protocol::Tcp, &servers).await;
    let mut firsts: Vec<u8> = (0..10).map(|_| exchange(port, b"x")[0]).collect();
    firsts.sort_unstable();
    assert!(firsts.starts_with(b"aaa") && firsts.ends_with(b"bbb"), "{firsts:?}");
    let status = gateway.client.status().await.unwrap();
    assert!(status.routes[0].backends[1].down);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_tcp_drain_waits_then_cuts() {
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Tcp, &[("db-a", echo("a"))]).await;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut first = [0];
    stream.read_exact(&mut first).unwrap();
    let server = "db-a".parse().unwrap();
    let cut = gateway.client.drain(&server, Duration::from_millis(100)).await.unwrap();
    assert_eq!(cut.cut, 1);
    assert!((100..1_000).contains(&cut.waited_ms), "{cut:?}");
    match stream.read(&mut first) {
        Ok(0) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        Ok(_) => panic!("the connection was not cut"),
    }
    eventually("nobody is connected", async || gateway.client.status().await.unwrap().connections == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_tcp_without_a_server_waits_and_closes() {
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Tcp, &[]).await;
    let start = Instant::now();
    assert_eq!(exchange(port, b""), b"");
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
}
