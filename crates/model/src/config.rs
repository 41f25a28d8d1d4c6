//! The frozen configuration of a group: what differs between servers of a role and comes from outside.
//!
//! Its digest is independent of order: the canonical form is the JSON of sorted maps, behind a domain prefix.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::{ConfigDigest, Digest};

/// Configuration values, frozen before the release is tested.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrozenConfig {
    /// Environment variables given to every service, over those of the image.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

impl FrozenConfig {
    /// The digest of the canonical form.
    pub fn digest(&self) -> ConfigDigest {
        let mut bytes = b"kiln-config-v1\0".to_vec();
        bytes.extend(serde_json::to_vec(self).expect("maps of strings always serialise"));
        ConfigDigest(Digest::of(&bytes))
    }
}
