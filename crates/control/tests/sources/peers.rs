//! Peers that are no registry, or a bad one.

use std::{path::Path, time::Duration};

use kiln_control::sources::{LIMIT, SourceError, ask};
use kiln_model::config::{ConfigSource, Registry};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::{Instant, sleep},
};

/// What a peer does with a connection.
#[derive(Clone, Copy)]
enum Peer {
    Silent,
    /// Says this after a while, whatever it is asked.
    Says(Duration, &'static [u8]),
    /// Goes on for ever.
    Floods(&'static [u8]),
}

async fn start(peer: Peer) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                stream.read(&mut [0; 4096]).await.unwrap_or_default();
                match peer {
                    Peer::Silent => sleep(Duration::from_secs(60)).await,
                    Peer::Says(after, text) => {
                        sleep(after).await;
                        stream.write_all(text).await.unwrap_or_default();
                    }
                    Peer::Floods(text) => {
                        stream.write_all(text).await.unwrap_or_default();
                        while stream.write_all(&[b'a'; 65_536]).await.is_ok() {}
                    }
                }
            });
        }
    });
    port
}

fn sources(port: u16) -> [ConfigSource; 2] {
    let registry = Registry::open(format!("127.0.0.1:{port}/app/a").parse().unwrap());
    [ConfigSource::Zookeeper(registry.clone()), ConfigSource::Etcd(registry)]
}

async fn both(peer: Peer) -> [SourceError; 2] {
    let [zookeeper, etcd] = sources(start(peer).await);
    let ask = async |source| ask(&source, Path::new("/")).await.unwrap_err();
    let (zookeeper, etcd) = tokio::join!(ask(zookeeper), ask(etcd));
    [zookeeper, etcd]
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_registry_that_accepts_and_says_nothing_is_given_up_at_the_limit() {
    let began = Instant::now();
    let late = Peer::Says(LIMIT + Duration::from_secs(1), b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
    let (silent, late) = tokio::join!(both(Peer::Silent), both(late));
    assert!(began.elapsed() >= LIMIT && began.elapsed() < LIMIT + Duration::from_secs(2), "{:?}", began.elapsed());
    for error in silent.iter().chain(&late) {
        assert!(matches!(error, SourceError::Silent { .. }), "{error}");
        assert!(error.to_string().ends_with("no answer within 10s"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_peer_that_is_no_registry_is_named() {
    let soon = Duration::ZERO;
    let html = b"HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nno!";
    let [zookeeper, etcd] = both(Peer::Says(soon, html)).await;
    // Its first four bytes are the length of a message as long as no registry's.
    assert!(matches!(&zookeeper, SourceError::Down { reason, .. } if reason.contains("not ZooKeeper")), "{zookeeper}");
    assert!(matches!(&etcd, SourceError::Broken { reason, .. } if reason.contains("404")), "{etcd}");
    for error in both(Peer::Says(soon, b"")).await {
        assert!(matches!(&error, SourceError::Down { reason, .. } if reason.contains("closed")), "{error}");
    }
    let [_, etcd] = both(Peer::Says(soon, b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnull")).await;
    assert!(matches!(&etcd, SourceError::Broken { .. }), "{etcd}");
    // A session with a negative length in its answer.
    let answer =
        b"\0\0\0\x24\0\0\0\0\0\0\x0f\xa0\0\0\0\0\0\0\0\x07\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xf0";
    let [zookeeper, _] = both(Peer::Says(soon, answer)).await;
    assert!(matches!(&zookeeper, SourceError::Down { .. }), "{zookeeper}");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_a_peer_that_never_ends_is_cut_off() {
    let began = Instant::now();
    let [_, etcd] = both(Peer::Floods(b"HTTP/1.1 200 OK\r\n\r\n")).await;
    assert!(matches!(&etcd, SourceError::TooLarge { .. }), "{etcd}");
    let session = b"\0\0\0\x24\0\0\0\0\0\0\x0f\xa0\0\0\0\0\0\0\0\x07\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let [zookeeper, _] = both(Peer::Floods(session)).await;
    assert!(matches!(&zookeeper, SourceError::Down { reason, .. } if reason.contains("too long")), "{zookeeper}");
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
}
