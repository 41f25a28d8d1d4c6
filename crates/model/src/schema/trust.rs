//! The text form of `trust.toml`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{DigestText, DurationText, PatternText};
use crate::id::KeyName;

/// A host's trust policy: whose reports it believes, of which images.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "trust.toml")]
pub struct TrustToml {
    /// The rules. The first one that an image's name fits decides; an image that fits none is not launched.
    #[schemars(length(min = 1))]
    pub rule: Vec<Rule>,
}

/// What is wanted for images of some names.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// For which images: names, or how they begin and `*`.
    #[schemars(length(min = 1))]
    pub images: Vec<PatternText>,
    /// Whose reports count: names of `kiln key list`; `this-host` is this host's own.
    #[schemars(length(min = 1))]
    pub keys: Vec<KeyName>,
    /// So many of these keys must have seen the tests pass; 1 where nothing is said.
    #[schemars(range(min = 1, max = 16))]
    pub threshold: Option<u32>,
    /// The suites that count; any where nothing is said.
    #[schemars(length(min = 1))]
    pub suites: Option<Vec<DigestText>>,
    /// A report older than this has expired, also where a fleet would take it.
    pub max_age: Option<DurationText>,
}
