//! `[config.KEY]`: what servers of the image can be told.

use super::text::Placed;
use crate::{
    config::{ConfigKey, ConfigSchema, ConfigType, ConfigValue, Delivery, KeySpec, whole},
    diagnostic::shown,
    duration,
    text::{Entry, Keys, Table, Value},
};

/// The keys of a configuration key.
pub(crate) const KEYS: Keys = Keys {
    of: "a configuration key",
    valid: &[
        "type",
        "default",
        "optional",
        "min",
        "max",
        "pattern",
        "values",
        "items",
        "secret",
        "live",
        "description",
    ],
};
/// The keys of `items`.
pub(crate) const ITEMS: Keys = Keys { of: "`items`", valid: &["type", "min", "max", "pattern", "values"] };

const TYPES: [(&str, &str); 10] = [
    ("string", "string"),
    ("integer", "integer"),
    ("number", "number"),
    ("boolean", "boolean"),
    ("duration", "duration"),
    ("size", "size"),
    ("url", "url"),
    ("address", "address"),
    ("enum", "enum"),
    ("list", "list"),
];
const EXAMPLE: &str = "{ type = \"integer\", default = 4 }";
const MAX_KEYS: usize = 200;

pub(super) fn read_all(root: &Table<'_>) -> Option<ConfigSchema> {
    let Some(value) = root.get("config") else { return Some(ConfigSchema::default()) };
    let table = value.map(&format!("{{ workers = {EXAMPLE} }}"))?;
    let read: Vec<_> = table.entries().map(|entry| read(&entry)).collect();
    if read.len() > MAX_KEYS {
        let message = format!("there are {} configuration keys", read.len());
        return value.place.report(message, format!("at most {MAX_KEYS} are possible; fewer are better"));
    }
    read.into_iter().collect::<Option<_>>().map(ConfigSchema)
}

/// Reads one key and what it may be.
pub(crate) fn read(entry: &Entry<'_>) -> Option<(ConfigKey, KeySpec)> {
    let key = entry.key.parse::<ConfigKey>().map_err(|error| {
        entry.place.report::<()>(error.to_string(), "for example: `[config.log_level]`");
    });
    let table = entry.value.table(KEYS, EXAMPLE)?;
    let kind = kind(&table);
    let flag = |key| table.get(key).map_or(Some(false), |v| v.boolean());
    let (optional, secret, live) = (flag("optional"), flag("secret"), flag("live"));
    let description = table.get("description").map_or(Some(String::new()), |v| v.text().map(str::to_owned));
    let delivery = delivery(&table, secret?, live?);
    let default = default(&table, kind.as_ref(), optional, delivery);
    if let (Some(place), Some(Delivery::Live), Some(None), Some(false)) =
        (table.get("live").map(|live| live.place), delivery, &default, optional)
    {
        let message = "a live key is no part of the release, so a server must do without somebody's value";
        place.report::<()>(message, "give it a `default`, or write `optional = true`");
    }
    let (kind, optional, delivery) = (kind?, optional?, delivery?);
    Some((key.ok()?, KeySpec { kind, default: default?, optional, delivery, description: description? }))
}

fn delivery(table: &Table<'_>, secret: bool, live: bool) -> Option<Delivery> {
    match (secret, live, table.get("secret"), table.get("live")) {
        (true, true, Some(secret), Some(live)) => live.place.contradicts(
            secret.place,
            "a secret cannot be live: live values are shown and recorded as they are",
            "it is secret",
            "keep one of the two",
        ),
        (true, ..) => Some(Delivery::Secret),
        (_, true, ..) => Some(Delivery::Live),
        _ => Some(Delivery::Open),
    }
}

fn default(
    table: &Table<'_>,
    kind: Option<&ConfigType>,
    optional: Option<bool>,
    delivery: Option<Delivery>,
) -> Option<Option<ConfigValue>> {
    let Some(value) = table.get("default") else { return Some(None) };
    if delivery == Some(Delivery::Secret) {
        let place = table.get("secret").map_or(value.place, |secret| secret.place);
        let help = "remove it: a fleet gives the value";
        return value.place.contradicts(place, "a secret has no default: everyone could read it", "it is secret", help);
    }
    if optional == Some(true) {
        let place = table.get("optional").map_or(value.place, |optional| optional.place);
        let message = "a key with a default always has a value, so it is not optional";
        return value.place.contradicts(place, message, "it is optional", "keep one of the two");
    }
    let given = value.config()?;
    fitting(&value, kind?, &given).map(Some)
}

/// A value that fits its type, in its normal form.
pub(crate) fn fitting(value: &Value<'_>, kind: &ConfigType, given: &ConfigValue) -> Option<ConfigValue> {
    match kind.fit(given) {
        Ok(value) => Some(value),
        Err(unfit) => value.place.report(format!("this is not {}", unfit.0), format!("write {}", kind.wanted())),
    }
}

fn kind(table: &Table<'_>) -> Option<ConfigType> {
    let word = table.required("type", "type = \"string\"").and_then(|v| v.word(&TYPES))?;
    let allowed: &[&str] = match word {
        "string" => &["pattern"],
        "integer" | "number" | "duration" | "size" => &["min", "max"],
        "enum" => &["values"],
        "list" => &["items"],
        _ => &[],
    };
    for key in ["min", "max", "pattern", "values", "items"] {
        if !allowed.contains(&key)
            && table.has(key)
            && let (Some(value), Some(kind)) = (of(table, key), of(table, "type"))
        {
            value.place.contradicts::<()>(
                kind.place,
                format!("`{key}` does not go with the type `{word}`"),
                "the type is here",
                format!("remove `{key}`"),
            );
        }
    }
    let bound = |key| of(table, key);
    let kind = match word {
        "string" => ConfigType::String { pattern: of(table, "pattern").map_or(Some(None), |v| pattern(&v).map(Some))? },
        "integer" => {
            let int = |key| bound(key).map_or(Some(None), |v| v.integer(i64::MIN..=i64::MAX, "1").map(Some));
            ConfigType::Integer { min: int("min")?, max: int("max")? }
        }
        "number" => {
            let number = |key| bound(key).map_or(Some(None), |v| number(&v).map(Some));
            ConfigType::Number { min: number("min")?, max: number("max")? }
        }
        "duration" => {
            let most = std::time::Duration::from_secs(3_660 * 86_400);
            let time = |key| {
                let read = |v: Value<'_>| v.duration(std::time::Duration::ZERO..=most, "\"30s\"").map(duration::format);
                bound(key).map_or(Some(None), |v| read(v).map(Some))
            };
            ConfigType::Duration { min: time("min")?, max: time("max")? }
        }
        "size" => {
            let size = |key| bound(key).map_or(Some(None), |v| v.parsed("\"64MiB\"").map(Some));
            ConfigType::Size { min: size("min")?, max: size("max")? }
        }
        "boolean" => ConfigType::Boolean,
        "url" => ConfigType::Url,
        "address" => ConfigType::Address,
        "enum" => ConfigType::Enum { values: words(table)? },
        _ => ConfigType::List { items: Box::new(items(table)?) },
    };
    Some(kind)
}

/// A key that tables of `[config.KEY]` have, and tables of `items` may lack.
fn of<'d>(table: &Table<'d>, key: &'static str) -> Option<Value<'d>> {
    table.has(key).then(|| table.get(key)).flatten()
}

fn pattern(value: &Value<'_>) -> Option<String> {
    value.checked("\"[a-z]+\"", |text| {
        whole(text).map(drop).map_err(|error| format!("this is not a regular expression: {}", last_line(&error)))
    })
}

fn last_line(error: &regex::Error) -> String {
    error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

fn number(value: &Value<'_>) -> Option<serde_json::Number> {
    value.number(f64::MIN..=f64::MAX, "0.5").and_then(serde_json::Number::from_f64)
}

fn words(table: &Table<'_>) -> Option<Vec<String>> {
    let example = "[\"info\", \"debug\"]";
    let value = table.required("values", &format!("values = {example}"))?;
    let words: Vec<String> =
        value.list(example)?.iter().map(|word| word.text().map(str::to_owned)).collect::<Option<_>>()?;
    let twice = words.iter().enumerate().find(|(index, word)| words[..*index].contains(word));
    if words.is_empty() {
        return value.place.report("there is no word to choose from", format!("write `values = {example}`"));
    }
    match twice {
        Some((_, word)) => value.place.report(format!("`{}` is there twice", shown(word)), "write each word once"),
        None => Some(words),
    }
}

fn items(table: &Table<'_>) -> Option<ConfigType> {
    let value = table.required("items", "items = \"string\"")?;
    let kind = if value.is_table() {
        kind(&value.table(ITEMS, "{ type = \"integer\", min = 1 }")?)?
    } else {
        let simple: Vec<(&str, &str)> =
            TYPES.into_iter().filter(|(word, _)| !["enum", "list"].contains(word)).collect();
        match value.word(&simple)? {
            "string" => ConfigType::String { pattern: None },
            "integer" => ConfigType::Integer { min: None, max: None },
            "number" => ConfigType::Number { min: None, max: None },
            "boolean" => ConfigType::Boolean,
            "duration" => ConfigType::Duration { min: None, max: None },
            "size" => ConfigType::Size { min: None, max: None },
            "url" => ConfigType::Url,
            _ => ConfigType::Address,
        }
    };
    match kind {
        ConfigType::List { .. } => value.place.report("a list has no lists in it", "write one of the other types"),
        kind => Some(kind),
    }
}

/// A key and where it was named, so that it can be looked for in the schema.
pub(super) type NamedKey<'d> = Placed<'d, ConfigKey>;

/// Whether the recipe has a key that something which is made once names: a variable or a template.
pub(super) fn must_be_frozen(schema: &ConfigSchema, named: &NamedKey<'_>) {
    must_exist(schema, named);
    let (key, place) = named;
    if schema.0.get(key).is_some_and(|spec| spec.delivery == Delivery::Live) {
        place.report::<()>(
            format!("`{key}` is live: variables and templates are made once, and would not follow it"),
            "read it at http://169.254.169.254/kiln/v1/live, or remove `live = true`",
        );
    }
}

/// Whether the recipe has a key that something names.
pub(super) fn must_exist(schema: &ConfigSchema, (key, place): &NamedKey<'_>) {
    if schema.0.contains_key(key) {
        return;
    }
    let valid: Vec<&str> = schema.0.keys().map(ConfigKey::as_str).collect();
    let meant = crate::text::suggest(key.as_str(), &valid).map(|meant| format!("did you mean `{meant}`? "));
    place.report::<()>(
        format!("the recipe has no configuration key `{key}`"),
        format!("{}Declare it: `[config.{key}]` followed by `type = \"string\"`", meant.unwrap_or_default()),
    );
}
