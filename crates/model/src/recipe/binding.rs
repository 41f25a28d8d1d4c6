//! `[service_binding.NAME]`: external services that servers need.

use std::collections::BTreeMap;

use crate::{
    config::{ConfigKey, ConfigSchema, ConfigType, ConfigValue, Delivery, KeySpec},
    diagnostic::shown,
    id::BindingName,
    manifest::{Binding, BindingTest},
    text::{Entry, Keys, Table, Value},
};

/// The keys of a binding.
pub(crate) const KEYS: Keys = Keys { of: "a service binding", valid: &["kind", "fields", "wait", "test"] };

/// What a field is, in one word.
#[derive(Clone, Copy)]
enum Word {
    Text,
    Integer,
    Number,
    Boolean,
    Duration,
    Size,
    Url,
    Address,
    Secret,
}

const WORDS: [(&str, Word); 9] = [
    ("string", Word::Text),
    ("secret", Word::Secret),
    ("integer", Word::Integer),
    ("number", Word::Number),
    ("boolean", Word::Boolean),
    ("duration", Word::Duration),
    ("size", Word::Size),
    ("url", Word::Url),
    ("address", Word::Address),
];
const TESTS: [(&str, BindingTest); 2] = [("bound", BindingTest::Bound), ("throwaway", BindingTest::Throwaway)];
const EXAMPLE: &str = "{ db = { kind = \"postgresql\" } }";

pub(super) fn read_all(root: &Table<'_>) -> Option<BTreeMap<BindingName, Binding>> {
    let Some(value) = root.get("service_binding") else { return Some(BTreeMap::new()) };
    let all: Vec<_> = value.map(EXAMPLE)?.entries().map(|entry| read(&entry)).collect();
    all.into_iter().collect()
}

fn read(entry: &Entry<'_>) -> Option<(BindingName, Binding)> {
    let name = entry.key.parse::<BindingName>().map_err(|error| {
        entry.place.report::<()>(error.to_string(), "for example: `[service_binding.db]`");
    });
    let table = entry.value.table(KEYS, "{ kind = \"postgresql\" }")?;
    let kind = table.required("kind", "kind = \"postgresql\"").and_then(|v| v.checked("\"postgresql\"", is_word));
    let more = table.get("fields").map_or(Some(BTreeMap::new()), |v| fields(&v));
    let wait = table.get("wait").map_or(Some(true), |v| v.boolean());
    let test = table.get("test").map_or(Some(BindingTest::default()), |v| v.word(&TESTS));
    let kind = kind?;
    if test == Some(BindingTest::Throwaway) && !matches!(kind.as_str(), "postgresql" | "redis") {
        let place = table.get("test").map_or(entry.place, |v| v.place);
        let message = format!("Kiln starts a throwaway `postgresql` or `redis`, not a `{}`", shown(&kind));
        return place.report(message, "write `test = \"bound\"`: tests then run with what the fleet says");
    }
    let mut all = usual(&kind);
    all.extend(more?);
    Some((name.ok()?, Binding { kind, fields: ConfigSchema(all), wait: wait?, test: test? }))
}

fn is_word(text: &str) -> Result<(), String> {
    let good = (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if good {
        Ok(())
    } else {
        Err(format!("`{}` is not a kind of service: write a word of a-z, 0-9, `-`", shown(text)))
    }
}

/// The fields that every service of a kind has.
fn usual(kind: &str) -> BTreeMap<ConfigKey, KeySpec> {
    let text = || spec(Word::Text);
    let port = |default: Option<i64>| KeySpec {
        kind: ConfigType::Integer { min: Some(1), max: Some(65_535) },
        default: default.map(ConfigValue::Integer),
        ..spec(Word::Integer)
    };
    let fields = match kind {
        "postgresql" => vec![
            ("host", text()),
            ("port", port(Some(5432))),
            ("user", text()),
            ("password", spec(Word::Secret)),
            ("database", text()),
        ],
        "redis" => vec![
            ("host", text()),
            ("port", port(Some(6379))),
            ("password", KeySpec { optional: true, ..spec(Word::Secret) }),
        ],
        _ => vec![("host", text()), ("port", port(None))],
    };
    fields.into_iter().map(|(key, spec)| (key.parse().expect("the usual fields are keys"), spec)).collect()
}

fn spec(word: Word) -> KeySpec {
    let kind = match word {
        Word::Text | Word::Secret => ConfigType::String { pattern: None },
        Word::Integer => ConfigType::Integer { min: None, max: None },
        Word::Number => ConfigType::Number { min: None, max: None },
        Word::Boolean => ConfigType::Boolean,
        Word::Duration => ConfigType::Duration { min: None, max: None },
        Word::Size => ConfigType::Size { min: None, max: None },
        Word::Url => ConfigType::Url,
        Word::Address => ConfigType::Address,
    };
    let delivery = if matches!(word, Word::Secret) { Delivery::Secret } else { Delivery::Open };
    KeySpec { kind, default: None, optional: false, delivery, description: String::new() }
}

/// Fields beyond the usual ones: `{ region = "string" }`.
fn fields(value: &Value<'_>) -> Option<BTreeMap<ConfigKey, KeySpec>> {
    let read = |entry: Entry<'_>| {
        let key = entry.key.parse::<ConfigKey>().map_err(|error| {
            entry.place.report::<()>(error.to_string(), "for example: `fields = { region = \"string\" }`");
        });
        let word = entry.value.word(&WORDS);
        Some((key.ok()?, spec(word?)))
    };
    let all: Vec<_> = value.map("{ region = \"string\" }")?.entries().map(read).collect();
    all.into_iter().collect()
}
