//! Configuration through the whole daemon: frozen, tested with the image, rolled out and back; secrets are nowhere in clear.

use std::{fs, path::Path};

use kiln_api::{
    Event,
    request::{ApplyRequest, Loss, RollbackRequest},
};
use kiln_model::{
    ImageDigest, ImageManifest, Suite,
    config::{ConfigSchema, ConfigSource, ConfigValue},
    manifest::Binding,
    suite::{Test, TestKind, TextMatch},
};

use crate::bench::{Bench, assert_ok, endpoint, request};

pub fn schema(keys: &[(&str, &str)]) -> ConfigSchema {
    let keys = keys.iter().map(|(key, spec)| (key.parse().unwrap(), serde_json::from_str(spec).unwrap()));
    ConfigSchema(keys.collect())
}

const SECRET: &str = "correct-horse-battery-staple";

/// The page says the greeting; the password is where a test may look.
pub fn configured(manifest: &mut ImageManifest, suite: &mut Suite) {
    manifest.config = schema(&[
        ("greeting", r#"{ "type": "string", "default": "hello" }"#),
        ("workers", r#"{ "type": "integer", "min": 1, "optional": true }"#),
        ("password", r#"{ "type": "string", "optional": true, "delivery": "secret" }"#),
    ]);
    let script = "mkdir /tmp/www; echo -n \"$GREETING $DB_URL\" > /tmp/www/index.html; echo -n \"$PASSWORD\" > /run/password; \
                  exec /bin/httpd -f -p 8080 -h /tmp/www";
    for service in manifest.services.values_mut() {
        service.command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let named = |variable: &str, key: &str| (variable.to_owned(), key.parse().unwrap());
        service.configured = [named("GREETING", "greeting"), named("PASSWORD", "password")].into();
    }
    suite.tests.clear();
}

pub fn with(image: ImageDigest, values: &[(&str, ConfigSource)]) -> ApplyRequest {
    let mut request = request(image);
    for group in request.fleet.groups.values_mut() {
        group.config = values.iter().map(|(key, value)| (key.parse().unwrap(), value.clone())).collect();
    }
    request
}

pub fn text(value: &str) -> ConfigSource {
    ConfigSource::Literal(ConfigValue::Text(value.to_owned()))
}

pub async fn apply(bench: &Bench, request: &ApplyRequest) -> (Event, Vec<Event>) {
    let mut seen = Vec::new();
    let stream = bench.client.apply(request).await.unwrap();
    let last = stream.finish(|event| seen.push(event.clone())).await.unwrap();
    (last, seen)
}

pub fn reused(events: &[Event]) -> Vec<bool> {
    let reused = |event: &Event| match event {
        Event::SuiteFinished { reused, .. } => Some(*reused),
        _ => None,
    };
    events.iter().filter_map(reused).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_change_of_configuration_alone_is_tested_rolled_out_and_rolled_back() {
    let mut bench = Bench::new().await;
    let image = bench.image("one", "unused", configured);
    let (last, _) = apply(&bench, &with(image, &[])).await;
    assert_ok(&last);
    let at = endpoint(&last);
    assert_eq!(bench.page(&at).await, "hello ", "the recipe's default");
    let first = bench.group().await;

    let file = bench.directory.path().join("greeting");
    fs::write(&file, "good evening\n").unwrap();
    let mut changed = with(image, &[("greeting", ConfigSource::File("greeting".into()))]);
    changed.directory = bench.directory.path().to_owned();
    let (last, events) = apply(&bench, &changed).await;
    assert_ok(&last);
    assert_eq!(reused(&events), [false], "the pair was not tested before");
    assert_eq!(bench.page(&at).await, "good evening ");
    let second = bench.group().await;
    assert_eq!(first.image, second.image);
    assert_ne!((&first.config, &first.release), (&second.config, &second.release));

    let (last, events) = apply(&bench, &with(image, &[("greeting", text("good evening"))])).await;
    assert_ok(&last);
    assert_eq!(reused(&events), [true], "where a value comes from is not part of it");
    assert_eq!(bench.group().await.release, second.release);

    fs::remove_file(&file).unwrap();
    let rolled = bench
        .client
        .rollback(&RollbackRequest { group: "web".parse().unwrap(), with_data: false, loss: Loss::Refuse })
        .await
        .unwrap();
    assert_ok(&rolled.finish(|_| ()).await.unwrap());
    assert_eq!(bench.page(&at).await, "hello ");
    assert_eq!(bench.group().await.release, first.release);
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_values_of_the_whole_fleet_go_to_the_groups_whose_image_has_the_key() {
    let mut bench = Bench::new().await;
    let image = bench.image("one", "unused", configured);
    let mut wanted = with(image, &[]);
    wanted.fleet.config = [("greeting", text("from the fleet")), ("nobody", text("has this"))]
        .map(|(key, value)| (key.parse().unwrap(), value))
        .into();
    let (last, _) = apply(&bench, &wanted).await;
    assert_ok(&last);
    assert_eq!(bench.page(&endpoint(&last)).await, "from the fleet ");
    for group in wanted.fleet.groups.values_mut() {
        group.config.insert("greeting".parse().unwrap(), text("from the group"));
    }
    let (last, _) = apply(&bench, &wanted).await;
    assert_ok(&last);
    assert_eq!(bench.page(&endpoint(&last)).await, "from the group ", "a group knows better");
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_values_that_do_not_fit_or_cannot_be_had_change_nothing() {
    let mut bench = Bench::new().await;
    let image = bench.image("one", "unused", configured);
    let workers = |value| ("workers", ConfigSource::Literal(value));
    let missing = ("greeting", ConfigSource::File("/nowhere/greeting".into()));
    let wrong = [
        (("workers", text("many")), "group web: `workers` must be a whole number"),
        (workers(ConfigValue::Integer(0)), "group web: `workers` must be a whole number"),
        (("worker", text("1")), "the image has no configuration key `worker`; did you mean `workers`?"),
        (missing, "group web: the value of `greeting` could not be had"),
    ];
    for (value, expected) in wrong {
        let (last, _) = apply(&bench, &with(image, &[value])).await;
        let Event::Result { error: Some(error), .. } = &last else { panic!("{last:#?}") };
        assert!(error.message.contains(expected), "{error:?}");
        assert!(error.help.as_deref().is_some_and(|help| help.starts_with("nothing was changed")), "{error:?}");
        assert_eq!(bench.client.status().await.unwrap().groups.len(), 0);
    }
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_secret_reaches_the_server_and_is_nowhere_in_clear() {
    let mut bench = Bench::new().await;
    let image = bench.image("one", "unused", |manifest, suite| {
        configured(manifest, suite);
        suite.tests.push(look("the password is there", SECRET));
    });
    let (last, events) = apply(&bench, &with(image, &[("password", text(SECRET))])).await;
    assert_ok(&last);
    assert!(!format!("{events:?}{last:?}").contains(SECRET), "{events:#?}");
    let leaking = bench.image("two", "unused", |manifest, suite| {
        configured(manifest, suite);
        suite.tests.push(look("the password is shown by a test that fails", "another one"));
    });
    let (failed, events) = apply(&bench, &with(leaking, &[("password", text(SECRET))])).await;
    assert!(matches!(&failed, Event::Result { error: Some(_), .. }), "{failed:#?}");
    let said = format!("{events:?}{failed:?}");
    assert!(said.contains("••••••") && !said.contains(SECRET), "{said}");

    // A daemon that has forgotten everything heals with the sealed secret.
    bench.kill_and_restart().await;
    let victim = bench.group().await.servers[0].clone();
    let pid = rustix::process::Pid::from_raw(victim.pid.unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let healed = async || {
        let group = bench.group().await;
        group.ready == 3 && group.servers.iter().all(|server| server.id != victim.id)
    };
    for _ in 0..1000 {
        if healed().await {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(healed().await, "{:#?} {}", bench.group().await, bench.log());
    assert_eq!(files_with(&bench.directory.path().join("state"), SECRET.as_bytes()), Vec::<String>::new());
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_bound_services_come_as_variables() {
    let mut bench = Bench::new().await;
    let image = bench.image("one", "unused", |manifest, suite| {
        configured(manifest, suite);
        let fields = schema(&[
            ("host", r#"{ "type": "string" }"#),
            ("port", r#"{ "type": "integer", "default": 5432 }"#),
            ("user", r#"{ "type": "string" }"#),
            ("database", r#"{ "type": "string" }"#),
        ]);
        let binding: Binding = serde_json::from_value(serde_json::json!({
            "kind": "postgresql", "fields": fields, "wait": false
        }))
        .unwrap();
        manifest.bindings.insert("db".parse().unwrap(), binding);
    });
    let mut wanted = with(image, &[]);
    for group in wanted.fleet.groups.values_mut() {
        let fields = [("host", "db.example"), ("user", "app"), ("database", "orders")];
        let fields = fields.map(|(key, value)| (key.parse().unwrap(), text(value)));
        group.bindings.insert("db".parse().unwrap(), fields.into());
    }
    let (last, _) = apply(&bench, &wanted).await;
    assert_ok(&last);
    assert_eq!(bench.page(&endpoint(&last)).await, "hello postgresql://app@db.example:5432/orders");
    bench.purge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_secrets_that_no_release_to_go_back_to_names_are_collected() {
    let mut bench = Bench::new().await;
    let image = bench.image("one", "unused", configured);
    let secrets = bench.directory.path().join("state/secrets");
    for password in ["first", "second", "third"] {
        assert_ok(&apply(&bench, &with(image, &[("password", text(password))])).await.0);
    }
    assert_eq!(bench.client.gc().await.unwrap().secrets, 0, "they are too young");
    let files = || fs::read_dir(&secrets).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(files().len(), 3);
    for file in files() {
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 86_400);
        fs::File::open(file).unwrap().set_modified(long_ago).unwrap();
    }
    assert_eq!(bench.client.gc().await.unwrap().secrets, 1, "the release that runs and the one before keep theirs");
    let rolled = bench
        .client
        .rollback(&RollbackRequest { group: "web".parse().unwrap(), with_data: false, loss: Loss::Refuse })
        .await
        .unwrap();
    assert_ok(&rolled.finish(|_| ()).await.unwrap());
    bench.purge().await;
}

fn look(name: &str, expected: &str) -> Test {
    let kind = TestKind::Command {
        command: ["/bin/busybox", "cat", "/run/password"].map(str::to_owned).to_vec(),
        user: "root".into(),
        exit: 0,
        stdout: vec![TextMatch::Equals(expected.into())],
        stderr: Vec::new(),
    };
    Test { name: name.to_owned(), within: std::time::Duration::from_millis(300), kind }
}

/// Files below a directory that hold these bytes.
pub fn files_with(directory: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(files_with(&path, bytes));
        } else if fs::read(&path).is_ok_and(|content| content.windows(bytes.len()).any(|window| window == bytes)) {
            found.push(path.display().to_string());
        }
    }
    found
}
