//! Configuration: what differs between servers of a role and comes from outside.
//!
//! An image declares what can be configured ([`ConfigSchema`], `[config.KEY]` of a recipe), a fleet gives values or names
//! where they come from ([`ConfigSource`]), and before anything is tested they are resolved once into a
//! [`FrozenConfig`]. Image digest and configuration digest together are the release. Live keys are outside of it: they may
//! change in a running server.
//!
//! The digest is independent of order and source: the canonical form is the JSON of sorted maps of normalised values,
//! behind a domain prefix. A secret appears in it only as a keyed hash ([`SecretHash`]).

mod diff;
mod fit;
mod freeze;
mod key;
mod lint;
mod named;
mod place;
mod registry;
mod schema;
mod source;
mod value;
mod variables;

use std::collections::BTreeMap;

pub use diff::{Compared, compare};
pub(crate) use fit::whole;
pub use fit::{MAX_ITEMS, MAX_TEXT, Unfit};
pub use freeze::{ConfigProblem, Froze, HashKey, ProblemKind, RawConfig, freeze};
pub use key::{ConfigKey, InvalidKey};
pub use lint::{BREADTH, Finding, Lint, lint};
pub use named::{keys_named, keys_of_template};
pub use registry::{InvalidAddress, Login, Password, Registry, RegistryAddress, RegistryTls};
pub use schema::{ConfigSchema, ConfigType, Delivery, KeySpec};
use serde::{Deserialize, Serialize};
pub use source::ConfigSource;
pub use value::{ConfigValue, Frozen, SecretHash, Secrets};
pub use variables::binding_variables;

use crate::{
    digest::{ConfigDigest, Digest},
    id::BindingName,
};

/// Configuration values, frozen before the release is tested.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrozenConfig {
    /// Environment variables given to every service, over those of the image.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Every key of the image's schema that has a value and is not live.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<ConfigKey, Frozen>,
    /// The external services that the image's bindings lead to: the fields of each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bindings: BTreeMap<BindingName, BTreeMap<ConfigKey, Frozen>>,
}

impl FrozenConfig {
    /// A configuration of nothing but environment variables.
    pub fn of_environment(environment: BTreeMap<String, String>) -> Self {
        Self { environment, ..Self::default() }
    }

    /// The digest of the canonical form.
    pub fn digest(&self) -> ConfigDigest {
        let mut bytes = b"kiln-config-v1\0".to_vec();
        bytes.extend(serde_json::to_vec(self).expect("maps of strings always serialise"));
        ConfigDigest(Digest::of(&bytes))
    }

    /// The keyed hashes of every secret in it.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretHash> {
        self.values.values().chain(self.bindings.values().flat_map(BTreeMap::values)).filter_map(Frozen::secret)
    }
}
