//! Configuration reaches services by their environment and by files rendered before they start.

use std::collections::BTreeMap;

use kiln_model::{
    Digest, FrozenConfig, ImageManifest,
    config::{ConfigKey, ConfigValue, Frozen, SecretHash, Secrets},
    manifest::Template,
};
use kiln_runtime::RuntimeError;

use crate::bench::{Bench, IDLE, eventually, id, image};

fn key(text: &str) -> ConfigKey {
    text.parse().unwrap()
}

fn text(text: &str) -> ConfigValue {
    ConfigValue::Text(text.to_owned())
}

fn template(path: &str, content: &str) -> Template {
    Template {
        path: path.to_owned(),
        source: "site.conf.j2".to_owned(),
        content: content.to_owned(),
        user: "web".to_owned(),
        mode: 0o640,
    }
}

fn secret(value: &str) -> (Frozen, Secrets) {
    let hash = SecretHash(Digest::of(value.as_bytes()));
    (Frozen::Secret(hash.clone()), Secrets(BTreeMap::from([(hash, text(value))])))
}

/// A configuration with one value of each kind, and its secret.
fn configuration() -> (FrozenConfig, Secrets) {
    let (hidden, secrets) = secret("hunter2");
    let list = ConfigValue::List(vec![text("a"), text("b")]);
    let values = BTreeMap::from([
        (key("greeting"), Frozen::Value(text("good day"))),
        (key("workers"), Frozen::Value(ConfigValue::Integer(4))),
        (key("pause"), Frozen::Value(text("2m"))),
        (key("cache"), Frozen::Value(text("64MiB"))),
        (key("names"), Frozen::Value(list)),
        (key("password"), hidden),
    ]);
    let db = BTreeMap::from([(key("host"), Frozen::Value(text("10.0.0.5")))]);
    let bindings = BTreeMap::from([("main-db".parse().unwrap(), db)]);
    (FrozenConfig { environment: BTreeMap::new(), values, bindings }, secrets)
}

fn rendered(content: &str) -> Result<String, RuntimeError> {
    let bench = Bench::new();
    let mut manifest = image(IDLE);
    manifest.templates = vec![template("/run/app/site.conf", content)];
    let (config, secrets) = configuration();
    bench.configured("one", manifest, config, secrets)?;
    Ok(bench.shell("one", "cat /run/app/site.conf"))
}

fn refusal(content: &str) -> String {
    rendered(content).unwrap_err().to_string()
}

#[test]
fn root_services_get_the_values_of_their_keys_as_variables() {
    let bench = Bench::new();
    let mut manifest = image(&format!("env > /run/seen.new; mv /run/seen.new /run/seen; {IDLE}"));
    let configured = [
        ("GREETING", "greeting"),
        ("WORKERS", "workers"),
        ("NAMES", "names"),
        ("PASSWORD", "password"),
        ("ABSENT", "absent"),
        ("FLEET", "greeting"),
    ];
    let service = manifest.services.values_mut().next().unwrap();
    service.configured = configured.map(|(name, from)| (name.to_owned(), key(from))).into();
    service.environment = BTreeMap::from([("GREETING".to_owned(), "of the image".to_owned())]);
    let (mut config, secrets) = configuration();
    config.environment.insert("FLEET".to_owned(), "of the fleet".to_owned());
    bench.configured("one", manifest, config, secrets).unwrap();
    eventually(|| bench.shell("one", "ls /run/seen 2>/dev/null") == "/run/seen\n");
    let seen = bench.shell("one", "cat /run/seen");
    for line in ["GREETING=good day", "WORKERS=4", r#"NAMES=["a","b"]"#, "PASSWORD=hunter2", "FLEET=of the fleet"] {
        assert!(seen.lines().any(|seen| seen == line), "{line}\n{seen}");
    }
    assert!(!seen.contains("ABSENT"), "a key without a value gives no variable\n{seen}");
}

#[test]
fn root_templates_are_rendered_before_services_start_with_owner_and_mode() {
    let bench = Bench::new();
    let mut manifest = image(&format!("cp /run/app/site.conf /run/copy.new; mv /run/copy.new /run/copy; {IDLE}"));
    manifest.templates = vec![template(
        "/run/app/site.conf",
        "{% if config.workers > 2 %}\nworkers {{ config.workers }};\n{% endif %}\n\
         pause {{ config.pause | seconds }} {{ config.pause | milliseconds }};\ncache {{ config.cache | bytes }};\n\
         {% for name in config.names %}\nname {{ name }};\n{% endfor %}\n\
         db {{ binding.main_db.host }};\npassword {{ config.password }};\n\
         {{ server.id }} {{ server.group }} {{ release is defined }}\n<{{ config.names | tojson }}>\n",
    )];
    let (config, secrets) = configuration();
    bench.configured("one", manifest, config, secrets).unwrap();
    eventually(|| bench.shell("one", "ls /run/copy 2>/dev/null") == "/run/copy\n");
    let expected = "workers 4;\npause 120 120000;\ncache 67108864;\nname a;\nname b;\ndb 10.0.0.5;\n\
                    password hunter2;\none test true\n<[\"a\", \"b\"]>\n";
    assert_eq!(bench.shell("one", "cat /run/copy"), expected);
    assert_eq!(bench.shell("one", "stat -c '%U %a' /run/app/site.conf /run/app"), "web 640\nroot 755\n");
    let children = bench.shell("one", "ls /proc/1/task/1/children >/dev/null 2>&1; ps -o pid,comm | grep -c kiln-init");
    assert_eq!(children, "1\n", "the child that renders is gone");
}

#[test]
fn root_a_template_that_is_wrong_ends_the_launch_with_its_line() {
    let bench = Bench::new();
    let mut manifest = image(IDLE);
    manifest.templates = vec![template("/run/app.conf", "fine\n{{ config.absent }}\n")];
    let (config, secrets) = configuration();
    let error = bench.configured("one", manifest, config, secrets).unwrap_err().to_string();
    assert_eq!(
        error,
        "could not render the template site.conf.j2, line 2: a name has no value in `{{ config.absent }}`"
    );
    // A place that is being prepared for the next launch has a control group.
    let left: Vec<_> = bench.left_on_host().into_iter().filter(|line| !line.starts_with("control group")).collect();
    assert_eq!(left, [""; 0], "nothing is left of it");
    let syntax = refusal("one\ntwo\n{% if %}\n");
    assert!(syntax.starts_with("could not render the template site.conf.j2, line 3: syntax error"), "{syntax}");
    let filter = refusal("{{ config.greeting | seconds }}");
    assert!(filter.contains("line 1") && filter.contains("not a duration"), "{filter}");
}

#[test]
fn root_a_hostile_template_takes_nothing_but_its_launch() {
    let endless = refusal("{% for a in range(20000) %}{% for b in range(20000) %}{% endfor %}{% endfor %}");
    assert!(endless.contains("takes more than 1000000 steps"), "{endless}");
    let long = refusal(
        "{% for a in range(20000) %}0123456789012345678901234567890123456789012345678901234567890123{% endfor %}",
    );
    assert!(long.contains("the file is larger than 1024 KiB"), "{long}");
    let doubled: String = (0..40).map(|_| "{% set x = (x ~ x) %}").collect();
    let huge = refusal(&format!("{{% set x = 'x' * 1000 %}}{doubled}"));
    assert!(huge.contains("takes more than 1000000 steps"), "{huge}");
    let lists = (0..900).map(|_| "{% set x = [x, x] %}").collect::<String>();
    let sorted = refusal(&format!("{{% set x = range(50000) | list %}}{lists}{{{{ x }}}}"));
    assert!(sorted.contains("could not render the template site.conf.j2"), "{sorted}");
    let deep = "(".repeat(100_000);
    let nested = refusal(&format!("{{{{ {deep} }}}}"));
    assert!(nested.contains("could not render the template site.conf.j2"), "{nested}");
    let include = refusal("{% include '/etc/shadow' %}");
    assert!(include.contains("line 1"), "{include}");
}

#[test]
fn root_secrets_do_not_appear_in_what_a_template_fails_with() {
    let error = refusal("{{ config.password | int }}");
    assert!(!error.contains("hunter2"), "{error}");
    let bench = Bench::new();
    let (config, _) = configuration();
    let mut manifest = image(IDLE);
    manifest.templates = vec![template("/run/app.conf", "")];
    let error = bench.configured("one", manifest, config, Secrets::default()).unwrap_err();
    assert!(error.to_string().starts_with("the secret `password` is not at hand"), "{error}");
}

#[test]
fn root_a_file_where_nothing_can_be_written_is_named() {
    let bench = Bench::new();
    let mut manifest: ImageManifest = image(IDLE);
    manifest.templates = vec![template("/etc/app.conf", "x")];
    let error = bench.configured("one", manifest.clone(), FrozenConfig::default(), Secrets::default()).unwrap_err();
    let RuntimeError::Init { action, .. } = &error else { panic!("{error}") };
    assert_eq!(action, "make the file /etc/app.conf");
    manifest.templates[0].path = "/run/app.conf".to_owned();
    manifest.templates[0].user = "nobody-here".to_owned();
    let error = bench.configured("one", manifest, FrozenConfig::default(), Secrets::default()).unwrap_err();
    assert!(error.to_string().contains("find user nobody-here"), "{error}");
    assert!(bench.runtime().files(&id("one")).is_none());
}
