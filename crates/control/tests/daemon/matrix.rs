//! Tests that read the configuration, and further configurations of a suite, through the whole daemon.

use kiln_api::{
    Event,
    report::TestReport,
    request::{ApplyRequest, Fresh, TestRequest},
};
use kiln_model::{
    ImageManifest, Suite,
    config::{ConfigSource, ConfigValue},
    suite::{Configured, Expected, MatrixEntry, Test, TestKind, TextMatch},
};

use crate::{
    bench::{Bench, assert_ok, request},
    config::{apply, schema},
};

const SECRET: &str = "correct-horse-battery-staple";

/// Greets, unless it is told to break.
fn greeting(manifest: &mut ImageManifest, suite: &mut Suite) {
    manifest.config = schema(&[
        ("greeting", r#"{ "type": "string", "default": "hello" }"#),
        ("password", r#"{ "type": "string", "delivery": "secret" }"#),
    ]);
    let script = "[ \"$GREETING\" != break ] || exit 1; mkdir /tmp/www; echo -n \"$GREETING\" > /tmp/www/index.html; \
                  echo -n \"$PASSWORD\" > /run/password; exec /bin/httpd -f -p 8080 -h /tmp/www";
    for service in manifest.services.values_mut() {
        service.command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let named = |variable: &str, key: &str| (variable.to_owned(), key.parse().unwrap());
        service.configured = [named("GREETING", "greeting"), named("PASSWORD", "password")].into();
    }
    suite.tests = vec![
        test("page", look("/tmp/www/index.html", "greeting")),
        test("password", look("/run/password", "password")),
        test("told", script_test("test -n \"$KILN_CONFIG_GREETING\" && test -z \"$KILN_CONFIG_PASSWORD\"", &[])),
        test("told the secret", script_test("test ${#KILN_CONFIG_PASSWORD} -gt 8", &["password"])),
    ];
    suite.matrix = vec![entry("minimal", &[]), entry("loud", &[("greeting", "HEY")])];
}

fn entry(name: &str, values: &[(&str, &str)]) -> MatrixEntry {
    let all = values.iter().chain(&[("password", "only for tests")]);
    let config = all.map(|(key, value)| (key.parse().unwrap(), ConfigValue::Text((*value).into()))).collect();
    MatrixEntry { name: name.parse().unwrap(), config, service_binding: Default::default() }
}

fn test(name: &str, kind: TestKind) -> Test {
    Test { name: name.to_owned(), within: std::time::Duration::from_secs(2), kind }
}

fn look(path: &str, key: &str) -> TestKind {
    TestKind::Command {
        command: ["/bin/busybox", "cat", path].map(str::to_owned).to_vec(),
        user: "root".into(),
        exit: 0,
        stdout: vec![TextMatch::Equals(Expected::Configured(Configured { config: key.parse().unwrap() }))],
        stderr: Vec::new(),
    }
}

fn script_test(content: &str, secrets: &[&str]) -> TestKind {
    TestKind::Script {
        file: "check.sh".into(),
        content: format!("#!/bin/sh\n{content}\n"),
        arguments: Vec::new(),
        secrets: secrets.iter().map(|key| key.parse().unwrap()).collect(),
    }
}

fn with(image: kiln_model::ImageDigest, greeting: &str) -> ApplyRequest {
    let mut request = request(image);
    for group in request.fleet.groups.values_mut() {
        let values = [("greeting", greeting), ("password", SECRET)];
        let literal = |value: &str| ConfigSource::Literal(ConfigValue::Text(value.into()));
        group.config = values.map(|(key, value)| (key.parse().unwrap(), literal(value))).into();
    }
    request
}

/// Name and whether an earlier run was used, of every further configuration.
fn matrix(events: &[Event]) -> Vec<(String, bool)> {
    let of = |event: &Event| match event {
        Event::MatrixFinished { matrix, reused, .. } => Some((matrix.clone(), *reused)),
        _ => None,
    };
    let mut found: Vec<_> = events.iter().filter_map(of).collect();
    found.sort();
    found
}

fn both(reused: bool) -> Vec<(String, bool)> {
    ["loud", "minimal"].map(|name| (name.to_owned(), reused)).to_vec()
}

fn reports(last: &Event) -> Vec<TestReport> {
    let Event::Result { reports, .. } = last else { panic!("{last:?}") };
    reports.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_further_configurations_are_run_once_for_all_releases_of_an_image() {
    let mut bench = Bench::new().await;
    let image = bench.image("one", "unused", greeting);
    let (last, events) = apply(&bench, &with(image, "good day")).await;
    assert_ok(&last);
    assert_eq!(matrix(&events), both(false));
    let report = reports(&last).remove(0);
    let names: Vec<_> = report.matrix.iter().map(|run| (run.name.as_str(), run.passed, run.tests.len())).collect();
    assert_eq!(names, [("minimal", true, 7), ("loud", true, 7)], "four tests, and three of Kiln's own on a server");
    let human = kiln_control::harness::human(&report, 1);
    let junit = kiln_control::harness::junit(std::slice::from_ref(&report));
    assert!(
        human.contains("loud: password") && junit.contains("<testsuite name=\"web [loud]\" tests=\"7\""),
        "{junit}"
    );

    let (last, events) = apply(&bench, &with(image, "good evening")).await;
    assert_ok(&last);
    assert_eq!(matrix(&events), both(true), "they belong to the image");
    let second = reports(&last).remove(0);
    assert_ne!(second.config, report.config);
    assert_eq!(second.matrix, report.matrix, "with the time at which they were seen");

    bench.kill_and_restart().await;
    let (last, events) = apply(&bench, &with(image, "good night")).await;
    assert_ok(&last);
    assert_eq!(matrix(&events), both(true), "another daemon reads them in the signed reports");

    let mut fleet = with(image, "x").fleet;
    let group = fleet.groups.pop_first().map(|(_, group)| Box::new(group));
    let image = format!("web@{image}").parse().unwrap();
    let again = TestRequest { image, group, directory: "/".into(), fresh: Fresh::Always, move_dev: false };
    let mut seen = Vec::new();
    let stream = bench.client.test(&again).await.unwrap();
    assert_ok(&stream.finish(|event| seen.push(event.clone())).await.unwrap());
    assert_eq!(matrix(&seen), both(false), "whoever asks for tests gets them");
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_further_configuration_that_fails_fails_the_image_and_shows_no_secret() {
    let mut bench = Bench::new().await;
    let image = bench.image("one", "unused", |manifest, suite| {
        greeting(manifest, suite);
        suite.matrix.push(entry("broken", &[("greeting", "break")]));
        suite.tests.push(test("unwilling", script_test("echo $KILN_CONFIG_PASSWORD; exit 1", &["password"])));
    });
    let (last, events) = apply(&bench, &with(image, "good day")).await;
    let report = reports(&last).remove(0);
    assert!(!report.passed && report.matrix.iter().all(|run| !run.passed));
    let Event::Result { error: Some(error), .. } = &last else { panic!("{last:?}") };
    assert!(
        error.message.contains("broken: kiln/services-ready") && error.message.contains("loud: unwilling"),
        "{error}"
    );
    let shown = format!("{events:?} {last:?}");
    assert!(shown.contains("its output: \\\"••••••"), "{shown}");
    assert!(!shown.contains(SECRET) && !shown.contains("only for tests"), "{shown}");
    assert!(bench.client.status().await.unwrap().groups.is_empty(), "nothing was launched");

    let good = bench.image("two", "unused", |manifest, suite| {
        greeting(manifest, suite);
        suite.matrix.push(entry("broken", &[("greeting", "break")]));
    });
    let (last, _) = apply(&bench, &with(good, "good day")).await;
    let report = reports(&last).remove(0);
    assert!(report.tests.iter().all(|test| test.passed) && !report.passed, "the matrix alone is enough to fail");
    bench.purge().await;
}
