//! A group's live values.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kiln_model::config::{ConfigKey, ConfigValue};
use serde::{Deserialize, Serialize};

/// The live values of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveValues {
    /// Grows whenever what servers see changes.
    pub version: u64,
    /// What the fleet gives, or the recipe's defaults.
    pub fleet: BTreeMap<ConfigKey, ConfigValue>,
    /// What somebody has set since; it wins.
    pub set: BTreeMap<ConfigKey, SetValue>,
}

/// A value that somebody has set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetValue {
    /// The value.
    pub value: ConfigValue,
    /// When it was set.
    pub at: Timestamp,
}

impl LiveValues {
    /// What servers see.
    pub fn seen(&self) -> BTreeMap<&ConfigKey, &ConfigValue> {
        self.fleet.iter().chain(self.set.iter().map(|(key, set)| (key, &set.value))).collect()
    }

    /// What servers see of one key.
    pub fn get(&self, key: &ConfigKey) -> Option<&ConfigValue> {
        self.set.get(key).map(|set| &set.value).or_else(|| self.fleet.get(key))
    }
}
