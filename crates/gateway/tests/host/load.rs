//! Servers come and go while clients ask without pause: no request fails.

use std::time::Duration;

use kiln_model::manifest::Protocol;

use crate::support::{
    Gateway, eventually,
    load::{Load, Mix},
    nginx::Nginx,
    web::Web,
    wire::Wire,
};

/// An answer is right when it names some server and the very path.
fn any_server(path: &str, answer: &str) -> bool {
    answer.split_once(' ').is_some_and(|(name, rest)| name.starts_with('s') && rest == path)
}

#[tokio::test(flavor = "multi_thread")]
async fn host_load_replacing_servers_fails_no_request() {
    let gateway = Gateway::start().await;
    let mut servers: Vec<(String, Web)> = Vec::new();
    for number in 0..3 {
        servers.push((format!("s{number}"), Web::start(&format!("s{number}")).await));
    }
    let table = |servers: &[(String, Web)]| servers.iter().map(|(n, w)| (n.clone(), w.address)).collect::<Vec<_>>();
    let mut version = 1;
    let set = async |version, servers: &[(String, std::net::SocketAddr)]| {
        let servers: Vec<_> = servers.iter().map(|(n, a)| (n.as_str(), *a)).collect();
        gateway.route(version, Protocol::Http, &servers).await
    };
    let port = set(version, &table(&servers)).await;
    let load = Load::start(port, 8, Mix::GetsAndPosts, any_server);
    for number in 3..23 {
        let name = format!("s{number}");
        servers.push((name.clone(), Web::start(&name).await));
        version += 1;
        set(version, &table(&servers)).await;
        let (old, web) = servers.remove(0);
        let drained = gateway.client.drain(&old.parse().unwrap(), Duration::from_secs(5)).await.unwrap();
        assert_eq!(drained.cut, 0);
        eventually("connections kept to the old server are closed", async || {
            web.connections.load(std::sync::atomic::Ordering::SeqCst) == 0
        })
        .await;
        drop(web);
        version += 1;
        set(version, &table(&servers)).await;
    }
    let (good, failures) = load.stop();
    assert!(failures.is_empty(), "{} of {good}: {failures:?}", failures.len());
    assert!(good > 500, "{good}");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_load_a_killed_nginx_fails_no_get() {
    let mut victims = [Nginx::start("s0"), Nginx::start("s1"), Nginx::start("s2")];
    let gateway = Gateway::start().await;
    let servers = [("s-0", victims[0].address()), ("s-1", victims[1].address()), ("s-2", victims[2].address())];
    let port = gateway.route(1, Protocol::Http, &servers).await;
    let load = Load::start(port, 8, Mix::Gets, any_server);
    for victim in &mut victims[..2] {
        tokio::time::sleep(Duration::from_millis(300)).await;
        victim.kill();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    victims[0].start_again();
    eventually("the restarted server is used again", async || {
        !gateway.client.status().await.unwrap().routes[0].backends[0].down
    })
    .await;
    let (good, failures) = load.stop();
    assert!(failures.is_empty(), "{} of {good}: {failures:?}", failures.len());
    assert!(good > 500, "{good}");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_load_a_drain_waits_for_slow_requests() {
    let web = Web::start("s0").await;
    let gateway = Gateway::start().await;
    let port = gateway.route(1, Protocol::Http, &[("web-a", web.address)]).await;
    let slow = std::thread::spawn(move || {
        let mut wire = Wire::connect(port).unwrap();
        let first = wire.get("/slow/700").unwrap();
        (first, wire.get("/next").unwrap())
    });
    eventually("the request is in flight", async || {
        gateway.client.status().await.unwrap().routes[0].backends[0].in_flight == 1
    })
    .await;
    let other = Web::start("s1").await;
    gateway.route(2, Protocol::Http, &[("web-a", web.address), ("web-b", other.address)]).await;
    let drained = gateway.client.drain(&"web-a".parse().unwrap(), Duration::from_secs(10)).await.unwrap();
    assert_eq!(drained.cut, 0);
    assert!(drained.waited_ms > 100, "{drained:?}");
    let (first, next) = slow.join().unwrap();
    assert_eq!((first.text(), next.text()), ("s0 /slow/700", "s1 /next"), "and the client's connection lived on");
}
