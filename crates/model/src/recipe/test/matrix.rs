//! `[[test.matrix]]`: further configurations with which the whole suite is run.
//!
//! In TOML such a table belongs to the test before it. It is for the whole suite, so it must stand after the last test.

use std::collections::BTreeMap;

use super::Around;
use crate::{
    config::{ConfigKey, ConfigSchema, ConfigValue},
    diagnostic::shown,
    fleet::{literal, words},
    id::{BindingName, MatrixName},
    manifest::BindingTest,
    recipe::text::Placed,
    suite::MatrixEntry,
    text::{Entry, Keys, Table, Value, listed},
};

/// The keys of `test` where there is no test.
pub(super) const ALONE: Keys = Keys { of: "`test`", valid: &["matrix"] };
/// The keys of a further configuration.
pub(crate) const KEYS: Keys = Keys { of: "a configuration", valid: &["name", "config", "service_binding"] };

const EXAMPLE: &str = "[{ name = \"all-flags\", config = { beta = true } }]";
const MAX_ENTRIES: usize = 20;

type Values = BTreeMap<ConfigKey, ConfigValue>;

/// What stands below the last test.
pub(super) fn of_tests(tests: &[Value<'_>], around: &Around<'_, '_>) -> Option<Vec<MatrixEntry>> {
    let Some((last, earlier)) = tests.split_last() else { return Some(Vec::new()) };
    let misplaced: Vec<_> = earlier.iter().filter_map(of).collect();
    for entry in &misplaced {
        let message = "configurations of the matrix are for all tests, and this one stands among them";
        entry.place.report::<()>(message, "move `[[test.matrix]]` behind the last `[[test]]`");
    }
    of(last).map_or(Some(Vec::new()), |entry| read_all(&entry.value, around)).filter(|_| misplaced.is_empty())
}

fn of<'d>(test: &Value<'d>) -> Option<Entry<'d>> {
    test.is_table().then(|| test.map(EXAMPLE))?.and_then(|table| table.entries().find(|entry| entry.key == "matrix"))
}

pub(super) fn read_all(value: &Value<'_>, around: &Around<'_, '_>) -> Option<Vec<MatrixEntry>> {
    let items = value.list(EXAMPLE)?;
    if items.len() > MAX_ENTRIES {
        let message = format!("there are {} further configurations", items.len());
        return value.place.report(message, format!("at most {MAX_ENTRIES} are possible: every one is a boot"));
    }
    let entries: Vec<_> = items.iter().map(|item| read(item, around)).collect();
    let entries: Vec<Placed<'_, MatrixEntry>> = entries.into_iter().collect::<Option<_>>()?;
    names_are_distinct(&entries);
    Some(entries.into_iter().map(|(entry, _)| entry).collect())
}

fn names_are_distinct(entries: &[Placed<'_, MatrixEntry>]) {
    for (index, (entry, place)) in entries.iter().enumerate() {
        if let Some((_, first)) = entries[..index].iter().find(|(earlier, _)| earlier.name == entry.name) {
            place.contradicts::<()>(
                *first,
                format!("two configurations are called `{}`", entry.name),
                "the first is here",
                "give each a name of its own: the report tells them apart by it",
            );
        }
    }
}

fn read<'d>(value: &Value<'d>, around: &Around<'_, '_>) -> Option<Placed<'d, MatrixEntry>> {
    let table = value.table(KEYS, EXAMPLE)?;
    let place = table.get("name").map_or(value.place, |name| name.place);
    let name = table.required("name", "name = \"all-flags\"").and_then(|v| v.parsed::<MatrixName>("\"all-flags\""));
    let config = values(&table, around.schema?);
    let service_binding = bindings(&table, around);
    let entry = MatrixEntry { name: name?, config: config?, service_binding: service_binding? };
    Some((entry, place))
}

/// Values by their keys; each fits, and none that must be given is missing.
fn values(table: &Table<'_>, schema: &ConfigSchema) -> Option<Values> {
    let given = match table.get("config") {
        Some(value) => of_map(&value, schema, "the image")?,
        None => Values::new(),
    };
    complete(table, schema, &given, "config").then_some(given)
}

fn of_map(value: &Value<'_>, schema: &ConfigSchema, whose: &str) -> Option<Values> {
    let read: Vec<_> = value.map("{ beta = true }")?.entries().map(|entry| of_key(&entry, schema, whose)).collect();
    read.into_iter().collect()
}

fn of_key(entry: &Entry<'_>, schema: &ConfigSchema, whose: &str) -> Option<(ConfigKey, ConfigValue)> {
    let known = entry.key.parse::<ConfigKey>().ok().and_then(|key| schema.0.get_key_value(&key));
    let Some((key, spec)) = known else {
        let valid: Vec<_> = schema.0.keys().map(ConfigKey::as_str).collect();
        let message = format!("`{}` is not a key of {whose}", shown(entry.key));
        return entry.place.report(message, format!("its keys are {}", listed(&valid)));
    };
    let given = entry.value.plain(&literal(spec))?;
    match spec.kind.fit(&given) {
        Ok(value) => Some((key.clone(), value)),
        Err(unfit) => entry.value.place.report(
            format!("`{key}` {unfit}, but this is {}", words(&given)),
            format!("write `{key} = {}`", literal(spec)),
        ),
    }
}

/// Whether every key that must be given is; what is missing is told.
fn complete(table: &Table<'_>, schema: &ConfigSchema, given: &Values, of: &str) -> bool {
    let missing: Vec<_> = schema.required().filter(|(key, _)| !given.contains_key(*key)).collect();
    for (key, spec) in &missing {
        let message = format!("this configuration gives no value for `{key}`, which must be {}", spec.kind.wanted());
        table.place.report::<()>(message, format!("add it to its `{of}`: `{key} = {}`", literal(spec)));
    }
    missing.is_empty()
}

/// Bindings that lead to a throwaway service while the image is tested need nothing here.
fn bindings(table: &Table<'_>, around: &Around<'_, '_>) -> Option<BTreeMap<BindingName, Values>> {
    let known = around.bindings?;
    let given = match table.get("service_binding") {
        Some(value) => value.map("{ db = { host = \"db.example\" } }")?.entries().collect(),
        None => Vec::new(),
    };
    let read: Vec<_> = given
        .iter()
        .map(|entry| {
            let found = entry.key.parse::<BindingName>().ok().and_then(|name| known.get_key_value(&name));
            let Some((name, binding)) = found.filter(|(_, binding)| binding.test == BindingTest::Bound) else {
                let message = format!("`{}` is not a binding that tests reach as the fleet says", shown(entry.key));
                let valid: Vec<_> = known.keys().map(BindingName::as_str).collect();
                return entry.place.report(message, format!("the bindings of the recipe are {}", listed(&valid)));
            };
            Some((name.clone(), of_map(&entry.value, &binding.fields, &format!("the binding `{name}`"))?))
        })
        .collect();
    let read: BTreeMap<_, _> = read.into_iter().collect::<Option<_>>()?;
    let nothing = Values::new();
    let bound = known.iter().filter(|(_, binding)| binding.test == BindingTest::Bound);
    let whole: Vec<_> = bound
        .map(|(name, binding)| {
            complete(table, &binding.fields, read.get(name).unwrap_or(&nothing), &format!("service_binding.{name}"))
        })
        .collect();
    whole.into_iter().all(|whole| whole).then_some(read)
}
