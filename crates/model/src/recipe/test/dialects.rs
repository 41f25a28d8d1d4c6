//! Tests that somebody has already: goss files, programs that speak TAP or write JUnit XML, pytest-testinfra. Their files become
//! part of the suite, and so of its digest.

use std::collections::BTreeMap;

use super::{Around, kinds};
use crate::{
    diagnostic::shown,
    goss,
    recipe::{FileKind, check, command},
    suite::{Runner, TestKind},
    text::{Keys, Table, Value},
};

/// The keys of a program of the recipe.
pub(crate) const SCRIPT: Keys = Keys { of: "a program of the recipe", valid: &["script"] };

/// So many further files come with tests of testinfra.
const MAX_FILES: usize = 100;
/// So many problems of one goss file are told.
const MAX_PROBLEMS: usize = 20;

pub(super) fn goss(table: &Table<'_>, value: &Value<'_>, around: &Around<'_, '_>) -> Option<TestKind> {
    let file = value.checked("\"tests/goss.yaml\"", check::recipe_path);
    let vars = table.get("vars").map_or(Some(None), |v| vars(&v, around).map(Some));
    let environment = table.get("environment").map_or(Some(BTreeMap::new()), |v| command::environment(&v));
    let file = normal(&file?);
    let empty = goss::Sources { file, vars: vars?, environment: environment?, ..goss::Sources::default() };
    let read = goss::sources(empty, around.context.files).map_err(|problem| vec![problem]);
    let read = read.and_then(|sources| sources.read().map(|_| sources));
    read.map(TestKind::Goss)
        .map_err(|problems| {
            let help = "what is supported stands in docs/dialects.md";
            problems.iter().take(MAX_PROBLEMS).for_each(|problem| {
                value.place.report::<()>(shown_whole(&problem.to_string()), help);
            });
        })
        .ok()
}

/// A message about another file, control characters made visible.
fn shown_whole(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(500).collect()
}

fn vars(value: &Value<'_>, around: &Around<'_, '_>) -> Option<goss::Vars> {
    let file = normal(&value.checked("\"tests/vars.yaml\"", check::recipe_path)?);
    match goss::text(&file, around.context.files) {
        Ok(text) => Some(goss::Vars { file, text }),
        Err(message) => value.place.report(message, "name a YAML or JSON file beside the recipe"),
    }
}

fn normal(path: &str) -> String {
    path.strip_prefix("./").unwrap_or(path).to_owned()
}

pub(super) fn tap(table: &Table<'_>, value: &Value<'_>, around: &Around<'_, '_>) -> Option<TestKind> {
    Some(TestKind::Tap { run: runner(table, value, around)? })
}

pub(super) fn junit(table: &Table<'_>, value: &Value<'_>, around: &Around<'_, '_>) -> Option<TestKind> {
    let run = runner(table, value, around);
    let example = if value.is_table() { "report.xml" } else { "/tmp/report.xml" };
    let report = table.required("report", &format!("report = \"{example}\"")).and_then(|v| {
        let inside = !value.is_table();
        v.checked(&format!("\"{example}\""), |text| {
            if inside { check::image_path(text, false) } else { check::recipe_path(text) }
        })
    });
    Some(TestKind::Junit { run: run?, report: report? })
}

/// `tap = "command"` inside the server, `tap = { script = "file" }` outside.
fn runner(table: &Table<'_>, value: &Value<'_>, around: &Around<'_, '_>) -> Option<Runner> {
    if !value.is_table() {
        not_with(table, value, &["arguments", "secrets"], "a command has its arguments in itself");
        let command = command::read(value, command::Text::Words);
        let user = table.get("user").map_or(Some("root".to_owned()), |v| v.checked("\"root\"", check::user));
        return Some(Runner::Command { command: command?, user: user? });
    }
    not_with(table, value, &["user"], "a script runs as a user that is drawn for it");
    let example = "script = \"tests/checks.t\"";
    let named = value.table(SCRIPT, &format!("{{ {example} }}"))?.required("script", example)?;
    let file = named.checked("\"tests/checks.t\"", check::recipe_path);
    let content = file.as_deref().and_then(|path| kinds::script_content(&named, path, around.context));
    let (arguments, secrets) = (kinds::arguments(table), kinds::told(table, around));
    Some(Runner::Script { file: file?, content: content?, arguments: arguments?, secrets: secrets? })
}

fn not_with(table: &Table<'_>, program: &Value<'_>, keys: &[&'static str], why: &str) {
    for key in keys {
        if let Some(value) = table.get(key) {
            value.place.contradicts::<()>(program.place, format!("`{key}` has no meaning here"), why, "remove it");
        }
    }
}

pub(super) fn testinfra(table: &Table<'_>, value: &Value<'_>, around: &Around<'_, '_>) -> Option<TestKind> {
    let example = "\"tests/test_web.py\"";
    let file = value.checked(example, check::recipe_path).map(|file| normal(&file));
    let content = file.as_ref().and_then(|file| python(value, file, around));
    let further = table.get("files").map_or(Some(Vec::new()), |v| further(&v, around));
    let (arguments, secrets) = (kinds::arguments(table), kinds::told(table, around));
    let file = file?;
    let files = beside(&file, around).into_iter().chain(further?).chain([(file.clone(), content?)]).collect();
    Some(TestKind::Testinfra { file, files, arguments: arguments?, secrets: secrets? })
}

/// `conftest.py` in the directory of the tests, as pytest would find it.
fn beside(file: &str, around: &Around<'_, '_>) -> Option<(String, String)> {
    let path =
        file.rsplit_once('/').map_or("conftest.py".to_owned(), |(directory, _)| format!("{directory}/conftest.py"));
    let there = around.context.files.kind(&path) == Ok(Some(FileKind::File));
    let content = there.then(|| goss::text(&path, around.context.files).ok()).flatten()?;
    Some((path, content))
}

fn further(value: &Value<'_>, around: &Around<'_, '_>) -> Option<Vec<(String, String)>> {
    let example = "[\"tests/helpers.py\"]";
    let items = value.list(example)?;
    if items.len() > MAX_FILES {
        return value
            .place
            .report(format!("there are {} files", items.len()), format!("at most {MAX_FILES} are possible"));
    }
    let read = |item: &Value<'_>| {
        let path = normal(&item.checked(example, check::recipe_path)?);
        let content = python(item, &path, around)?;
        Some((path, content))
    };
    let all: Vec<_> = items.iter().map(read).collect();
    all.into_iter().collect()
}

fn python(value: &Value<'_>, path: &str, around: &Around<'_, '_>) -> Option<String> {
    match goss::text(path, around.context.files) {
        Ok(text) => Some(text),
        Err(message) => value.place.report(shown(&message), "name a text file beside the recipe, of at most 1 MiB"),
    }
}
