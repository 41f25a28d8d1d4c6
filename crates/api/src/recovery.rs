//! `POST /v1/recovery`: a recovery drill, and what one came to.

use std::time::Duration;

use kiln_model::{GroupName, fleet::Toll};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::request::Loss;

/// `POST /v1/recovery`: destroy something that Kiln keeps running, and measure how it comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RecoveryRequest {
    /// Random servers of a group.
    Group {
        /// The group.
        #[schema(value_type = String)]
        group: GroupName,
        /// How many; as its `drill` says where nothing is said.
        #[serde(default)]
        #[schema(value_type = Option<Object>)]
        toll: Option<Toll>,
        /// Whether more may be lost than the fleet says.
        #[serde(default)]
        loss: Loss,
    },
    /// The gateway's process.
    Gateway {},
    /// The daemon's process: the stream ends without a result, and `status` has it once a daemon is back.
    Daemon {},
}

/// A recovery drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drill {
    /// What was destroyed: `group`, `gateway`, `daemon`.
    pub what: String,
    /// The group, where it was servers of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// When, RFC 3339.
    pub at: String,
    /// Why: somebody asked, or the fleet says how often.
    pub reason: String,
    /// `running`, `met` (every objective), `missed` (some), `broken-off`.
    pub state: String,
    /// The servers that were destroyed.
    #[serde(default)]
    pub servers: Vec<String>,
    /// Milliseconds from the kill until what took its place was ready; null where it never was.
    #[serde(default, rename = "ready_ms", with = "kiln_model::duration::millis")]
    #[schema(value_type = Option<f64>)]
    pub ready: Option<Duration>,
    /// Requests that failed meanwhile, and TCP connections that were cut; null where nobody could count them.
    #[serde(default)]
    pub failed: Option<u64>,
    /// Bytes outside volumes that went; null where nobody could look.
    #[serde(default)]
    pub lost: Option<u64>,
    /// Log lines that the collector had not acknowledged at the kill: they are sent after it, where they can be.
    #[serde(default)]
    pub lines: u64,
    /// The objectives that were not met, or why it broke off.
    #[serde(default)]
    pub missed: Vec<String>,
}

impl Drill {
    /// What was destroyed, in words.
    pub fn target(&self) -> String {
        match &self.group {
            Some(group) => format!("group {group}"),
            None => format!("the {}", self.what),
        }
    }
}
