//! Live keys from inside running servers, and how configurations of a group differ.

use std::time::{Duration, Instant};

use kiln_api::{
    ClientError, ErrorCode,
    config::{ConfigDiffRequest, LiveDetails, LiveRequest, Side},
};
use kiln_model::{
    ImageDigest, ImageManifest, Suite,
    config::{ConfigSource, ConfigValue},
    suite::{MatrixEntry, Test, TestKind, TextMatch},
};
use serde_json::{Value, json};

use crate::{
    bench::{Bench, assert_ok, request},
    config::{apply, schema},
    metadata::Servers,
};

const LIVE: &str = "/kiln/v1/live";

fn flags(manifest: &mut ImageManifest, _: &mut Suite) {
    manifest.config = schema(&[
        ("beta", r#"{ "type": "boolean", "default": false, "delivery": "live" }"#),
        ("level", r#"{ "type": "enum", "values": ["info", "debug"], "default": "info", "delivery": "live" }"#),
        ("greeting", r#"{ "type": "string", "default": "hello" }"#),
        ("password", r#"{ "type": "string", "optional": true, "delivery": "secret" }"#),
    ]);
}

fn with(image: ImageDigest, values: &[(&str, &str)]) -> kiln_api::request::ApplyRequest {
    let mut request = request(image);
    for group in request.fleet.groups.values_mut() {
        let literal = |value: &str| ConfigSource::Literal(ConfigValue::Text(value.into()));
        group.config = values.iter().map(|(key, value)| (key.parse().unwrap(), literal(value))).collect();
    }
    request
}

async fn launch() -> Servers {
    let bench = Bench::new().await;
    let image = bench.image("one", "hello", flags);
    assert_ok(&apply(&bench, &with(image, &[])).await.0);
    Servers::of(bench).await
}

async fn set(bench: &Bench, key: &str, value: Option<&str>) -> Result<LiveDetails, ClientError> {
    let (group, key) = ("web".parse().unwrap(), key.parse().unwrap());
    bench.client.set_live(&LiveRequest { group, key, value: value.map(str::to_owned) }).await
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"))
}

fn audit(bench: &Bench) -> Vec<String> {
    let file = bench.directory.path().join("state/kiln.db");
    let text = "SELECT reason FROM audit_log WHERE reason LIKE 'live key%' ORDER BY number";
    let found = rusqlite::Connection::open(file).unwrap();
    let mut statement = found.prepare(text).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_live_keys_change_in_running_servers_with_a_version_and_a_trail() {
    let mut servers = launch().await;
    let release = servers.bench.group().await.release;
    let first = parsed(&servers.read(0, LIVE));
    assert_eq!(first, json!({ "version": 1, "config": { "beta": false, "level": "info" } }), "the recipe's defaults");
    assert_eq!(set(&servers.bench, "level", Some("debug")).await.unwrap().version, 2);
    assert_eq!(servers.read(1, &format!("{LIVE}/level")), "debug");
    assert_eq!(parsed(&servers.read(0, LIVE))["version"], 2);

    for (key, value, code) in [
        ("level", "loud", ErrorCode::Invalid),
        ("beta", "perhaps", ErrorCode::Invalid),
        ("greeting", "hi", ErrorCode::Invalid),
        ("none", "x", ErrorCode::NotFound),
    ] {
        let error = set(&servers.bench, key, Some(value)).await.unwrap_err();
        assert!(matches!(&error, ClientError::Refused(error) if error.code == code), "{key}: {error:?}");
    }
    let status = servers.bench.group().await;
    let live = status.live.unwrap();
    assert_eq!((live.version, live.keys, live.set), (2, 2, 1));
    assert_eq!(status.release, release, "they are no part of the release");
    assert_eq!(
        status.servers.iter().map(|s| &s.id).collect::<Vec<_>>(),
        servers.servers.iter().map(|s| &s.id).collect::<Vec<_>>()
    );

    // What the fleet says meanwhile does not undo what somebody set, and is there after a reset.
    let image = status.image.parse().unwrap();
    assert_ok(&apply(&servers.bench, &with(image, &[("level", "debug"), ("beta", "true")])).await.0);
    assert_eq!(servers.bench.group().await.release, release);
    assert_eq!(parsed(&servers.read(0, LIVE)), json!({ "version": 3, "config": { "beta": true, "level": "debug" } }));
    assert_ok(&apply(&servers.bench, &with(image, &[])).await.0);
    let reset = set(&servers.bench, "level", None).await.unwrap();
    assert_eq!((reset.version, reset.keys[1].value.clone(), reset.keys[1].set_at.clone()), (5, json!("info"), None));
    assert_eq!(
        audit(&servers.bench),
        ["live key `level` set to \"debug\" (version 2)", "live key `level` reset to the fleet's value (version 5)"]
    );
    servers.bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_long_poll_is_answered_when_a_live_key_changes_and_few_may_wait() {
    let mut servers = launch().await;
    let token = servers.token(0);
    let asking = |query: &str| {
        let url = format!("http://169.254.169.254{LIVE}{query}");
        let header = format!("X-aws-ec2-metadata-token: {token}");
        let curl = ["curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", "-H", &header, &url];
        servers.command(0, &curl).stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    let answer = |child: std::process::Child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let start = Instant::now();
    assert_eq!(parsed(answer(asking("?after=1&wait=1")).rsplit_once('\n').unwrap().0)["version"], 1);
    assert!(start.elapsed() >= Duration::from_millis(900), "nothing changed for a second");
    let start = Instant::now();
    assert!(answer(asking("?after=0&wait=10")).starts_with("{\"config\""), "another version is told at once");
    assert!(start.elapsed() < Duration::from_secs(3));
    for wrong in ["?after=x", "?after=1&wait=-1"] {
        assert!(answer(asking(wrong)).ends_with("400"), "{wrong}");
    }

    let mut waiting: Vec<_> = (0..6).map(|_| asking("?after=1&wait=10")).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let refused = waiting.iter_mut().filter_map(|child| child.try_wait().unwrap()).count();
    assert_eq!(refused, 2, "four of a server may wait");
    let start = Instant::now();
    set(&servers.bench, "beta", Some("true")).await.unwrap();
    let answers: Vec<String> = waiting.into_iter().map(answer).collect();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    println!("a change reached four waiting requests after {:?}", start.elapsed());
    let told = answers.iter().filter(|answer| answer.contains("\"beta\":true") && answer.ends_with("200")).count();
    assert_eq!((told, answers.iter().filter(|answer| answer.ends_with("429")).count()), (4, 2), "{answers:?}");
    servers.bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_live_keys_outlive_the_daemon_and_reach_new_servers() {
    let mut servers = launch().await;
    set(&servers.bench, "level", Some("debug")).await.unwrap();
    // Changes until the daemon is killed in the middle of one: what was acknowledged is there afterwards.
    let client = servers.bench.client.clone();
    let (acknowledged, seen) = tokio::sync::watch::channel(2);
    let changing = tokio::spawn(async move {
        for round in 0..10_000 {
            let value = if round % 2 == 0 { "true" } else { "false" };
            let (group, key) = ("web".parse().unwrap(), "beta".parse().unwrap());
            let asked = client.set_live(&LiveRequest { group, key, value: Some(value.to_owned()) }).await;
            let Ok(live) = asked else { return };
            acknowledged.send_replace(live.version);
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    servers.bench.kill_and_restart().await;
    changing.await.unwrap();
    let acknowledged = *seen.borrow();
    let now = parsed(&servers.read(0, LIVE));
    let version = now["version"].as_u64().unwrap();
    println!("{acknowledged} was acknowledged, {version} is there after the kill");
    assert!(acknowledged > 10 && (acknowledged..=acknowledged + 1).contains(&version), "{acknowledged} {version}");
    assert_eq!(now["config"]["level"], "debug");
    assert_eq!(now["config"]["beta"], version % 2 == 1, "what was seen belongs to its version");
    assert_eq!(servers.bench.group().await.live.unwrap().set, 2);

    let rebuilt = kiln_api::request::RebuildRequest::group("web".parse().unwrap());
    let stream = servers.bench.client.rebuild(&rebuilt).await.unwrap();
    assert_ok(&stream.finish(|_| ()).await.unwrap());
    let before = servers.servers[0].id.clone();
    let mut servers = Servers::of(servers.bench).await;
    assert_ne!(servers.servers[0].id, before);
    assert_eq!(parsed(&servers.read(0, LIVE)), now, "new servers of the group are told the same");
    servers.bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_test_servers_see_the_defaults_of_live_keys_or_what_the_matrix_says() {
    let mut bench = Bench::new().await;
    let image = bench.image("one", "hello", |manifest, suite| {
        flags(manifest, suite);
        let ask = |path: &str| {
            format!(
                "t=$(printf 'PUT /latest/api/token HTTP/1.1\\r\\nHost: m\\r\\nX-aws-ec2-metadata-token-ttl-seconds: 60\\r\\n\
                 Connection: close\\r\\n\\r\\n' | nc 169.254.169.254 80 | tail -n 1); \
                 printf \"GET {path} HTTP/1.1\\r\\nHost: m\\r\\nX-aws-ec2-metadata-token: $t\\r\\nConnection: close\\r\\n\\r\\n\" \
                 | nc 169.254.169.254 80 | tail -n 1"
            )
        };
        for (name, expected) in [("default", "\"beta\":false"), ("other", "\"beta\":true")] {
            let kind = TestKind::Command {
                command: ["/bin/sh".to_owned(), "-c".to_owned(), ask("/kiln/v1/live")].to_vec(),
                user: "root".into(),
                exit: 0,
                stdout: vec![TextMatch::Contains(expected.into())],
                stderr: Vec::new(),
            };
            suite.tests.push(Test { name: name.into(), within: Duration::from_secs(3), kind });
        }
        let config = [("beta".parse().unwrap(), ConfigValue::Boolean(true))].into();
        let entry = MatrixEntry { name: "flags".parse().unwrap(), config, service_binding: Default::default() };
        suite.matrix.push(entry);
    });
    let (last, _) = bench.test(image).await;
    let kiln_api::Event::Result { reports, error: Some(error), .. } = last else { panic!("{last:?}") };
    assert!(error.message.starts_with("2 of") && error.message.ends_with("failed: other, flags: default"), "{error}");
    assert_eq!(reports[0].reads, ["beta", "level"], "what was read is in the report");
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_configurations_of_a_group_are_compared_and_no_secret_is_told() {
    let mut bench = Bench::new().await;
    let image = bench.image("one", "hello", flags);
    let first = with(image, &[("greeting", "hi"), ("password", "correct-horse")]);
    assert_ok(&apply(&bench, &first).await.0);
    let first_id = bench.group().await.release;
    let second = with(image, &[("greeting", "good day"), ("password", "battery-staple")]);
    assert_ok(&apply(&bench, &second).await.0);
    let side = |release: &str| Side::Release(release.to_owned());
    let ask = async |from: Side, to: Side| {
        bench.client.config_diff(&ConfigDiffRequest { group: "web".parse().unwrap(), from, to }).await
    };
    let diff = ask(side("previous"), side("running")).await.unwrap();
    assert_eq!((&diff.from.release, &diff.from.image), (&first_id, &diff.to.image));
    let values: Vec<_> =
        diff.values.iter().map(|v| (v.key.as_str(), v.change.as_str(), v.secret, &v.old, &v.new)).collect();
    let (hi, day) = (Some(json!("hi")), Some(json!("good day")));
    assert_eq!(values, [("greeting", "changed", false, &hi, &day), ("password", "changed", true, &None, &None)]);

    let third = with(image, &[("greeting", "good day"), ("password", "battery-staple")]);
    let fleet = Side::Fleet { fleet: Box::new(third.fleet), directory: "/".into() };
    let same = ask(side(&first_id[..14]), fleet.clone()).await.unwrap();
    assert_eq!(same.to, diff.to, "what the fleet would give is what runs");
    assert!(ask(side("running"), fleet).await.unwrap().values.iter().all(|value| value.change == "same"));
    for wrong in ["none", "sha", "0000000000"] {
        let error = ask(side("running"), side(wrong)).await.unwrap_err();
        assert!(matches!(&error, ClientError::Refused(error) if error.code == ErrorCode::NotFound), "{error:?}");
    }
    bench.purge().await;
}
