//! `GET /v1/status`, and `kiln status --json`: a contract others script against.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{recovery::Drill, volume::VolumeStatus};

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The groups, by name.
    pub groups: Vec<GroupStatus>,
    /// The last recovery drills of the gateway and of the daemon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drills: Vec<Drill>,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// Digest of the image wanted.
    pub image: String,
    /// Digest of the configuration wanted.
    pub config: String,
    /// Id of the release wanted.
    pub release: String,
    /// Servers wanted.
    pub desired: u32,
    /// Servers of the release wanted that are ready.
    pub ready: u32,
    /// The rollout under way or failed; null when there is none.
    pub rollout: Option<RolloutStatus>,
    /// Where the group can be reached: `http://127.0.0.1:8080`, `tcp://127.0.0.1:6379`.
    pub endpoints: Vec<String>,
    /// Its spares, which are no servers of it yet; null where none are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spares: Option<SparesStatus>,
    /// Healing that has stopped because too much went down; null where it goes on.
    #[serde(default)]
    pub healing: Option<HealingStatus>,
    /// Its last recovery drill; null where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<Drill>,
    /// How its number of servers follows its load; null where it does not.
    #[serde(default)]
    pub scaling: Option<ScalingStatus>,
    /// Its live keys; null where it has none.
    #[serde(default)]
    pub live: Option<LiveStatus>,
    /// The sources of its configuration that are watched; null where none is.
    #[serde(default)]
    pub sources: Option<SourcesStatus>,
    /// What becomes of its log lines; null where they stay on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<LogsStatus>,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
    /// Its volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeStatus>,
    /// Its shared directories that are on another machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<SharedStatus>,
    /// Releases whose evidence does not suffice any more: none of them can be launched.
    #[serde(default)]
    pub refused: Vec<RefusedStatus>,
}

/// A shared directory that is on another machine. While one is away, no server of the group is ready or gets traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SharedStatus {
    /// The image's name for it.
    pub name: String,
    /// What it is bound to: `nfs nas:/srv/uploads`.
    pub place: String,
    /// Why it cannot be used; null where it can.
    pub away: Option<String>,
    /// Since when, RFC 3339.
    pub since: Option<String>,
}

/// Log lines that leave the host. Counts begin with the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogsStatus {
    /// The collector.
    pub to: String,
    /// Why it is away; null where it answers, or was not needed yet.
    pub away: Option<String>,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// Lines sent, those sent again included.
    pub sent: u64,
    /// Lines that have arrived: acknowledged (RELP), or taken by the kernel (UDP, TCP, TLS).
    pub acknowledged: u64,
    /// Lines that are gone without having arrived.
    pub lost: u64,
    /// Lines that wait, or are under way.
    pub waiting: u64,
}

/// Healing that has stopped: it goes on by itself, or by `kiln heal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealingStatus {
    /// So many servers went down within the time that the fleet's `healing` looks back.
    pub down: u32,
    /// So many of them are healed.
    pub limit: u32,
    /// So many are missing and wait.
    pub waiting: u32,
    /// When the next will be healed if nothing else happens, RFC 3339.
    pub until: String,
    /// All that in words, and what to do.
    pub reason: String,
}

/// Servers that are made ahead and held, to take the place of one that dies or to be one more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SparesStatus {
    /// So many are wanted.
    pub wanted: u32,
    /// So many are there and wait.
    pub held: u32,
    /// So many of them were ready and stand still; the services of the others have not begun.
    #[serde(default)]
    pub ready: u32,
}

/// A group whose number of servers follows its load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScalingStatus {
    /// Never fewer servers.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// What each is to carry: `200 requests/s`.
    pub target: String,
    /// What was decided last, and why.
    pub reason: String,
}

/// A release that cannot be launched now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedStatus {
    /// Its id.
    pub release: String,
    /// A word for the reason: `revoked-key`, `expired`.
    pub code: String,
    /// The reason: whose fault it is, what happened, what to try.
    pub reason: String,
    /// Its servers, which run on.
    pub servers: Vec<String>,
}

/// The sources of a group's configuration, and what their last change led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SourcesStatus {
    /// What a change does: `report`, `rollout`.
    pub on_change: String,
    /// `waiting` (for a source, for changes to end, for another rollout), `proposed` (tested or rolled out now), `same` (the group
    /// runs what they say), `reported`, `rolled_out`, `declined` (the group was rolled back from it), `failed`.
    pub state: String,
    /// Why, in words.
    pub reason: String,
    /// Digest of the configuration that was proposed last, where it is not the group's.
    pub config: Option<String>,
    /// Each source.
    pub values: Vec<SourceStatus>,
}

/// One source. Its value is never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SourceStatus {
    /// The key of the configuration, with the name of its binding before it: `greeting`, `db.password`.
    pub key: String,
    /// Where its value comes from, in words without anything secret.
    pub source: String,
    /// `asked` (no answer yet), `fresh`, `away` (it cannot be reached), `wrong` (it has no good value).
    pub state: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// Why it is away or wrong.
    pub reason: Option<String>,
}

/// The live keys of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LiveStatus {
    /// Grows whenever what servers see changes.
    pub version: u64,
    /// How many live keys have a value.
    pub keys: u32,
    /// How many of them somebody has set to another value than the fleet's.
    pub set: u32,
}

/// A rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutStatus {
    /// Release it comes from, if any.
    pub from: Option<String>,
    /// Release it goes to.
    pub to: String,
    /// `running`, `reverting`, `failed`, `paused`.
    pub state: String,
    /// Why, in words.
    pub reason: String,
    /// Servers already on the new release and ready.
    pub updated: u32,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerStatus {
    /// Its id.
    pub id: String,
    /// `launching`, `starting`, `ready`, `draining`, `stopping`, `failed`; `spare` for one that is held, and is none of the group yet.
    pub state: String,
    /// Its release.
    pub release: String,
    /// Digest of its image.
    #[serde(default)]
    pub image: String,
    /// Its address.
    pub address: Option<String>,
    /// Its PID 1 on this host.
    pub pid: Option<u32>,
    /// When it was launched, RFC 3339.
    pub started_at: Option<String>,
    /// Milliseconds from launch to ready.
    #[serde(default, rename = "ready_ms", with = "kiln_model::duration::millis")]
    #[schema(value_type = Option<f64>)]
    pub ready: Option<Duration>,
    /// Set when somebody ran a command inside.
    pub touched: bool,
    /// Its slot in the group, where it has volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// Set for a spare that nobody took, also on its way out: it is none of the group's servers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spare: bool,
    /// Why it failed, if it did, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
