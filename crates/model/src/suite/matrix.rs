//! Further configurations with which a suite is run: boundary values, only what is required, all flags on.
//!
//! They belong to image and suite, not to a release: what was seen with them holds for every release of the image.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    config::{ConfigKey, ConfigProblem, ConfigValue, Froze, HashKey, RawConfig, freeze},
    id::{BindingName, MatrixName},
    manifest::{BindingTest, ImageManifest},
};

/// One of them. A key that is not named has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatrixEntry {
    /// Tells it apart in the report.
    pub name: MatrixName,
    /// Values of the image's keys. Those of secret keys are no secrets: the recipe has them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<ConfigKey, ConfigValue>,
    /// Fields of its bindings.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub service_binding: BTreeMap<BindingName, BTreeMap<ConfigKey, ConfigValue>>,
}

impl MatrixEntry {
    /// The configuration that servers of the image are tested with. What a throwaway service is reached by is not in it.
    pub fn freeze(&self, manifest: &ImageManifest, key: &HashKey) -> Result<Froze, Vec<ConfigProblem>> {
        let mut manifest = manifest.clone();
        manifest.bindings.retain(|_, binding| binding.test == BindingTest::Bound);
        let raw = RawConfig {
            environment: BTreeMap::new(),
            values: self.config.clone(),
            bindings: self.service_binding.clone(),
        };
        freeze(&manifest, &raw, key)
    }
}
