//! No text makes the readers panic, and everything they find has a place in the text.

mod common;
#[path = "common/whole.rs"]
mod whole;

use common::recipe;
use kiln_model::{Fleet, Lock, diagnostic::Diagnostics};
use proptest::prelude::*;
use whole::{WHOLE_FLEET, WHOLE_RECIPE};

fn has_places(text: &str, found: &Diagnostics) {
    assert!(!found.diagnostics.is_empty());
    for d in &found.diagnostics {
        assert!(d.span.end <= text.len() && text.is_char_boundary(d.span.start), "{d:?}");
        assert!(d.line >= 1 && d.line <= text.matches('\n').count() + 1, "{d:?}");
        assert!(!d.message.is_empty() && !d.help.is_empty(), "{d:?}");
    }
    assert!(!found.render(false, 80).is_empty());
}

fn read_all(text: &str) {
    if let Err(found) = recipe(text) {
        has_places(text, &found);
    }
    if let Err(found) = Fleet::parse(text, "fleet.toml") {
        has_places(text, &found);
    }
    drop(Lock::parse(text));
}

/// A right text in which one piece is replaced.
fn damaged(text: &'static str) -> impl Strategy<Value = String> {
    (0..text.len(), 0..40usize, "[ -~\\n\"\\[\\]{}=éß\u{0}]{0,12}").prop_map(move |(start, length, piece)| {
        let start = (0..=start).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        let end = (start + length).min(text.len());
        let end = (end..=text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(text.len());
        [&text[..start], &piece, &text[end..]].concat()
    })
}

/// Sections of keys that exist with values of any type.
fn shaped() -> impl Strategy<Value = String> {
    let header = prop::sample::select(vec![
        "[base]",
        "[[step]]",
        "[service.web]",
        "[writable]",
        "[[test]]",
        "[group.web]",
        "[evidence]",
        "[service]",
        "[test]",
        "[group.web.rollout]",
        "[service.web.stop]",
        "[step]",
        "[[service.web]]",
    ]);
    let key = prop::sample::select(vec![
        "name",
        "debian",
        "image",
        "packages",
        "copy",
        "run",
        "to",
        "mode",
        "http",
        "port",
        "user",
        "command",
        "readiness",
        "ports",
        "tmpfs",
        "\"/a\"",
        "\"/a/b\"",
        "count",
        "publish",
        "rollout",
        "max_surge",
        "max_unavailable",
        "body",
        "within",
    ]);
    let value = prop::sample::select(vec![
        "1",
        "-1",
        "99999999999999999999",
        "0.5",
        "nan",
        "true",
        "\"\"",
        "\"/a\"",
        "\"10s\"",
        "\"0ms\"",
        "[]",
        "[[]]",
        "{}",
        "[{ port = 80 }]",
        "{ tcp = 1 }",
        "{ tmpfs = \"1MiB\" }",
        "\"\\u0000\"",
        "1979-05-27",
        "[1, \"a\"]",
        "\"é/../\"",
    ]);
    let line = (key, value).prop_map(|(key, value)| format!("{key} = {value}\n"));
    let section = (header, prop::collection::vec(line, 0..5)).prop_map(|(h, lines)| format!("{h}\n{}", lines.concat()));
    prop::collection::vec(section, 0..5).prop_map(|sections| sections.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unit_any_text(text in any::<String>()) {
        read_all(&text);
    }
    #[test]
    fn unit_damaged_recipes(text in damaged(WHOLE_RECIPE)) {
        read_all(&text);
    }
    #[test]
    fn unit_damaged_fleets(text in damaged(WHOLE_FLEET)) {
        read_all(&text);
    }
    #[test]
    fn unit_keys_with_any_value(text in shaped()) {
        read_all(&text);
    }
}
