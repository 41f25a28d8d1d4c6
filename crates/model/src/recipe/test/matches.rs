//! Expectations about text: `{ contains = "…" }`, `{ matches = "…" }`, `{ equals = "…" }`, or a list of them.

use std::collections::BTreeMap;

use crate::{
    diagnostic::shown,
    suite::TextMatch,
    text::{Keys, Value},
};

/// The keys of an expectation.
pub(crate) const KEYS: Keys = Keys { of: "an expectation", valid: &["contains", "matches", "equals"] };

/// A compiled expression larger than this (bytes) is refused.
const MAX_COMPILED: usize = 1 << 20;
const EXAMPLE: &str = "{ contains = \"Hello\" }";

/// One expectation, or a list of them.
pub(super) fn several(value: &Value<'_>) -> Option<Vec<TextMatch>> {
    if !value.is_list() {
        return one(value).map(|expected| vec![expected]);
    }
    let all: Vec<_> = value.list(EXAMPLE)?.iter().map(one).collect();
    all.into_iter().collect()
}

/// One expectation.
pub(super) fn one(value: &Value<'_>) -> Option<TextMatch> {
    let table = value.table(KEYS, EXAMPLE)?;
    let choice = table.one_of(KEYS.valid, "contains = \"Hello\"")?;
    let text = choice.value.text()?.to_owned();
    match choice.key {
        "contains" => Some(TextMatch::Contains(text)),
        "equals" => Some(TextMatch::Equals(text)),
        _ => expression(&choice.value, text).map(TextMatch::Matches),
    }
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
pub(super) fn headers(value: &Value<'_>) -> Option<BTreeMap<String, TextMatch>> {
    let table = value.map("{ content-type = { contains = \"text/html\" } }")?;
    let all: Vec<_> = table
        .entries()
        .map(|entry| {
            let name = header_name(&entry);
            let expected = one(&entry.value);
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
