//! Freezing: what is checked, what is normalised, what a digest depends on, and what never gets out.
#![allow(missing_docs)]

use std::collections::BTreeMap;

use kiln_model::{
    ImageManifest,
    config::{
        ConfigKey, ConfigSchema, ConfigType, ConfigValue, Delivery, Froze, Frozen, HashKey, KeySpec, ProblemKind,
        RawConfig, freeze,
    },
    manifest::Binding,
};
use proptest::prelude::*;

fn key(name: &str) -> ConfigKey {
    name.parse().unwrap()
}

fn text(text: &str) -> ConfigValue {
    ConfigValue::Text(text.to_owned())
}

fn spec(kind: ConfigType) -> KeySpec {
    KeySpec { kind, default: None, optional: false, delivery: Delivery::Open, description: String::new() }
}

fn image(keys: Vec<(&str, KeySpec)>) -> ImageManifest {
    let mut image = ImageManifest::new("app".parse().unwrap(), BTreeMap::new());
    image.config = ConfigSchema(keys.into_iter().map(|(name, spec)| (key(name), spec)).collect());
    image
}

fn raw(values: Vec<(&str, ConfigValue)>) -> RawConfig {
    let values = values.into_iter().map(|(name, value)| (key(name), value)).collect();
    RawConfig { values, ..RawConfig::default() }
}

const KEY: HashKey = HashKey::new([7; 32]);

fn froze(image: &ImageManifest, values: Vec<(&str, ConfigValue)>) -> Froze {
    freeze(image, &raw(values), &KEY).unwrap()
}

fn kinds() -> Vec<(ConfigType, Vec<ConfigValue>, ConfigValue, Vec<ConfigValue>)> {
    let int = ConfigValue::Integer;
    let number = |x: f64| ConfigValue::Number(serde_json::Number::from_f64(x).unwrap());
    let pattern = Some("[a-z]+".to_owned());
    let ten = Some(serde_json::Number::from(10));
    vec![
        (
            ConfigType::String { pattern: None },
            vec![text("a")],
            text("a"),
            vec![int(1), text("a\0"), text(&"x".repeat(65_537))],
        ),
        (ConfigType::String { pattern }, vec![text("abc")], text("abc"), vec![text("abc1"), text(""), text("1abc")]),
        (
            ConfigType::Integer { min: Some(1), max: Some(9) },
            vec![int(9), text("9"), text(" 9\n")],
            int(9),
            vec![int(0), int(10), text("x"), text("9.0"), number(9.0)],
        ),
        (
            ConfigType::Number { min: None, max: ten },
            vec![int(2), number(2.0), text("2"), text("2.0")],
            number(2.0),
            vec![number(10.1), text("NaN"), ConfigValue::Boolean(true)],
        ),
        (
            ConfigType::Boolean,
            vec![ConfigValue::Boolean(true), text("true")],
            ConfigValue::Boolean(true),
            vec![int(1), text("yes"), text("True")],
        ),
        (
            ConfigType::Duration { min: Some("1s".into()), max: Some("1h".into()) },
            vec![text("60s"), text("1m"), text("60000ms")],
            text("1m"),
            vec![text("1"), text("500ms"), text("61m"), int(60)],
        ),
        (
            ConfigType::Size { min: None, max: Some("1GiB".parse().unwrap()) },
            vec![text("1024KiB"), text("1MiB")],
            text("1MiB"),
            vec![text("2GiB"), text("1MB")],
        ),
        (
            ConfigType::Url,
            vec![text("HTTP://A/x"), text("http://a/x")],
            text("http://a/x"),
            vec![text("a/x"), text("http://")],
        ),
        (ConfigType::Address, vec![text("DB:5432")], text("db:5432"), vec![text("db"), text("db:0")]),
        (
            ConfigType::Enum { values: vec!["a".into(), "b".into()] },
            vec![text("b")],
            text("b"),
            vec![text("c"), text(""), text("B")],
        ),
        (
            ConfigType::List { items: Box::new(ConfigType::Duration { min: None, max: None }) },
            vec![ConfigValue::List(vec![text("60s")]), text("[\"1m\"]")],
            ConfigValue::List(vec![text("1m")]),
            vec![text("60s"), ConfigValue::List(vec![text("x")]), ConfigValue::List(vec![text("1s"); 1001])],
        ),
    ]
}

#[test]
fn unit_config_values_are_checked_and_normalised_by_their_type() {
    for (kind, good, normal, bad) in kinds() {
        let image = image(vec![("it", spec(kind.clone()))]);
        for value in good {
            let frozen = froze(&image, vec![("it", value.clone())]).config;
            assert_eq!(frozen.values[&key("it")], Frozen::Value(normal.clone()), "{kind:?} {value:?}");
        }
        for value in bad {
            let problems = freeze(&image, &raw(vec![("it", value.clone())]), &KEY).unwrap_err();
            assert!(matches!(problems[0].kind, ProblemKind::Unfit { .. }), "{kind:?} {value:?}");
        }
    }
}

#[test]
fn unit_config_everything_wrong_is_told_at_once() {
    let optional = KeySpec { optional: true, ..spec(ConfigType::Boolean) };
    let image =
        image(vec![("needed", spec(ConfigType::Url)), ("workers", spec(ConfigType::Boolean)), ("extra", optional)]);
    let problems = freeze(&image, &raw(vec![("worker", text("1")), ("workers", text("x"))]), &KEY).unwrap_err();
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "the image has no configuration key `worker`; did you mean `workers`?",
            "`needed` has no value: it must be a URL with a host, for example `\"https://api.example/v1\"`",
            "`workers` must be true or false",
        ]
    );
}

#[test]
fn unit_config_defaults_are_frozen_and_live_keys_are_not() {
    let live =
        KeySpec { delivery: Delivery::Live, default: Some(text("info")), ..spec(ConfigType::String { pattern: None }) };
    let plain =
        KeySpec { default: Some(ConfigValue::Integer(4)), ..spec(ConfigType::Integer { min: None, max: None }) };
    let image = image(vec![("level", live), ("workers", plain)]);
    let quiet = froze(&image, vec![]);
    let loud = froze(&image, vec![("level", text("debug"))]);
    assert_eq!(quiet.config.digest(), loud.config.digest());
    assert_eq!((&quiet.live[&key("level")], &loud.live[&key("level")]), (&text("info"), &text("debug")));
    assert_eq!(quiet.config.digest(), froze(&image, vec![("workers", ConfigValue::Integer(4))]).config.digest());
    assert_ne!(quiet.config.digest(), froze(&image, vec![("workers", ConfigValue::Integer(5))]).config.digest());
}

#[test]
fn unit_config_bindings_are_checked_like_keys() {
    let mut image = image(vec![]);
    let secret = KeySpec { delivery: Delivery::Secret, ..spec(ConfigType::String { pattern: None }) };
    let fields = ConfigSchema(BTreeMap::from([(key("address"), spec(ConfigType::Address)), (key("password"), secret)]));
    let binding = Binding { kind: "redis".into(), fields, wait: false, test: Default::default() };
    image.bindings.insert("cache".parse().unwrap(), binding);
    let given = |name: &str, values: Vec<(&str, &str)>| RawConfig {
        bindings: BTreeMap::from([(
            name.parse().unwrap(),
            values.into_iter().map(|(k, v)| (key(k), text(v))).collect(),
        )]),
        ..RawConfig::default()
    };
    let froze = freeze(&image, &given("cache", vec![("address", "A:1"), ("password", "hunter22")]), &KEY).unwrap();
    assert_eq!(froze.config.bindings[&"cache".parse().unwrap()][&key("address")], Frozen::Value(text("a:1")));
    assert_eq!(froze.secrets.0.len(), 1);
    let problems = freeze(&image, &given("cash", vec![("address", "A:1")]), &KEY).unwrap_err();
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[2].contains("no service binding for `cash.address`"), "{said:?}");
}

#[test]
fn unit_config_a_binding_does_not_lead_to_the_loopback_wherever_its_host_comes_from() {
    let mut image = image(vec![]);
    let host = spec(ConfigType::String { pattern: None });
    let fields = ConfigSchema(BTreeMap::from([(key("host"), host.clone()), (key("via"), host)]));
    let binding = Binding { kind: "smtp".into(), fields, wait: false, test: Default::default() };
    image.bindings.insert("mail".parse().unwrap(), binding);
    let frozen = |host: &str| {
        let fields = [("host", host), ("via", "127.0.0.1")].map(|(name, value)| (key(name), text(value)));
        let bindings = BTreeMap::from([("mail".parse().unwrap(), fields.into())]);
        freeze(&image, &RawConfig { bindings, ..RawConfig::default() }, &KEY)
    };
    frozen("mail.example").unwrap();
    for host in ["127.0.0.1", "localhost", "::1", "0.0.0.0", "a.localhost"] {
        let problems = frozen(host).unwrap_err();
        assert_eq!(
            problems.iter().map(|problem| &problem.kind).collect::<Vec<_>>(),
            [&ProblemKind::Loopback],
            "{host}"
        );
        assert!(problems[0].to_string().starts_with("`mail.host` must be an address that is reached"), "{host}");
    }
}

#[test]
fn unit_config_the_canonical_form_is_pinned() {
    let image =
        image(vec![("workers", spec(ConfigType::Integer { min: None, max: None })), ("on", spec(ConfigType::Boolean))]);
    let config = froze(&image, vec![("workers", ConfigValue::Integer(4)), ("on", ConfigValue::Boolean(true))]).config;
    let json = r#"{"environment":{},"values":{"on":{"value":true},"workers":{"value":4}}}"#;
    assert_eq!(serde_json::to_string(&config).unwrap(), json);
    assert_eq!(
        config.digest().to_string(),
        kiln_model::Digest::of(format!("kiln-config-v1\0{json}").as_bytes()).to_string()
    );
}

proptest! {
    /// The digest is that of the meaning: not of the order, and not of whether a value was a literal or a text from outside.
    #[test]
    fn unit_config_digests_do_not_depend_on_order_or_source(
        numbers in proptest::collection::btree_map("[a-z][a-z0-9_]{0,8}", any::<i64>(), 1..6)
    ) {
        let integer = || spec(ConfigType::Integer { min: None, max: None });
        let image = image(numbers.keys().map(|name| (name.as_str(), integer())).collect());
        let literals = numbers.iter().map(|(k, v)| (k.as_str(), ConfigValue::Integer(*v))).collect();
        let texts = numbers.iter().rev().map(|(k, v)| (k.as_str(), text(&v.to_string()))).collect();
        prop_assert_eq!(froze(&image, literals).config.digest(), froze(&image, texts).config.digest());
    }

    /// A secret is in nothing that is stored or shown, tells by its hash whether it changed, and has another hash under another
    /// key and in another place.
    #[test]
    fn unit_config_secrets_are_never_visible(secret in "[!-~]{8,40}", other in "[!-~]{8,40}") {
        prop_assume!(secret != other);
        let hidden = || KeySpec { delivery: Delivery::Secret, ..spec(ConfigType::String { pattern: None }) };
        let image = image(vec![("password", hidden()), ("token", hidden())]);
        let both = |a: &str, b: &str| vec![("password", text(a)), ("token", text(b))];
        let froze = froze(&image, both(&secret, &secret));
        let shown = format!("{froze:?} {} {:?}", serde_json::to_string(&froze.config).unwrap(), raw(both(&secret, &other)));
        prop_assert!(!shown.contains(&secret));
        let hashes: Vec<_> = froze.config.secrets().cloned().collect();
        prop_assert_ne!(&hashes[0], &hashes[1]);
        prop_assert!(hashes.iter().all(|hash| froze.secrets.0[hash] == text(&secret)));
        let again = freeze(&image, &raw(both(&secret, &secret)), &KEY).unwrap();
        prop_assert_eq!(froze.config.digest(), again.config.digest());
        let foreign = freeze(&image, &raw(both(&secret, &secret)), &HashKey::new([8; 32])).unwrap();
        prop_assert_ne!(froze.config.digest(), foreign.config.digest());
        let changed = freeze(&image, &raw(both(&other, &secret)), &KEY).unwrap();
        prop_assert_ne!(froze.config.digest(), changed.config.digest());
    }

    /// What was normalised is normal: freezing again changes nothing.
    #[test]
    fn unit_config_the_normal_form_is_stable(value in "[ -~]{0,30}") {
        for (kind, ..) in kinds() {
            if let Ok(once) = kind.read(&text(&value)) {
                prop_assert_eq!(kind.read(&once), Ok(once.clone()));
            }
        }
    }

    /// A wrong secret is not repeated by the error about it.
    #[test]
    fn unit_config_problems_do_not_repeat_values(value in "[A-Z]{12,20}") {
        for (kind, ..) in kinds() {
            let image = image(vec![("it", KeySpec { delivery: Delivery::Secret, ..spec(kind) })]);
            if let Err(problems) = freeze(&image, &raw(vec![("it", text(&value))]), &KEY) {
                let said = format!("{problems:?} {}", problems[0]);
                prop_assert!(!said.contains(&value));
            }
        }
    }
}
