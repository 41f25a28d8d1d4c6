//! Where a group's values come from, kept so that they can be frozen again when a source changes.
//!
//! A fleet may hold secrets itself, and passwords of registries: so all of it is sealed as a secret is, and what the database
//! holds is its keyed hash.

use std::{collections::BTreeMap, path::PathBuf};

use kiln_model::{
    BindingName, Group, GroupName,
    config::{ConfigKey, ConfigSource, ConfigValue, SecretHash},
    fleet::OnSourceChange,
};
use serde::{Deserialize, Serialize};

use super::{SecretStore, SecretsError};
use crate::sources::keeper::{Place, watched, watched_of};

type Values = BTreeMap<ConfigKey, ConfigSource>;

/// The sources of a group's values, as it was applied.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origins {
    /// Where relative paths begin.
    pub directory: PathBuf,
    /// Of the image's keys.
    pub config: Values,
    /// Of its bindings' fields.
    pub bindings: BTreeMap<BindingName, Values>,
}

/// It may hold secrets: only the directory is shown.
impl std::fmt::Debug for Origins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origins").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Origins {
    /// Those of a group, where there is something to watch and somebody wants to know.
    pub fn of(group: &Group, directory: PathBuf) -> Option<Self> {
        let wanted = group.on_source_change != OnSourceChange::Ignore && !watched(group).is_empty();
        wanted.then(|| Self { directory, config: group.config.clone(), bindings: group.bindings.clone() })
    }

    /// What can be watched of it.
    pub fn watched(&self) -> BTreeMap<Place, ConfigSource> {
        watched_of(&self.config, &self.bindings)
    }

    /// Seals them for a group. They are on disk when this returns.
    pub fn seal(&self, group: &GroupName, store: &SecretStore) -> Result<SecretHash, SecretsError> {
        let text = serde_json::to_string(self).expect("sources always serialise");
        store.seal(&format!("origins of {group}"), &ConfigValue::Text(text))
    }

    /// Opens what was sealed.
    pub fn open(hash: &SecretHash, store: &SecretStore) -> Result<Self, SecretsError> {
        let value = store.open_one(hash)?;
        let ConfigValue::Text(text) = &value else { return Err(store.broken(hash)) };
        serde_json::from_str(text).map_err(|_| store.broken(hash))
    }
}
