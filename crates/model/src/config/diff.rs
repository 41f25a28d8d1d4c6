//! How two frozen configurations differ, key by key. Of a secret it is only told whether it changed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Frozen, FrozenConfig};

/// A value in two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// The key; `binding.field` for a field of a binding, `environment.NAME` for a variable.
    pub place: String,
    /// What it was; none where it had no value.
    pub before: Option<Frozen>,
    /// What it is.
    pub after: Option<Frozen>,
}

impl Compared {
    /// Whether it is another value than before.
    pub fn changed(&self) -> bool {
        self.before != self.after
    }
}

/// Every value of two configurations, in the order of their places.
pub fn compare(before: &FrozenConfig, after: &FrozenConfig) -> Vec<Compared> {
    let (mut before, mut after) = (places(before), places(after));
    let all: BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
    let compared = all.into_iter().map(|place| {
        let (before, after) = (before.remove(&place), after.remove(&place));
        Compared { place, before, after }
    });
    compared.collect()
}

fn places(config: &FrozenConfig) -> BTreeMap<String, Frozen> {
    let text = |text: &String| Frozen::Value(super::ConfigValue::Text(text.clone()));
    let environment = config.environment.iter().map(|(name, value)| (format!("environment.{name}"), text(value)));
    let values = config.values.iter().map(|(key, value)| (key.to_string(), value.clone()));
    let bindings = config
        .bindings
        .iter()
        .flat_map(|(name, fields)| fields.iter().map(move |(field, value)| (format!("{name}.{field}"), value.clone())));
    environment.chain(values).chain(bindings).collect()
}
