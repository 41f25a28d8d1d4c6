//! Configurations of groups: how two of them differ, and the live values.

use std::path::PathBuf;

use kiln_model::{Fleet, GroupName, config::ConfigKey};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/config/diff`: compare two configurations of a group. Sources are asked, and nothing is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigDiffRequest {
    /// The group.
    #[schema(value_type = String)]
    pub group: GroupName,
    /// What is compared.
    pub from: Side,
    /// With what.
    pub to: Side,
}

/// One of two configurations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// A release that the group has or had: `running`, `previous`, or its id, of which the first digits are enough.
    Release(String),
    /// What a fleet would give to the group now.
    Fleet {
        /// The fleet.
        #[schema(value_type = Object)]
        fleet: Box<Fleet>,
        /// Where its file is.
        #[schema(value_type = String)]
        directory: PathBuf,
    },
}

/// How two configurations of a group differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigDiff {
    /// The group.
    pub group: String,
    /// What was compared.
    pub from: SideShown,
    /// With what.
    pub to: SideShown,
    /// Every value, in the order of its place.
    pub values: Vec<ValueDiff>,
}

/// A configuration that was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SideShown {
    /// Id of the release.
    pub release: String,
    /// Digest of its image.
    pub image: String,
    /// Digest of the configuration.
    pub config: String,
}

/// A value in two configurations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ValueDiff {
    /// The key; `binding.field`, or `environment.NAME`.
    pub key: String,
    /// `same`, `changed`, `added`, `removed`.
    pub change: String,
    /// Whether it is secret: then neither value is told.
    pub secret: bool,
    /// What it was.
    pub old: Option<serde_json::Value>,
    /// What it is.
    pub new: Option<serde_json::Value>,
}

/// `POST /v1/live`: set a live key of a group, or reset it to what the fleet says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LiveRequest {
    /// The group.
    #[schema(value_type = String)]
    pub group: GroupName,
    /// The key.
    #[schema(value_type = String)]
    pub key: ConfigKey,
    /// The value, read as the key's type; the fleet's where there is none.
    #[serde(default)]
    pub value: Option<String>,
}

/// `GET /v1/live/{id}`: the live values of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LiveDetails {
    /// The group.
    pub group: String,
    /// Grows whenever what servers see changes.
    pub version: u64,
    /// Every live key that has a value.
    pub keys: Vec<LiveKey>,
}

/// A live key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LiveKey {
    /// The key.
    pub key: String,
    /// What servers see.
    pub value: serde_json::Value,
    /// What the fleet gives, or the recipe's default.
    pub fleet: Option<serde_json::Value>,
    /// When somebody set it, RFC 3339; null where it is the fleet's.
    pub set_at: Option<String>,
}
