//! A fleet: the groups wanted in one environment.

pub(crate) mod drill;
mod files;
mod fit;
pub(crate) mod healing;
pub(crate) mod logs;
pub(crate) mod loss;
pub(crate) mod overlay;
pub(crate) mod publish;
pub(crate) mod rollout;
pub(crate) mod scaling;
pub(crate) mod shared;
pub(crate) mod source;
pub(crate) mod text;
mod values;
pub(crate) mod volume;
pub(crate) mod window;

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

pub(crate) use self::fit::{literal, words};
pub use self::{
    drill::{DrillPolicy, Figures, Missed, Objectives, Toll},
    files::{FleetFiles, FleetText, Origin},
    healing::HealingPolicy,
    logs::{Collector, InvalidCollector, LogsPolicy, Transport},
    loss::LossPolicy,
    publish::{InvalidPublishName, Publish, PublishName},
    scaling::{Endpoint, Floor, InvalidEndpoint, Measure, Metric, Pace, Scaling, Target},
    values::NoVariable,
    window::{InvalidWindow, InvalidZone, Window, Windows, ZoneName},
};

use crate::{
    config::{ConfigKey, ConfigSource},
    digest::ImageDigest,
    id::{BindingName, ChannelName, GroupName, ImageName, SharedName, VolumeName},
    shared::SharedDirectory,
    size::ByteSize,
    volume::VolumePolicy,
};

/// The groups wanted in one environment, and the rules for evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// The groups by name.
    pub groups: BTreeMap<GroupName, Group>,
    /// How old evidence may be.
    pub evidence: EvidencePolicy,
    /// Values for every group whose image has the key and that gives none itself ([`Fleet::values_of`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<ConfigKey, ConfigSource>,
}

/// How old evidence may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidencePolicy {
    /// A report older than this refuses a new rollout. 30 days by default.
    #[serde(with = "crate::duration")]
    pub max_age: Duration,
    /// Whether healing a running release goes on after its report expired.
    pub on_expiry: OnExpiry,
}

/// Whether healing goes on with an expired report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnExpiry {
    /// With a loud warning.
    Warn,
    /// Healing stops.
    Stop,
}

impl Default for EvidencePolicy {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(30 * 86_400), on_expiry: OnExpiry::Warn }
    }
}

/// Servers of one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Which image.
    pub image: ImageRef,
    /// How many servers; where their number follows the load, how many there are at least.
    pub count: u32,
    /// How many servers are made ahead and held, to take the place of one that dies or to be one more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spares: u32,
    /// How their number follows the load; none where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
    /// Environment variables of every service, part of the configuration.
    pub environment: BTreeMap<String, String>,
    /// Values of the image's configuration keys, or where they come from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<ConfigKey, ConfigSource>,
    /// What the image's bindings lead to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bindings: BTreeMap<BindingName, BTreeMap<ConfigKey, ConfigSource>>,
    /// Limits of each server.
    pub limits: Limits,
    /// The volumes of each server.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<VolumeName, VolumePolicy>,
    /// What the shared directories of each server are bound to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shared: BTreeMap<SharedName, SharedDirectory>,
    /// Ports of the host that lead to this group.
    pub publish: Vec<Publish>,
    /// How the group moves from one release to another.
    pub rollout: RolloutPolicy,
    /// How much of the group is healed before a person has to look.
    #[serde(default)]
    pub healing: HealingPolicy,
    /// What is destroyed on purpose, and what is expected then.
    #[serde(default)]
    pub drill: DrillPolicy,
    /// No server gets older; none where age does not count.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::duration::option")]
    pub max_age: Option<Duration>,
    /// When planned work may happen.
    #[serde(default)]
    pub windows: Windows,
    /// Where its log lines go; nowhere if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<LogsPolicy>,
    /// What may be lost with its servers.
    #[serde(default)]
    pub loss: LossPolicy,
    /// What happens when a source of its configuration gives another value.
    #[serde(default)]
    pub on_source_change: OnSourceChange,
    /// What happens to running servers when their image is revoked.
    #[serde(default)]
    pub on_revoked: OnRevoked,
}

/// What happens to running servers when their image is revoked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnRevoked {
    /// They run on, are named in `kiln status`, and are not replaced when they die.
    #[default]
    Keep,
    /// The group goes back to the latest release that it was on and that may still be launched.
    Replace,
}

/// What happens when a file or a registry that a group's configuration comes from gives another value than the one that was
/// frozen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnSourceChange {
    /// Nothing: sources are asked only when a fleet is applied.
    Ignore,
    /// The change is shown, as an event and in `kiln status`.
    #[default]
    Report,
    /// The new configuration is tested with the image and, when it has passed, rolled out.
    Rollout,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Group {
    /// One server of an image, with nothing said beside it.
    pub fn new(image: ImageRef) -> Self {
        Self {
            image,
            count: 1,
            spares: 0,
            scaling: None,
            environment: BTreeMap::new(),
            config: BTreeMap::new(),
            bindings: BTreeMap::new(),
            limits: Limits::default(),
            volumes: BTreeMap::new(),
            shared: BTreeMap::new(),
            publish: Vec::new(),
            rollout: RolloutPolicy::default(),
            healing: HealingPolicy::default(),
            drill: DrillPolicy::default(),
            max_age: None,
            windows: Windows::default(),
            logs: None,
            loss: LossPolicy::default(),
            on_source_change: OnSourceChange::default(),
            on_revoked: OnRevoked::default(),
        }
    }
}

/// How an image is named: `name` (channel `dev`), `name@channel` or `name@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    /// The image's name.
    pub name: ImageName,
    /// Which of its images.
    pub selector: Selector,
}

/// Which of the images of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The image this channel points to.
    Channel(ChannelName),
    /// This image.
    Digest(ImageDigest),
}

/// A text that is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image: write `name`, `name@channel` or `name@sha256:…` ({reason})")]
pub struct InvalidImageRef {
    text: String,
    reason: String,
}

impl FromStr for ImageRef {
    type Err = InvalidImageRef;
    fn from_str(text: &str) -> Result<Self, InvalidImageRef> {
        let bad = |reason: String| InvalidImageRef { text: text.chars().take(160).collect(), reason };
        let (name, selector) = text.split_once('@').unwrap_or((text, "dev"));
        let name = name.parse().map_err(|e: crate::id::InvalidName| bad(e.to_string()))?;
        let selector = if selector.starts_with("sha256:") {
            Selector::Digest(selector.parse().map_err(|e: crate::digest::InvalidDigest| bad(e.to_string()))?)
        } else {
            Selector::Channel(selector.parse().map_err(|e: crate::id::InvalidName| bad(e.to_string()))?)
        };
        Ok(Self { name, selector })
    }
}
impl TryFrom<String> for ImageRef {
    type Error = InvalidImageRef;
    fn try_from(text: String) -> Result<Self, InvalidImageRef> {
        text.parse()
    }
}
impl From<ImageRef> for String {
    fn from(image: ImageRef) -> String {
        image.to_string()
    }
}
impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.selector {
            Selector::Channel(channel) => write!(f, "{}@{channel}", self.name),
            Selector::Digest(digest) => write!(f, "{}@{digest}", self.name),
        }
    }
}

/// Limits of one server, kept by its cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory, tmpfs included.
    pub memory: Option<ByteSize>,
    /// Thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// How a group moves from one release to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutPolicy {
    /// Which way.
    pub strategy: Strategy,
    /// A new server counts as healthy after being ready for this long.
    #[serde(with = "crate::duration")]
    pub min_healthy_time: Duration,
    /// A rollout that makes no progress for this long has failed.
    #[serde(with = "crate::duration")]
    pub progress_deadline: Duration,
    /// Whether a failed rollout goes back to the previous release by itself.
    pub auto_revert: bool,
    /// An old server is given this long to finish what it is serving.
    #[serde(with = "crate::duration")]
    pub drain: Duration,
}

/// Which way a rollout goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Strategy {
    /// A few at a time.
    Rolling {
        /// So many servers more than `count` may exist.
        max_surge: u32,
        /// So many servers fewer than `count` may be ready.
        max_unavailable: u32,
    },
    /// A whole second set, then all traffic at once.
    BlueGreen,
}

impl Default for RolloutPolicy {
    fn default() -> Self {
        Self {
            strategy: Strategy::Rolling { max_surge: 1, max_unavailable: 0 },
            min_healthy_time: Duration::ZERO,
            progress_deadline: Duration::from_secs(120),
            auto_revert: true,
            drain: Duration::from_secs(30),
        }
    }
}
