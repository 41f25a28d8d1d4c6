//! A table of a document.

use toml::de::DeTable;

use super::{
    Place,
    keys::{Keys, listed, suggest},
    value::{Entry, Value},
};
use crate::diagnostic::shown;

/// A table whose keys have been checked (or, without a list, may be anything).
#[derive(Clone)]
pub(crate) struct Table<'d> {
    /// Where its name stands, for what is missing.
    pub place: Place<'d>,
    name: String,
    entries: &'d DeTable<'d>,
    keys: Option<Keys>,
}

impl<'d> Table<'d> {
    /// Reports every key that is not in the list.
    pub(super) fn new(place: Place<'d>, name: String, entries: &'d DeTable<'d>, keys: Option<Keys>) -> Self {
        let table = Self { place, name, entries, keys };
        if let Some(keys) = keys {
            table.entries().filter(|e| !keys.valid.contains(&e.key)).for_each(|entry| unknown(&entry, keys));
        }
        table
    }

    /// The value of a key, if it is there.
    pub fn get(&self, key: &'static str) -> Option<Value<'d>> {
        debug_assert!(self.keys.is_none_or(|keys| keys.valid.contains(&key)), "`{key}` is not in the list of keys");
        self.entries().find(|entry| entry.key == key).map(|entry| entry.value)
    }

    /// The value of a key that must be there; `example` is what to write.
    pub fn required(&self, key: &'static str, example: &str) -> Option<Value<'d>> {
        self.get(key).or_else(|| {
            self.place.report(format!("{} has no `{key}`", self.name), format!("add it, for example: `{example}`"))
        })
    }

    /// Whether the key is there.
    pub fn has(&self, key: &str) -> bool {
        self.entries.keys().any(|k| k.get_ref() == key)
    }

    /// Exactly one of these keys, which decide what the table is. `example` is what to write where none is there.
    pub fn one_of(&self, choices: &[&'static str], example: &str) -> Option<Entry<'d>> {
        let mut present: Vec<_> = self.entries().filter(|entry| choices.contains(&entry.key)).collect();
        present.sort_by_key(|entry| entry.place.start);
        let mut present = present.into_iter();
        let Some(first) = present.next() else {
            let message = format!("{} has none of {}", self.name, listed(choices));
            return self.place.report(message, format!("add one of them, for example: `{example}`"));
        };
        match present.next() {
            None => Some(first),
            Some(second) => second.place.contradicts(
                first.place,
                format!("{} has both `{}` and `{}`", self.name, first.key, second.key),
                format!("`{}` is here", first.key),
                "keep one of them and move the other into a table of its own",
            ),
        }
    }

    /// All entries, in the order of the keys' texts.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'d>> + use<'d> {
        let document = self.place.document;
        self.entries.iter().map(move |(key, value)| Entry::new(document, key, value))
    }
}

fn unknown(entry: &Entry<'_>, keys: Keys) {
    let hint = suggest(entry.key, keys.valid).map(|meant| format!("did you mean `{meant}`? ")).unwrap_or_default();
    entry.place.report::<()>(
        format!("`{}` is not a key of {}", shown(entry.key), keys.of),
        format!("{hint}The keys here are {}", listed(keys.valid)),
    );
}
