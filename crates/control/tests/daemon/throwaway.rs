//! Suites with throwaway services through the whole daemon: used by test servers, out of reach for others, and gone afterwards.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use kiln_api::{Event, request::ApplyRequest};
use kiln_model::{
    ImageDigest, ImageManifest, Suite,
    manifest::Binding,
    suite::{Test, TestKind, TextMatch},
};
use rustix::process::Pid;

use crate::{
    bench::{Bench, assert_ok, endpoint},
    bindings::bridge,
    config::{apply, schema, text, with},
};

/// A Redis that is written to with its password, and a PostgreSQL that is asked whether it is one.
const SCRIPT: &str = "mkdir -p /tmp/www; cd /tmp/www; echo page > index.html
printf 'AUTH %s\\r\\nINCR boots\\r\\nQUIT\\r\\n' \"$CACHE_PASSWORD\" | busybox timeout 2 busybox nc $CACHE_HOST $CACHE_PORT > cache
printf '\\0\\0\\0\\010\\004\\322\\026\\057' | busybox timeout 1 busybox nc $DB_HOST $DB_PORT > db
exec /bin/httpd -f -p 8080 -h /tmp/www";

fn page(name: &str, path: &str, body: TextMatch) -> Test {
    let kind = TestKind::Http {
        port: 8080,
        path: path.into(),
        method: "GET".into(),
        request_headers: Default::default(),
        status: 200,
        headers: Default::default(),
        body: vec![body],
    };
    Test { name: name.into(), within: Duration::from_secs(5), kind }
}

fn bound(manifest: &mut ImageManifest, suite: &mut Suite) {
    let postgresql = [
        ("host", r#"{ "type": "string" }"#),
        ("port", r#"{ "type": "integer", "default": 5432 }"#),
        ("user", r#"{ "type": "string" }"#),
        ("password", r#"{ "type": "string", "delivery": "secret" }"#),
        ("database", r#"{ "type": "string" }"#),
    ];
    let redis = [
        ("host", r#"{ "type": "string" }"#),
        ("port", r#"{ "type": "integer", "default": 6379 }"#),
        ("password", r#"{ "type": "string", "delivery": "secret", "optional": true }"#),
    ];
    for (name, kind, fields) in [("db", "postgresql", &postgresql[..]), ("cache", "redis", &redis[..])] {
        let binding = serde_json::json!({ "kind": kind, "fields": schema(fields), "wait": false, "test": "throwaway" });
        manifest.bindings.insert(name.parse().unwrap(), serde_json::from_value::<Binding>(binding).unwrap());
    }
    for service in manifest.services.values_mut() {
        service.command = ["/bin/sh", "-c", SCRIPT].map(str::to_owned).to_vec();
    }
    suite.tests = vec![
        page(
            "the cache is empty and takes what it is given",
            "/cache",
            TextMatch::Equals("+OK\r\n:1\r\n+OK\r\n".into()),
        ),
        page("the database is one", "/db", TextMatch::Equals("N".into())),
    ];
}

fn slowly_bound(manifest: &mut ImageManifest, suite: &mut Suite) {
    bound(manifest, suite);
    let command = ["/bin/sleep", "4"].map(str::to_owned).to_vec();
    let kind = TestKind::Command { command, user: "root".into(), exit: 0, stdout: Vec::new(), stderr: Vec::new() };
    suite.tests.push(Test { name: "slow".to_owned(), within: Duration::from_secs(20), kind });
}

/// What the fleet is bound to is not there: the servers do without.
async fn fleet(bench: &Bench, image: ImageDigest) -> ApplyRequest {
    let nothing = bridge(bench).await.to_string();
    let mut request = with(image, &[]);
    let put = |fields: &[(&str, &str)]| fields.iter().map(|(key, value)| (key.parse().unwrap(), text(value))).collect();
    for group in request.fleet.groups.values_mut() {
        let db = [("host", nothing.as_str()), ("user", "app"), ("password", "of-the-fleet"), ("database", "app")];
        group.bindings.insert("db".parse().unwrap(), put(&db));
        group.bindings.insert("cache".parse().unwrap(), put(&[("host", nothing.as_str())]));
    }
    request
}

/// Processes that work below a directory.
fn below(directory: &Path) -> usize {
    let works = |pid: &fs::DirEntry| fs::read_link(pid.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
    fs::read_dir("/proc").unwrap().flatten().filter(works).count()
}

fn left(directory: &Path) -> (usize, usize) {
    (below(directory), fs::read_dir(directory).unwrap().count())
}

/// Address and port of a Redis that a suite uses now.
async fn lent_redis(directory: &Path) -> (String, String) {
    let start = Instant::now();
    loop {
        let places = fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path().join("redis.conf"));
        let settings =
            places.filter_map(|path| fs::read_to_string(path).ok()).find(|text| text.contains("requirepass"));
        if let Some(settings) = settings {
            let of = |name: &str| settings.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
            return (of("bind "), of("port "));
        }
        assert!(start.elapsed() < Duration::from_secs(20), "no suite has a Redis");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a Redis says to a `PING` from the network namespace of a process.
fn ping(pid: u32, (host, port): &(String, String)) -> String {
    let script = format!("printf 'PING\\r\\n' | timeout 2 busybox nc {host} {port}");
    let pid = pid.to_string();
    let output = Command::new("nsenter").args(["-t", &pid, "-n", "sh", "-c", &script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_suite_has_throwaway_services_that_only_its_test_servers_reach() {
    let mut bench = Bench::new().await;
    let directory = bench.run_dir().join("throwaway");
    let image = bench.image("one", "unused", bound);
    let (alone, _) = bench.test(image).await;
    assert_ok(&alone);
    let (last, _) = apply(&bench, &fleet(&bench, image).await).await;
    assert_ok(&last);
    assert_eq!(bench.page(&endpoint(&last)).await, "page\n");
    assert_eq!(left(&directory), (0, 0), "they are gone with the suite");
    let reports = bench.directory.path().join("images/one/reports");
    let report = fs::read_dir(&reports).unwrap().flatten().next().unwrap();
    let envelope = serde_json::from_slice(&fs::read(report.path()).unwrap()).unwrap();
    let parameters = parameters(&bench, &envelope);
    for expected in ["with a throwaway postgresql in place of `db`", "with a throwaway redis in place of `cache`"] {
        assert!(parameters.iter().any(|parameter| parameter == expected), "{parameters:?}");
    }

    let slow = bench.image("two", "unused", slowly_bound);
    let request = fleet(&bench, slow).await;
    let under_way = apply(&bench, &request);
    let looks = async {
        let redis = lent_redis(&directory).await;
        let server = bench.group().await.servers[0].pid.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(ping(std::process::id(), &redis).starts_with("-NOAUTH"), "it is there, and wants its password");
        assert_eq!(ping(server, &redis), "", "a server of the fleet does not reach it");
    };
    let ((last, _), ()) = tokio::join!(under_way, looks);
    assert_ok(&last);
    assert_eq!(left(&directory), (0, 0));
    bench.purge().await;
}

/// How the test servers of a report differed.
fn parameters(bench: &Bench, envelope: &kiln_model::evidence::Envelope) -> Vec<String> {
    let keys = kiln_control::keys::Keys::open(&bench.directory.path().join("state")).unwrap();
    let keys = keys.policy(Default::default()).unwrap().keys;
    kiln_model::evidence::open(envelope, &keys).unwrap().report.parameters
}

#[tokio::test(flavor = "multi_thread")]
async fn root_throwaway_services_of_a_killed_daemon_are_gone_at_the_next_start() {
    let mut bench = Bench::new().await;
    let directory = bench.run_dir().join("throwaway");
    let image = bench.image("one", "unused", slowly_bound);
    let request = fleet(&bench, image).await;
    let mut stream = bench.client.apply(&request).await.unwrap();
    while !matches!(stream.next().await.unwrap().unwrap(), Event::TestServerReady { .. }) {}
    let redis = lent_redis(&directory).await;
    let before = below(&directory);
    assert!(before >= 4, "two of each kind: {before}");
    bench.daemon.kill().unwrap();
    bench.daemon.wait().unwrap();
    assert!(below(&directory) >= 4, "nobody has ended them yet");
    bench.kill_and_restart().await;
    assert_eq!(left(&directory), (0, 0), "{}", bench.log());
    assert_eq!(ping(Pid::as_raw(Some(Pid::from_child(&bench.daemon))) as u32, &redis), "");
    let (last, _) = apply(&bench, &request).await;
    assert_ok(&last);
    bench.purge().await;
    assert!(!directory.exists());
}
