//! Servers that need an external service, in a rollout: the old ones stay until it answers.

use std::{
    net::{IpAddr, TcpListener},
    process::{Child, Command, Stdio},
    time::Duration,
};

use kiln_api::{ErrorCode, Event, request::ApplyRequest};
use kiln_model::{
    ImageDigest,
    config::{ConfigSource, ConfigValue},
    manifest::Binding,
};

use crate::{
    bench::{Bench, assert_ok, endpoint, request},
    config::{apply, schema, text},
};

/// The host's address on the bridge: bound services are asked from the host.
pub async fn bridge(bench: &Bench) -> IpAddr {
    let host = bench.client.host().await.unwrap();
    let bridge = host.items.iter().find(|item| item.kind == "interface" && item.name.starts_with("kiln-")).unwrap();
    let shown = Command::new("busybox").args(["ip", "addr", "show", "dev", &bridge.name]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    shown.split_once("inet ").unwrap().1.split('/').next().unwrap().parse().unwrap()
}

fn redis(address: IpAddr, port: u16) -> Child {
    let (address, port) = (address.to_string(), port.to_string());
    let arguments = ["--pdeathsig", "KILL", "redis-server", "--bind", &address, "--port", &port, "--save", ""];
    let mut command = Command::new("setpriv");
    command.args(arguments).args(["--protected-mode", "no"]).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().unwrap()
}

/// An image whose servers need a Redis.
fn needy(bench: &Bench) -> ImageDigest {
    bench.image("needy", "needy", |manifest, _| {
        let fields = schema(&[("host", r#"{ "type": "string" }"#), ("port", r#"{ "type": "integer" }"#)]);
        let binding = serde_json::json!({ "kind": "redis", "fields": fields, "wait": true });
        manifest.bindings.insert("cache".parse().unwrap(), serde_json::from_value::<Binding>(binding).unwrap());
    })
}

fn bound(image: ImageDigest, host: ConfigSource, port: u16) -> ApplyRequest {
    let mut request = request(image);
    for group in request.fleet.groups.values_mut() {
        let port = ConfigSource::Literal(ConfigValue::Integer(port.into()));
        let fields = [("host", host.clone()), ("port", port)];
        group
            .bindings
            .insert("cache".parse().unwrap(), fields.map(|(key, value)| (key.parse().unwrap(), value)).into());
        group.count = 1;
        // One server has its 30 s, and the rollout is over.
        group.rollout.progress_deadline = Duration::from_secs(35);
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_rollout_waits_for_bound_services_and_fails_with_the_one_that_does_not_answer() {
    let mut bench = Bench::new().await;
    let first = bench.image("first", "first page", |_, _| ());
    let mut alone = request(first);
    alone.fleet.groups.values_mut().for_each(|group| group.count = 1);
    let (last, _) = apply(&bench, &alone).await;
    assert_ok(&last);
    let (at, before) = (endpoint(&last), bench.group().await);
    let host = bridge(&bench).await;
    let port = TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port();

    let needy = needy(&bench);
    let wanted = bound(needy, text(&host.to_string()), port);
    let (last, _) = apply(&bench, &wanted).await;
    let Event::Result { error: Some(error), .. } = &last else { panic!("{last:#?}") };
    assert_eq!(error.code, ErrorCode::RolloutFailed);
    for part in ["the service that `cache` is bound to does not answer", &format!("{host}:{port}"), "refused"] {
        assert!(error.message.contains(part), "{error:?}");
    }
    assert_eq!(bench.page(&at).await, "first page", "the old servers stay");
    assert!(bench.group().await.servers.iter().any(|server| server.id == before.servers[0].id));

    // It comes while the new server waits for it.
    let under_way = apply(&bench, &wanted);
    let late = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(bench.page(&at).await, "first page", "not before it answers");
        redis(host, port)
    };
    let ((last, _), mut redis) = tokio::join!(under_way, late);
    redis.kill().unwrap();
    redis.wait().unwrap();
    assert_ok(&last);
    assert_eq!(bench.page(&at).await, "needy");
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_binding_whose_source_says_the_loopback_is_refused() {
    let mut bench = Bench::new().await;
    let needy = needy(&bench);
    std::fs::write(bench.directory.path().join("host"), "127.0.0.1\n").unwrap();
    let mut wanted = bound(needy, ConfigSource::File("host".to_owned()), 6379);
    wanted.directory = bench.directory.path().to_owned();
    let (last, _) = apply(&bench, &wanted).await;
    let Event::Result { error: Some(error), .. } = &last else { panic!("{last:#?}") };
    assert!(error.message.contains("`cache.host` must be an address that is reached from outside"), "{error:?}");
    assert_eq!(bench.client.status().await.unwrap().groups.len(), 0);
    bench.purge().await;
}
