//! The text form of `[config.KEY]` and `[file.PATH]`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    config::ConfigKey,
    schema::{ModeText, RecipePath, UserText},
};

/// Something that servers of the image can be told.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// What its values are.
    #[serde(rename = "type")]
    pub kind: KeyType,
    /// The value where a fleet gives none. A key without one is required, unless it is optional.
    pub default: Option<KeyValue>,
    /// Whether the key may have no value.
    pub optional: Option<bool>,
    /// At least: of an integer, a number, a duration, a size.
    pub min: Option<KeyValue>,
    /// At most.
    pub max: Option<KeyValue>,
    /// A regular expression that the whole text matches.
    pub pattern: Option<String>,
    /// The words of an enum.
    #[schemars(length(min = 1))]
    pub values: Option<Vec<String>>,
    /// What the items of a list are.
    pub items: Option<Items>,
    /// Whether it is never shown, logged, or stored in clear.
    pub secret: Option<bool>,
    /// Whether it may change in a running server, outside of the release.
    pub live: Option<bool>,
    /// For people.
    pub description: Option<String>,
}

/// The types of configuration keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// A text, at most 64 KiB.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// `30s`.
    Duration,
    /// `64MiB`.
    Size,
    /// An absolute URL with a host.
    Url,
    /// `host:port`.
    Address,
    /// One of `values`.
    Enum,
    /// A list of `items`.
    List,
}

/// A value.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum KeyValue {
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<KeyItem>),
}

/// An item of a list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum KeyItem {
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

/// A type, or a type with its bounds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Items {
    /// Any value of a type.
    Type(KeyType),
    /// With bounds.
    Bounded(ItemsTable),
}

/// A type with its bounds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ItemsTable {
    /// What the items are.
    #[serde(rename = "type")]
    pub kind: KeyType,
    /// At least.
    pub min: Option<KeyValue>,
    /// At most.
    pub max: Option<KeyValue>,
    /// A regular expression that the whole text matches.
    pub pattern: Option<String>,
    /// The words of an enum.
    pub values: Option<Vec<String>>,
}

/// A text, or the value of a configuration key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Variable {
    /// A text.
    Text(String),
    /// The value of a configuration key.
    Configured(Configured),
}

/// The value of a configuration key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Configured {
    /// The key.
    pub config: ConfigKey,
}

/// A file in memory, rendered from a template before services start.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The template, a file beside the recipe: `{{ config.key }}` is the value of a key.
    pub template: RecipePath,
    /// Owner; root where nothing is said.
    pub user: Option<UserText>,
    /// Mode; `0644` where nothing is said.
    pub mode: Option<ModeText>,
}
