//! The text form of `fleet.toml`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{DurationText, ImageText, SizeText};
use crate::{
    config::ConfigKey,
    fleet::{OnExpiry, OnRevoked, OnSourceChange},
    id::{BindingName, GroupName, SharedName, VolumeName},
    manifest::Protocol,
    shared::NfsVersion,
    volume::Filesystem,
};

/// A Kiln fleet: the groups of servers wanted in one environment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "fleet.toml")]
pub struct FleetToml {
    /// Values for every group whose image has the key and that gives none itself.
    pub config: Option<BTreeMap<ConfigKey, ValueOrSource>>,
    /// The groups, by name.
    pub group: BTreeMap<GroupName, Group>,
    /// How old the evidence for a release may be.
    pub evidence: Option<Evidence>,
    /// Where the log lines of groups go that say nothing themselves; nowhere where nothing is said.
    pub logs: Option<Logs>,
}

/// Servers of one role.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Which image: `hello` (channel `dev`), `hello@stable` or `hello@sha256:…`.
    pub image: ImageText,
    /// How many servers, as a number or as limits between which they follow their load; 1 where nothing is said.
    pub count: Option<Count>,
    /// How many servers are made ahead and held, so that a death or a scale-out takes one at once; 0 where nothing is said.
    #[schemars(range(max = 100))]
    pub spares: Option<u32>,
    /// Environment variables of every service: the group's configuration, part of the release.
    pub environment: Option<BTreeMap<String, String>>,
    /// Values of the image's configuration keys, or where they come from.
    pub config: Option<BTreeMap<ConfigKey, ValueOrSource>>,
    /// What the image's service bindings lead to: the fields of each.
    pub service_binding: Option<BTreeMap<BindingName, BTreeMap<ConfigKey, ValueOrSource>>>,
    /// What happens when a source gives another value; `report` where nothing is said.
    pub on_source_change: Option<OnSourceChange>,
    /// What happens to running servers when their image is revoked; `keep` where nothing is said.
    pub on_revoked: Option<OnRevoked>,
    /// Limits of each server.
    pub limits: Option<Limits>,
    /// The volumes of each server, by the names that the image gives them.
    pub volume: Option<BTreeMap<VolumeName, Volume>>,
    /// What the shared directories of each server are bound to, by the names that the image gives them.
    pub shared: Option<BTreeMap<SharedName, Shared>>,
    /// Ports of the host that lead to this group.
    pub publish: Option<Vec<Publish>>,
    /// How the group moves from one release to another.
    pub rollout: Option<Rollout>,
    /// How much of the group is healed before a person has to look.
    pub healing: Option<Healing>,
    /// What is destroyed on purpose to see how the group recovers, and what is expected then.
    pub drill: Option<Drill>,
    /// No server gets older: `7d`. Replaced as `rollout` says, in a change window.
    pub max_age: Option<DurationText>,
    /// When planned work may happen: what Kiln does by itself although nothing is broken.
    pub windows: Option<Windows>,
    /// Where its log lines go.
    pub logs: Option<Logs>,
    /// How much may be lost with each of its servers that somebody has replaced or removed, without `--accept-loss`.
    pub loss: Option<Loss>,
}

/// Where log lines go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// The collector: `udp://host:port`, `tcp://…`, `tls://…`, `relp://…`; `none` for a group whose lines go nowhere.
    #[schemars(regex(pattern = "^(none|(udp|tcp|tls|relp)://.+:[0-9]+)$"))]
    pub to: String,
    /// Certificates (PEM) of the authorities that are believed (`tls`); the host's own where nothing is said.
    pub ca: Option<String>,
    /// Certificate (PEM) that Kiln shows (`tls`).
    pub certificate: Option<String>,
    /// Key (PEM) of that certificate.
    pub key: Option<String>,
    /// A server that ended is removed when its collector has its last line, or after this time; `30s` where nothing is said.
    pub receipt: Option<DurationText>,
}

/// What may be lost with each server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// Log lines that the collector has not acknowledged; 0 where nothing is said.
    #[schemars(range(max = 1_000_000_000))]
    pub logs: Option<u64>,
    /// Bytes in writable paths that are no volumes; `64MiB` where nothing is said.
    pub data: Option<SizeText>,
}

/// How many servers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Count {
    /// So many.
    Fixed(#[schemars(range(max = 10_000))] u32),
    /// As many as their load asks for.
    Scaled(Box<Scaled>),
}

/// As many servers as their load asks for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scaled {
    /// Never fewer; 0 for a group with published ports, whose first request waits until a server is ready.
    #[schemars(range(max = 10_000))]
    pub min: u32,
    /// Never more.
    #[schemars(range(min = 1, max = 10_000))]
    pub max: u32,
    /// What each server is to carry: one of these.
    pub target: ScaleTarget,
    /// How fast it grows; at once, and again after `10s`, where nothing is said.
    pub scale_out: Option<ScalePace>,
    /// How fast it shrinks: after `5m` of less load where nothing is said.
    pub scale_in: Option<ScalePace>,
    /// Never fewer at certain times.
    pub schedule: Option<Vec<ScaleFloor>>,
    /// The clock of the schedule, by its name in the time zone database; `UTC` where nothing is said.
    pub time_zone: Option<String>,
}

/// The load that one server is to carry.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleTarget {
    /// Requests that the gateway sends to it each second.
    pub requests_per_second: Option<f64>,
    /// Requests under way, or connections of a port that is published as TCP.
    pub connections: Option<f64>,
    /// Processor time, in percent of its limit, or of one processor where it has none: `60%`.
    #[schemars(regex(pattern = "^[0-9]{1,4}%$"))]
    pub cpu: Option<String>,
    /// A number of the whole group that an endpoint tells.
    pub custom: Option<ScaleMetric>,
}

/// A number of a whole group, in Prometheus' text format or bare.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleMetric {
    /// Who is asked, every 5 s: `http://127.0.0.1:9090/metrics`.
    #[schemars(regex(pattern = "^http://"))]
    pub url: String,
    /// Which samples are added up: `jobs_waiting`, `jobs{queue=\"mail\"}`; where nothing is said the answer is a bare number.
    pub metric: Option<String>,
    /// How much of it each server is to carry.
    pub per_server: f64,
}

/// How fast a group changes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScalePace {
    /// For growing, so long after the last change; for shrinking, so long with less load all the time.
    pub wait: Option<DurationText>,
    /// At most so many servers at once.
    #[schemars(range(min = 1, max = 10_000))]
    pub step: Option<u32>,
}

/// Never fewer servers while a window is open.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleFloor {
    /// When: `mon-fri 08:00-18:00`.
    pub during: String,
    /// Never fewer.
    #[schemars(range(min = 1, max = 10_000))]
    pub min: u32,
}

/// The file of an environment, `fleet.staging.toml`: what differs there from fleet.toml.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "fleet.ENVIRONMENT.toml")]
pub struct EnvironmentToml {
    /// Values for every group whose image has the key and that gives none itself.
    pub config: Option<BTreeMap<ConfigKey, ValueOrSource>>,
    /// Groups of fleet.toml, by name.
    pub group: Option<BTreeMap<GroupName, EnvironmentGroup>>,
}

/// What differs for a group.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentGroup {
    /// Which image.
    pub image: Option<ImageText>,
    /// How many servers.
    pub count: Option<Count>,
    /// Environment variables of every service, over those of fleet.toml.
    pub environment: Option<BTreeMap<String, String>>,
    /// Values of the image's configuration keys, over those of fleet.toml.
    pub config: Option<BTreeMap<ConfigKey, ValueOrSource>>,
    /// Limits of each server, over those of fleet.toml.
    pub limits: Option<Limits>,
}

/// A value, or where it comes from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ValueOrSource {
    /// A text.
    Text(String),
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// A list.
    List(Vec<ValueOrSource>),
    /// A variable of the environment of whoever calls `kiln`, a file, a command, or a registry's key.
    Source(Box<Source>),
}

/// Where a value comes from: exactly one of `env`, `file`, `command`, `zookeeper`, `etcd`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A variable of the environment of whoever calls `kiln`.
    pub env: Option<String>,
    /// A file, absolute or relative to the fleet.
    pub file: Option<String>,
    /// A program and its arguments; its standard output is the value.
    #[schemars(length(min = 1))]
    pub command: Option<Vec<String>>,
    /// `host:port[,host:port…]/path`.
    #[schemars(regex(pattern = "^[^/]+:[0-9]+/"))]
    pub zookeeper: Option<String>,
    /// `host:port[,host:port…]/key`; the key begins with the `/`.
    #[schemars(regex(pattern = "^[^/]+:[0-9]+/"))]
    pub etcd: Option<String>,
    /// Who asks the registry.
    pub user: Option<String>,
    /// The user's password, or where it is.
    pub password: Option<PasswordOrSource>,
    /// That the connection is encrypted, and how.
    pub tls: Option<RegistryTls>,
}

/// A password, or where it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PasswordOrSource {
    /// The password.
    Text(String),
    /// Where it is.
    Source(PasswordSource),
}

/// Where a password is: `env` or `file`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordSource {
    /// A variable of the environment of whoever calls `kiln`.
    pub env: Option<String>,
    /// A file, absolute or relative to the fleet.
    pub file: Option<String>,
}

/// How a registry's connection is encrypted. Paths are absolute or relative to the fleet.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryTls {
    /// Certificates (PEM) of the authorities that are believed; the host's own where nothing is said.
    pub ca: Option<String>,
    /// Certificate (PEM) that Kiln shows.
    pub certificate: Option<String>,
    /// Key (PEM) of that certificate.
    pub key: Option<String>,
}

/// A volume of each server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Its size: `1GiB`. A greater one grows the volume while it is in use; it is never made smaller.
    pub size: SizeText,
    /// The file system of a new one; `ext4` where nothing is said.
    pub filesystem: Option<Filesystem>,
    /// One that no server wants any more is kept for so long; `30d` where nothing is said.
    pub retain: Option<DurationText>,
    /// Snapshots by the clock; none where nothing is said.
    pub snapshots: Option<Snapshots>,
}

/// What a shared directory is bound to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Shared {
    /// A directory of the host.
    Directory(SharedHostDirectory),
    /// What an NFS server exports.
    Nfs(SharedNfs),
}

/// A directory of the host.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedHostDirectory {
    /// Its path: absolute, without symbolic links. Kiln neither makes nor removes it.
    #[schemars(regex(pattern = "^/."))]
    pub directory: String,
    /// Whether servers can only read; `false` where nothing is said.
    pub read_only: Option<bool>,
    /// Whether servers can execute what is there; `false` where nothing is said.
    pub execute: Option<bool>,
}

/// What an NFS server exports.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedNfs {
    /// `server:/export`.
    #[schemars(regex(pattern = "^.+:/"))]
    pub nfs: String,
    /// `4.2` or `3`; `4.2` where nothing is said.
    pub version: Option<NfsVersion>,
    /// What the server does not answer for so long fails; `15s` where nothing is said.
    pub timeout: Option<DurationText>,
    /// Whether servers can only read; `false` where nothing is said.
    pub read_only: Option<bool>,
    /// Whether servers can execute what is there; `false` where nothing is said.
    pub execute: Option<bool>,
}

/// Snapshots by the clock.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Snapshots {
    /// One every so often: `1h`.
    pub every: DurationText,
    /// So many are kept.
    #[schemars(range(min = 1, max = 1000))]
    pub keep: u32,
    /// The newest one is restored and tested on a throwaway server every so often; never where nothing is said.
    pub drill: Option<DurationText>,
}

/// Limits of each server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory, tmpfs included: `256MiB`.
    pub memory: Option<SizeText>,
    /// Cores: `0.5`.
    #[schemars(range(min = 0.01, max = 1024.0))]
    pub cpu: Option<f64>,
    /// Processes and threads.
    #[schemars(range(min = 4, max = 4_194_304))]
    pub pids: Option<u32>,
}

/// A port of the host that leads to a group.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// Port of the host; 0 takes a free one.
    pub listen: u16,
    /// Port of the servers.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// `tcp` where nothing is said.
    pub protocol: Option<Protocol>,
    /// Leads only to the server in this slot, of a group with volumes; to all where nothing is said.
    pub slot: Option<u32>,
}

/// How a group moves from one release to another.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// `rolling` where nothing is said.
    pub strategy: Option<Strategy>,
    /// So many servers more than `count` may exist for a while; 1 where nothing is said.
    #[schemars(range(max = 10_000))]
    pub max_surge: Option<u32>,
    /// So many servers fewer than `count` may be ready for a while; 0 where nothing is said.
    #[schemars(range(max = 10_000))]
    pub max_unavailable: Option<u32>,
    /// A new server counts as healthy after being ready for this long; `0s` where nothing is said.
    pub min_healthy_time: Option<DurationText>,
    /// A rollout without progress for this long has failed; `2m` where nothing is said.
    pub progress_deadline: Option<DurationText>,
    /// Whether a failed rollout goes back to the previous release by itself; true where nothing is said.
    pub auto_revert: Option<bool>,
    /// An old server has this long to finish what it is serving; `30s` where nothing is said.
    pub drain: Option<DurationText>,
}

/// When healing stops: so many servers down say more about the host than about the servers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Healing {
    /// Percent of the group that may go down and be healed; 20 where nothing is said.
    #[schemars(range(max = 100))]
    pub max_down: Option<u32>,
    /// Within this time; `10m` where nothing is said.
    pub within: Option<DurationText>,
    /// So many are healed always, however small the group; 5 where nothing is said.
    #[schemars(range(max = 10_000))]
    pub always: Option<u32>,
}

/// Recovery drills: servers that are destroyed on purpose, in a change window, and what is expected then.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drill {
    /// So often: `1d`; only by hand where nothing is said.
    pub every: Option<DurationText>,
    /// So many servers at once; 1 where nothing is said.
    #[schemars(range(min = 1, max = 10_000))]
    pub servers: Option<u32>,
    /// In place of that: percent of the group, at least one server.
    #[schemars(range(min = 1, max = 100))]
    pub share: Option<u32>,
    /// So often the gateway's process: `7d`; only by hand where nothing is said.
    pub gateway: Option<DurationText>,
    /// So often the daemon's process, where it is supervised; only by hand where nothing is said.
    pub daemon: Option<DurationText>,
    /// The last replacement is ready so long after the kill; only measured where nothing is said.
    pub ready_within: Option<DurationText>,
    /// At most so many requests fail; only counted where nothing is said.
    #[schemars(range(max = 1_000_000_000))]
    pub failed: Option<u64>,
    /// At most so many bytes outside volumes are lost; only counted where nothing is said.
    pub lost: Option<SizeText>,
}

/// Change windows: `mon-fri 22:00-05:00`, `sat,sun`, `2026-12-24/2027-01-02`, `22:00-05:00`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Windows {
    /// Planned work happens only in one of these; at any time where nothing is said.
    pub open: Option<Vec<String>>,
    /// Planned work happens in none of these.
    pub closed: Option<Vec<String>>,
    /// Whose clock and calendar count: `Europe/Berlin`; `UTC` where nothing is said.
    pub time_zone: Option<String>,
}

/// Which way a rollout goes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// A few servers at a time.
    Rolling,
    /// A whole second set, then all traffic at once.
    BlueGreen,
}

/// How old the evidence for a release may be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// A report older than this refuses a new rollout; `30d` where nothing is said.
    pub max_age: Option<DurationText>,
    /// Whether healing goes on with an expired report; `warn` where nothing is said.
    pub on_expiry: Option<OnExpiry>,
}
