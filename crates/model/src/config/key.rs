//! The name of a configuration key or of a field of a binding.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A key: 1 to 63 of `a-z`, `0-9`, `_`, starting with a letter, so that templates and variables can name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[a-z][a-z0-9_]{0,62}$"))]
pub struct ConfigKey(String);

/// A text that is not a configuration key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a configuration key: use 1 to 63 of a-z, 0-9, `_`, starting with a letter")]
pub struct InvalidKey(pub String);

impl ConfigKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for ConfigKey {
    type Err = InvalidKey;
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let good = (1..=63).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if good { Ok(Self(text.to_owned())) } else { Err(InvalidKey(text.chars().take(80).collect())) }
    }
}
impl TryFrom<String> for ConfigKey {
    type Error = InvalidKey;
    fn try_from(text: String) -> Result<Self, InvalidKey> {
        text.parse()
    }
}
impl From<ConfigKey> for String {
    fn from(key: ConfigKey) -> String {
        key.0
    }
}
impl fmt::Display for ConfigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
