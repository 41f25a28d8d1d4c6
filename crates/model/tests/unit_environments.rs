//! A fleet in files: an environment stands over it key by key, and what does not fit the image is shown at its line.

use std::collections::BTreeMap;

use kiln_model::{
    ImageManifest,
    config::{ConfigKey, ConfigSchema, ConfigSource, ConfigType, ConfigValue, Delivery, KeySpec},
    fleet::{FleetFiles, FleetText, Origin},
    manifest::{Binding, BindingTest, Writable, WritableKind},
    shared::SharedDirectory,
    volume::{Hooks, ScaleFrom},
};

const FLEET: &str = r#"[config]
region = "eu"
tier = "gold"

[group.web]
image = "hello"
count = 3
environment = { A = "1", B = "2" }
limits = { memory = "256MiB", pids = 100 }
rollout = { max_unavailable = 2 }

[group.web.config]
workers = 4
password = { env = "PASSWORD" }

[group.other]
image = "else"
config = { unknown = "tops3cret" }
"#;

fn files(base: &str, over: Option<&str>) -> FleetFiles {
    parse(base, over).unwrap_or_else(|found| panic!("{found}"))
}

fn parse(base: &str, over: Option<&str>) -> Result<FleetFiles, kiln_model::diagnostic::Diagnostics> {
    let named = |file: &str, text: &str| FleetText { file: file.to_owned(), text: text.to_owned() };
    FleetFiles::parse(named("fleet.toml", base), over.map(|over| named("fleet.staging.toml", over)))
}

fn key(name: &str) -> ConfigKey {
    name.parse().expect("a key")
}

fn image() -> ImageManifest {
    let spec =
        |kind, default, delivery| KeySpec { kind, default, optional: false, delivery, description: String::new() };
    let text = || ConfigType::String { pattern: None };
    let workers = ConfigType::Integer { min: Some(1), max: Some(64) };
    let four = Some(ConfigValue::Integer(4));
    let mut image = ImageManifest::new("hello".parse().expect("a name"), BTreeMap::new());
    image.config = ConfigSchema(BTreeMap::from([
        (key("workers"), spec(workers, four, Delivery::Open)),
        (key("password"), spec(text(), None, Delivery::Secret)),
        (key("region"), spec(text(), None, Delivery::Open)),
    ]));
    image
}

fn literal(text: &str) -> ConfigSource {
    ConfigSource::Literal(ConfigValue::Text(text.to_owned()))
}

#[test]
fn unit_an_environment_stands_over_the_fleet_key_by_key() {
    let over = "[config]\nregion = \"us\"\n[group.web]\nimage = \"hello@stable\"\ncount = 2\nenvironment = { B = \"3\" }\n\
                limits = { pids = 50 }\nconfig = { workers = 9 }\n";
    let found = files(FLEET, Some(over));
    let web = &found.fleet.groups[&"web".parse().expect("a name")];
    assert_eq!((web.image.to_string().as_str(), web.count), ("hello@stable", 2));
    assert_eq!(web.environment, BTreeMap::from([("A".into(), "1".into()), ("B".into(), "3".into())]));
    assert_eq!((web.limits.memory.map(|size| size.to_string()), web.limits.pids), (Some("256MiB".into()), Some(50)));
    assert_eq!(web.config[&key("workers")], ConfigSource::Literal(ConfigValue::Integer(9)));
    assert_eq!(found.fleet.config, BTreeMap::from([(key("region"), literal("us")), (key("tier"), literal("gold"))]));
    let origin = |name: &str| found.origin(&"web".parse().expect("a name"), &key(name));
    assert_eq!(origin("workers"), Some(Origin { environment: true, own: true }));
    assert_eq!(origin("password"), Some(Origin { environment: false, own: true }));
    assert_eq!(origin("region"), Some(Origin { environment: true, own: false }));
    assert_eq!(origin("tier"), Some(Origin { environment: false, own: false }));
    assert_eq!(origin("nothing"), None);
}

#[test]
fn unit_a_key_of_the_fleet_goes_to_the_groups_whose_image_has_it() {
    let mut fleet = files(FLEET, None).fleet;
    let image = image();
    fleet.spread(|group| (group.as_str() == "web").then_some(&image.config));
    let given = |group: &str| fleet.groups[&group.parse().expect("a name")].config.clone();
    assert_eq!(given("web").get(&key("region")), Some(&literal("eu")));
    assert_eq!(given("web").get(&key("tier")), None);
    assert_eq!(given("other").keys().collect::<Vec<_>>(), [&key("unknown")]);
    fleet.config.insert(key("workers"), literal("below the group's own"));
    let web = fleet.groups[&"web".parse().expect("a name")].clone();
    assert_eq!(
        fleet.values_of(&web, &image.config)[&key("workers")],
        ConfigSource::Literal(ConfigValue::Integer(4)),
        "the group's own value wins"
    );
}

#[test]
fn unit_what_is_wrong_with_an_environment() {
    let wrong = [
        "[group.wep]\ncount = 1\n",
        "[group.web]\npublish = []\n[evidence]\nmax_age = \"1d\"\n",
        "[group.web]\ncount = 1\nlimits = { cpus = 1 }\n[group.web.config]\nWorkers = 1\n",
    ];
    let shown = wrong.map(|over| parse(FLEET, Some(over)).expect_err("it is wrong").render(false, 100));
    insta::assert_snapshot!(shown.join("--------\n"));
    let base = parse("[group.web]\n", Some("[group.web]\ncount = 1\n")).expect_err("the fleet is wrong");
    assert_eq!(base.file, "fleet.toml");
}

#[test]
fn unit_values_that_do_not_fit_are_shown_at_their_line() {
    let group = "[group.web]\nimage = \"hello\"\n";
    let wrong = [
        (format!("{group}config = {{ workrs = 4, region = \"eu\", password = \"tops3cret\" }}\n"), None),
        (format!("{group}[group.web.config]\nworkers = \"four\"\npassword = 12345678\n"), None),
        (format!("[config]\nregoin = \"eu\"\nworkers = 65\n\n{group}"), None),
        (FLEET.to_owned(), Some("[config]\nregion = 5\n[group.web.config]\npassword = 87654321\nworkers = 0\n")),
    ];
    let shown: Vec<_> = wrong
        .iter()
        .map(|(base, over)| files(base, *over).check(&image()).expect_err("it does not fit").render(false, 100))
        .collect();
    let shown = shown.join("--------\n");
    for secret in ["tops3cret", "12345678", "87654321"] {
        assert!(!shown.contains(secret), "{secret} is shown:\n{shown}");
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn unit_bindings_that_do_not_fit_are_shown_at_their_line() {
    let mut image = ImageManifest::new("hello".parse().expect("a name"), BTreeMap::new());
    let fields = self::image().config;
    image.bindings.insert(
        "db".parse().expect("a name"),
        Binding { kind: "postgresql".into(), fields, wait: false, test: BindingTest::default() },
    );
    let group = "[group.web]\nimage = \"hello\"\n";
    let wrong = [
        group.to_owned(),
        format!("{group}[group.web.service_binding.bd]\nhost = \"x\"\n"),
        format!("{group}[group.web.service_binding.db]\nregion = 1\npassword = 12345678\nworkrs = 1\n"),
    ];
    let shown = wrong.map(|base| files(&base, None).check(&image).expect_err("it does not fit").render(false, 100));
    let shown = shown.join("--------\n");
    assert!(!shown.contains("12345678"), "a secret is shown:\n{shown}");
    insta::assert_snapshot!(shown);
}

#[test]
fn unit_what_fits_is_accepted_also_where_a_source_must_be_asked() {
    files(FLEET, None).check(&image()).expect("it fits");
    let pinned = "[group.web]\nimage = \"hello@stable\"\nconfig = { old = 1 }\n";
    files(pinned, None).check(&image()).expect("another image of the name has keys of its own");
}

#[test]
fn unit_variables_of_the_caller_are_put_in_their_place() {
    let text = "[config]\nregion = { env = \"REGION\" }\n[group.web]\nimage = \"hello\"\n[group.web.config]\n\
                workers = { etcd = \"a:1/x\", user = \"u\", password = { env = \"PW\" } }\n\
                [group.web.service_binding.db]\nhost = { env = \"HOST\" }\n";
    let all = |name: &str| Some(format!("value of {name}"));
    let fleet = files(text, None).fleet.with_variables(&all).expect("all are set");
    assert_eq!(fleet.config[&key("region")], literal("value of REGION"));
    let shown = serde_json::to_string(&fleet).expect("JSON");
    assert!(shown.contains("value of PW") && shown.contains("value of HOST") && !shown.contains("\"env\""), "{shown}");
    let missing = |variable: &str| {
        let find = |name: &str| (name != variable).then(String::new);
        files(text, None).fleet.with_variables(&find).expect_err("one is not set").to_string()
    };
    assert_eq!(
        missing("REGION"),
        "`[config]` of the fleet takes `region` from the variable `REGION`, which is not set"
    );
    assert_eq!(missing("PW"), "group `web` takes `workers` from the variable `PW`, which is not set");
    assert_eq!(missing("HOST"), "group `web` takes `db.host` from the variable `HOST`, which is not set");
}

#[test]
fn unit_data_that_does_not_fit_is_shown_at_its_line() {
    let mut image = image();
    image.config = ConfigSchema::default();
    let writable = |path: &str, kind| Writable { path: path.into(), kind, user: "root".into(), mode: 0o755 };
    let name = "data".parse().expect("a name");
    let volume = WritableKind::Volume { name, hooks: Hooks::default(), scale_from: ScaleFrom::Empty };
    let shared = WritableKind::Shared { name: "uploads".parse().expect("a name") };
    image.writable = vec![writable("/data", volume), writable("/uploads", shared)];
    let wrong = [
        "",
        "volume = { date = { size = \"1GiB\" } }\nshared = { upload = { directory = \"/srv/x\" } }\n",
        "volume = { data = { size = \"1GiB\" }, other = { size = \"1GiB\" } }\n\
         shared = { uploads = { directory = \"/srv/x\" }, archive = { nfs = \"nas:/x\" } }\n",
    ];
    let shown = wrong.map(|keys| {
        let fleet = format!("[group.web]\nimage = \"hello\"\n{keys}");
        files(&fleet, None).check(&image).expect_err("it does not fit").render(false, 100)
    });
    insta::assert_snapshot!(shown.join("--------\n"));
    let fleet = "[group.web]\nimage = \"hello\"\n[group.web.shared.uploads]\ndirectory = \"/srv/x\"\n";
    let usable = |_: &SharedDirectory| Err("the directory /srv/x is not there".to_owned());
    let shown = files(fleet, None).check_shared(&image, usable).expect_err("it is not there").render(false, 100);
    assert!(shown.contains("fleet.toml:4:13") && shown.contains("is not there"), "{shown}");
}
