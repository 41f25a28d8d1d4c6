//! Values: plain, normalised by their type, so that equal configurations have equal bytes.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// A value. Durations, sizes, URLs, addresses and words are texts in their normal form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ConfigValue {
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A finite number with a fraction.
    Number(serde_json::Number),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<ConfigValue>),
}

impl ConfigValue {
    /// The value as one text: texts as they are, everything else as JSON.
    pub fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            other => serde_json::to_string(other).expect("a value always serialises"),
        }
    }
}

/// The keyed hash of a secret: HMAC-SHA-256 of its key's name and the value's JSON under a key of the state directory, so
/// that a digest tells whether a secret changed and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretHash(pub Digest);

/// Secrets in clear, by their keyed hashes. It has no `Serialize`, and shows nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<SecretHash, ConfigValue>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// A value in a frozen configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Frozen {
    /// The value.
    Value(ConfigValue),
    /// A secret, by its keyed hash; the value is kept elsewhere, sealed.
    Secret(SecretHash),
}

impl Frozen {
    /// The secret's hash, if it is one.
    pub fn secret(&self) -> Option<&SecretHash> {
        match self {
            Self::Value(_) => None,
            Self::Secret(hash) => Some(hash),
        }
    }
}
