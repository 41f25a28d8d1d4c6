//! What an image can be told: `[config.KEY]` of a recipe, part of the image's manifest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ConfigKey, ConfigValue};

/// The keys of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConfigSchema(pub BTreeMap<ConfigKey, KeySpec>);

impl ConfigSchema {
    /// Whether the image has no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One key. A flattened type and the refusal of unknown fields exclude each other in serde; this is read only from manifests
/// that Kiln wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySpec {
    /// What its values are.
    #[serde(flatten)]
    pub kind: ConfigType,
    /// The value where a fleet gives none. A key without one is required, unless it is `optional`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<ConfigValue>,
    /// Whether the key may have no value at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// How the value is treated.
    #[serde(default)]
    pub delivery: Delivery,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// How a value is treated on its way to the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// Part of the release, shown to whoever asks.
    #[default]
    Open,
    /// Part of the release, never shown, logged, stored in clear or visible in a digest.
    Secret,
    /// Not part of the release: may change in a running server.
    Live,
}

/// What values of a key are. Bounds are inclusive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ConfigType {
    /// A text, at most 64 KiB.
    String {
        /// A regular expression that the whole text matches.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pattern: Option<String>,
    },
    /// A whole number.
    Integer {
        /// At least.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<i64>,
        /// At most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<i64>,
    },
    /// A finite number; bounds as written.
    Number {
        /// At least.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<serde_json::Number>,
        /// At most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<serde_json::Number>,
    },
    /// True or false.
    Boolean,
    /// A duration, normalised to its shortest text (`90s`, `2m`).
    Duration {
        /// At least.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<String>,
        /// At most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<String>,
    },
    /// A size, normalised to its shortest text (`64MiB`).
    Size {
        /// At least.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<crate::size::ByteSize>,
        /// At most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<crate::size::ByteSize>,
    },
    /// An absolute URL with a host.
    Url,
    /// `host:port`, the host a name, an IPv4 address, or an IPv6 address in brackets.
    Address,
    /// One of these words.
    Enum {
        /// The words.
        values: Vec<String>,
    },
    /// A list, at most 1000 items long, of values of one of the other types.
    List {
        /// What the items are.
        items: Box<ConfigType>,
    },
}
