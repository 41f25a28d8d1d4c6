//! Values in words: what was written, and what could be written instead.

use crate::{
    config::{ConfigKey, ConfigType, ConfigValue, Delivery, KeySpec},
    diagnostic::shown,
};

/// A value to write: where a secret is wanted, a source.
pub(super) fn example(key: &ConfigKey, spec: &KeySpec) -> String {
    match spec.delivery {
        Delivery::Secret => format!("{{ env = \"{}\" }}", key.as_str().to_uppercase()),
        _ => literal(spec),
    }
}

/// A value to write, as it is.
pub(crate) fn literal(spec: &KeySpec) -> String {
    match &spec.default {
        Some(value) => serde_json::to_string(value).expect("a value always serialises"),
        None => of_kind(&spec.kind),
    }
}

fn of_kind(kind: &ConfigType) -> String {
    match kind {
        ConfigType::String { .. } => "\"…\"".to_owned(),
        ConfigType::Integer { min, max } => min.or(*max).unwrap_or(1).to_string(),
        ConfigType::Number { min, max } => min.as_ref().or(max.as_ref()).map_or("1.5".to_owned(), ToString::to_string),
        ConfigType::Boolean => "true".to_owned(),
        ConfigType::Duration { min, max } => {
            format!("\"{}\"", min.as_ref().or(max.as_ref()).map_or("30s", |text| text))
        }
        ConfigType::Size { min, max } => {
            format!("\"{}\"", min.or(*max).map_or("64MiB".to_owned(), |size| size.to_string()))
        }
        ConfigType::Url => "\"https://api.example/v1\"".to_owned(),
        ConfigType::Address => "\"db.example:5432\"".to_owned(),
        ConfigType::Enum { values } => format!("\"{}\"", values.first().map_or("", |word| word)),
        ConfigType::List { items } => format!("[{}]", of_kind(items)),
    }
}

/// A value in words, for values that may be shown.
pub(crate) fn words(value: &ConfigValue) -> String {
    match value {
        ConfigValue::Text(text) => format!("the text `{}`", shown(text)),
        ConfigValue::Integer(_) | ConfigValue::Number(_) => format!("the number `{}`", value.to_text()),
        ConfigValue::Boolean(flag) => format!("`{flag}`"),
        ConfigValue::List(_) => "a list".to_owned(),
    }
}
