//! The text form of `kiln.toml`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{DigestText, DurationText};
use crate::id::{ChannelName, KeyName};

/// What a host asks before it moves a channel.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "kiln.toml")]
pub struct KilnToml {
    /// The channels that have rules, by name. Any other asks for what a launch asks for.
    #[schemars(extend("minProperties" = 1))]
    pub channel: BTreeMap<ChannelName, Channel>,
}

/// What is asked before a channel is moved to an image.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Whose signature a promotion must have: names of `kiln key list`. Whoever reaches the daemon may promote where nothing is said.
    #[schemars(length(min = 1))]
    pub promoters: Option<Vec<KeyName>>,
    /// The channel in which the image must have been.
    pub after: Option<ChannelName>,
    /// For how long in all; needs `after`.
    pub soak: Option<DurationText>,
    /// So many of the approvers must have approved.
    #[schemars(range(min = 1, max = 16))]
    pub approvals: Option<u32>,
    /// Whose approvals count: names of `kiln key list`.
    #[schemars(length(min = 1))]
    pub approvers: Option<Vec<KeyName>>,
    /// Whose reports count; every trusted key's where nothing is said.
    #[schemars(length(min = 1))]
    pub keys: Option<Vec<KeyName>>,
    /// So many of these keys must have seen the tests pass; 1 where nothing is said.
    #[schemars(range(min = 1, max = 16))]
    pub threshold: Option<u32>,
    /// The suites that count; any where nothing is said.
    #[schemars(length(min = 1))]
    pub suites: Option<Vec<DigestText>>,
    /// A report older than this does not count.
    pub max_age: Option<DurationText>,
}
