//! Expectations about text: `{ contains = "…" }`, `{ matches = "…" }`, `{ equals = "…" }`, or a list of them. In place of a text
//! `{ config = "key" }` is the value that the configuration under test has for a key.

use std::collections::BTreeMap;

use crate::{
    config::{ConfigKey, ConfigSchema, Delivery},
    diagnostic::shown,
    recipe::config,
    suite::{Configured, Expected, TextMatch},
    text::{Keys, Value},
};

/// The keys of an expectation.
pub(crate) const KEYS: Keys = Keys { of: "an expectation", valid: &["contains", "matches", "equals"] };

/// The keys of an expected value that the configuration under test decides.
pub(crate) const CONFIGURED: Keys = Keys { of: "an expected value", valid: &["config"] };

/// A compiled expression larger than this (bytes) is refused.
const MAX_COMPILED: usize = 1 << 20;
const EXAMPLE: &str = "{ contains = \"Hello\" }";

/// One expectation, or a list of them.
pub(super) fn several(value: &Value<'_>, schema: Option<&ConfigSchema>) -> Option<Vec<TextMatch>> {
    if !value.is_list() {
        return one(value, schema).map(|expected| vec![expected]);
    }
    let all: Vec<_> = value.list(EXAMPLE)?.iter().map(|item| one(item, schema)).collect();
    all.into_iter().collect()
}

/// One expectation.
pub(super) fn one(value: &Value<'_>, schema: Option<&ConfigSchema>) -> Option<TextMatch> {
    let table = value.table(KEYS, EXAMPLE)?;
    let choice = table.one_of(KEYS.valid, "contains = \"Hello\"")?;
    match choice.key {
        "contains" => expected(&choice.value, schema).map(TextMatch::Contains),
        "equals" => expected(&choice.value, schema).map(TextMatch::Equals),
        _ => expression(&choice.value, choice.value.text()?.to_owned()).map(TextMatch::Matches),
    }
}

fn expected(value: &Value<'_>, schema: Option<&ConfigSchema>) -> Option<Expected> {
    if !value.is_table() {
        return value.text().map(Expected::from);
    }
    let example = "config = \"greeting\"";
    let named = value.table(CONFIGURED, &format!("{{ {example} }}"))?.required("config", example)?;
    let key = named.parsed::<ConfigKey>("\"greeting\"")?;
    let schema = schema?;
    config::must_exist(schema, &(key.clone(), named.place));
    let spec = schema.0.get(&key)?;
    if spec.delivery == Delivery::Live {
        let message =
            format!("`{key}` is live: it may change in a running server, so no test of the image can expect it");
        return named.place.report(message, "expect a text, or try live values in a `[[test.matrix]]`");
    }
    if spec.optional {
        let message = format!("`{key}` may have no value, and then there is nothing to expect");
        return named.place.report(message, "give the key a default, or look at it in a `script` test");
    }
    Some(Expected::Configured(Configured { config: key }))
}

fn expression(value: &Value<'_>, text: String) -> Option<String> {
    match regex::RegexBuilder::new(&text).size_limit(MAX_COMPILED).build() {
        Ok(_) => Some(text),
        Err(error) => {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            value.place.report(
                format!("`{}` is not a regular expression: {reason}", shown(&text)),
                "write it in the syntax of https://docs.rs/regex, in single quotes: `matches = 'v\\d+'`",
            )
        }
    }
}

/// Expectations by header name, in lower case.
pub(super) fn headers(value: &Value<'_>, schema: Option<&ConfigSchema>) -> Option<BTreeMap<String, TextMatch>> {
    let table = value.map("{ content-type = { contains = \"text/html\" } }")?;
    let all: Vec<_> = table
        .entries()
        .map(|entry| {
            let name = header_name(&entry);
            let expected = one(&entry.value, schema);
            Some((name?.to_ascii_lowercase(), expected?))
        })
        .collect();
    all.into_iter().collect()
}

/// The name of a header (RFC 9110, section 5.6.2: a token).
pub(super) fn header_name(entry: &crate::text::Entry<'_>) -> Option<String> {
    let good = !entry.key.is_empty()
        && entry.key.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if good {
        return Some(entry.key.to_owned());
    }
    entry.place.report(format!("`{}` is not the name of a header", shown(entry.key)), "for example: `content-type`")
}
