//! The rows as types, and reading them all.

use std::{cell::RefCell, collections::BTreeMap, net::Ipv4Addr, str::FromStr, time::Duration};

use jiff::Timestamp;
use kiln_model::{
    ConfigDigest, FrozenConfig, Group, GroupName, ImageDigest, Release, ReleaseId, ServerId, ServerState, SharedName,
    SuiteDigest, VolumeId,
    config::SecretHash,
    fleet::{EvidencePolicy, Limits, PublishName},
    plan::{Failure, RolloutProgress},
    shared::SharedDirectory,
};
use rusqlite::{Connection, Row};
use serde::de::DeserializeOwned;

use super::DbError;
use crate::{
    live::LiveValues,
    logs::Arrived,
    recovery::{DrillRow, Target},
    volumes::VolumeRow,
};

/// A group as it was applied, and how far it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupRow {
    pub name: GroupName,
    pub revision: u64,
    pub release: ReleaseId,
    pub spec: Group,
    pub evidence: EvidencePolicy,
    pub progress: Option<RolloutProgress>,
    pub failures: Vec<Failure>,
    /// The port of the host that was chosen for each published one that takes any.
    pub ports: BTreeMap<PublishName, u16>,
    /// Whether the group is forgotten once its last server is gone.
    pub removing: bool,
    /// Where its values come from, sealed; none where nothing of it is watched.
    pub origins: Option<SecretHash>,
    /// The configuration that somebody took it back from: a change of a source does not bring it there again.
    pub declined: Option<ConfigDigest>,
}

/// A release that a group was asked to go to at some time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PastRelease {
    pub image: ImageDigest,
    pub config: FrozenConfig,
    pub suite: SuiteDigest,
    /// When the whole group last arrived on it: the greatest number is the latest.
    pub settled: Option<i64>,
}

impl PastRelease {
    pub fn id(&self) -> ReleaseId {
        Release { image: self.image, config: self.config.digest() }.id()
    }
}

/// A server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServerRow {
    pub id: ServerId,
    pub group: GroupName,
    pub generation: u64,
    pub release: ReleaseId,
    pub limits: Limits,
    pub state: ServerState,
    pub address: Option<Ipv4Addr>,
    pub pid: Option<u32>,
    pub launched_at: Timestamp,
    pub ready_at: Option<Timestamp>,
    pub ready: Option<Duration>,
    pub in_traffic: bool,
    pub rebuild: bool,
    pub touched: bool,
    /// Why it failed.
    pub reason: Option<String>,
    /// Its slot, where it has volumes.
    pub slot: Option<u32>,
    /// What its shared directories are bound to.
    pub shared: BTreeMap<SharedName, SharedDirectory>,
    /// Whether it is a spare, which nobody has taken yet.
    pub spare: bool,
}

impl ServerRow {
    /// Whether it was launched with something else than the group says by now, beside its release.
    pub fn is_other_than(&self, wanted: &kiln_model::Group) -> bool {
        self.limits != wanted.limits || self.shared != wanted.shared
    }
}

/// An intention that was not closed: the daemon ended in the middle of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OpenIntention {
    pub id: i64,
    pub group: GroupName,
    pub server: ServerId,
    pub action: String,
}

/// Everything that was on disk.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub groups: Vec<GroupRow>,
    pub releases: BTreeMap<GroupName, Vec<PastRelease>>,
    pub servers: BTreeMap<GroupName, Vec<ServerRow>>,
    pub open: Vec<OpenIntention>,
    pub next_intention: i64,
    pub counters: BTreeMap<String, i64>,
    pub live: BTreeMap<GroupName, LiveValues>,
    pub volumes: BTreeMap<VolumeId, VolumeRow>,
    pub arrived: BTreeMap<ServerId, Arrived>,
    pub drills: BTreeMap<Target, DrillRow>,
}

pub(super) fn everything(connection: &Connection) -> Result<Loaded, DbError> {
    let mut loaded = Loaded {
        groups: rows(connection, "SELECT * FROM groups ORDER BY name", group)?,
        open: rows(
            connection,
            "SELECT id, group_name, server, action FROM intentions WHERE closed_at IS NULL ORDER BY id",
            intention,
        )?,
        ..Loaded::default()
    };
    // As they lie in the file: in the order of an index each would be looked up.
    let same = SameOfServers::default();
    for row in rows(connection, "SELECT * FROM servers", |row| server(row, &same))? {
        loaded.servers.entry(row.group.clone()).or_default().push(row);
    }
    let releases = "SELECT group_name, image, body, suite, settled FROM releases JOIN configs ON digest = config";
    for (group, past) in rows(connection, releases, release)? {
        loaded.releases.entry(group).or_default().push(past);
    }
    let highest: Vec<i64> = rows(connection, "SELECT coalesce(max(id), 0) FROM intentions", |row| get(row, 0, "id"))?;
    loaded.next_intention = highest.first().copied().unwrap_or(0) + 1;
    let counters = rows(connection, "SELECT name, value FROM counters", |row| {
        Ok((get::<String>(row, 0, "name")?, get::<i64>(row, 1, "value")?))
    })?;
    loaded.counters = counters.into_iter().collect();
    loaded.live = rows(connection, "SELECT * FROM live", live)?.into_iter().collect();
    let volumes = rows(connection, "SELECT * FROM volumes", |row| Ok((parsed(row, 0, "id")?, json(row, 1, "body")?)))?;
    loaded.volumes = volumes.into_iter().collect();
    let arrived =
        rows(connection, "SELECT * FROM arrived", |row| Ok((parsed(row, 0, "server")?, json(row, 1, "body")?)))?;
    loaded.arrived = arrived.into_iter().collect();
    let drills =
        rows(connection, "SELECT * FROM drills", |row| Ok((parsed(row, 0, "target")?, json(row, 1, "body")?)))?;
    loaded.drills = drills.into_iter().collect();
    Ok(loaded)
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    read: impl Fn(&Row<'_>) -> Result<T, DbError>,
) -> Result<Vec<T>, DbError> {
    let failed = |source| DbError::Sqlite { action: "read", source };
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let mut found = statement.query([]).map_err(failed)?;
    let mut all = Vec::new();
    while let Some(row) = found.next().map_err(failed)? {
        all.push(read(row)?);
    }
    Ok(all)
}

fn get<T: rusqlite::types::FromSql>(row: &Row<'_>, at: usize, what: &'static str) -> Result<T, DbError> {
    row.get(at).map_err(|_| damaged(row, what))
}

fn damaged(row: &Row<'_>, what: &'static str) -> DbError {
    DbError::Damaged { what, row: row.get::<_, String>(0).unwrap_or_else(|_| "a row".to_owned()) }
}

fn text<'a>(row: &'a Row<'_>, at: usize, what: &'static str) -> Result<&'a str, DbError> {
    row.get_ref(at).ok().and_then(|value| value.as_str().ok()).ok_or_else(|| damaged(row, what))
}

fn parsed<T: FromStr>(row: &Row<'_>, at: usize, what: &'static str) -> Result<T, DbError> {
    text(row, at, what)?.parse().map_err(|_| damaged(row, what))
}

fn parsed_option<T: FromStr>(row: &Row<'_>, at: usize, what: &'static str) -> Result<Option<T>, DbError> {
    let value = row.get_ref(at).map_err(|_| damaged(row, what))?;
    let text = value.as_str_or_null().map_err(|_| damaged(row, what))?;
    text.map(|text| text.parse().map_err(|_| damaged(row, what))).transpose()
}

fn json<T: DeserializeOwned>(row: &Row<'_>, at: usize, what: &'static str) -> Result<T, DbError> {
    serde_json::from_str(text(row, at, what)?).map_err(|_| damaged(row, what))
}

/// What many rows have in common is parsed once.
struct Same<T>(RefCell<Option<(String, T)>>);

impl<T> Default for Same<T> {
    fn default() -> Self {
        Self(RefCell::new(None))
    }
}

impl<T: Clone> Same<T> {
    fn of(
        &self,
        row: &Row<'_>,
        at: usize,
        what: &'static str,
        parse: impl FnOnce(&Row<'_>, usize, &'static str) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let text = text(row, at, what)?;
        if let Some((_, value)) = self.0.borrow().as_ref().filter(|(known, _)| known == text) {
            return Ok(value.clone());
        }
        let value = parse(row, at, what)?;
        *self.0.borrow_mut() = Some((text.to_owned(), value.clone()));
        Ok(value)
    }
}

/// What servers have in common with the one before.
#[derive(Default)]
struct SameOfServers {
    group: Same<GroupName>,
    release: Same<ReleaseId>,
    limits: Same<Limits>,
    state: Same<ServerState>,
    shared: Same<BTreeMap<SharedName, SharedDirectory>>,
}

fn group(row: &Row<'_>) -> Result<GroupRow, DbError> {
    let progress = get::<Option<String>>(row, 5, "progress")?;
    Ok(GroupRow {
        name: parsed(row, 0, "name")?,
        revision: get::<i64>(row, 1, "revision")? as u64,
        release: parsed(row, 2, "release")?,
        spec: json(row, 3, "spec")?,
        evidence: json(row, 4, "evidence")?,
        progress: progress.map(|_| json(row, 5, "progress")).transpose()?,
        failures: json(row, 6, "failures")?,
        ports: json(row, 7, "ports")?,
        removing: get(row, 8, "removing")?,
        origins: parsed_option(row, 9, "origins")?.map(SecretHash),
        declined: parsed_option(row, 10, "declined")?.map(ConfigDigest),
    })
}

fn release(row: &Row<'_>) -> Result<(GroupName, PastRelease), DbError> {
    let past = PastRelease {
        image: parsed(row, 1, "image")?,
        config: json(row, 2, "config")?,
        suite: parsed(row, 3, "suite")?,
        settled: get(row, 4, "settled")?,
    };
    Ok((parsed(row, 0, "group")?, past))
}

fn server(row: &Row<'_>, same: &SameOfServers) -> Result<ServerRow, DbError> {
    Ok(ServerRow {
        id: parsed(row, 0, "id")?,
        group: same.group.of(row, 1, "group", parsed)?,
        generation: get::<i64>(row, 2, "generation")? as u64,
        release: same.release.of(row, 3, "release", parsed)?,
        limits: same.limits.of(row, 4, "limits", json)?,
        state: same.state.of(row, 5, "state", json)?,
        address: parsed_option(row, 6, "address")?,
        pid: get(row, 7, "pid")?,
        launched_at: parsed(row, 8, "launched_at")?,
        ready_at: parsed_option(row, 9, "ready_at")?,
        ready: get::<Option<i64>>(row, 10, "ready_us")?.map(|micros| Duration::from_micros(micros as u64)),
        in_traffic: get(row, 11, "in_traffic")?,
        rebuild: get(row, 12, "rebuild")?,
        touched: get(row, 13, "touched")?,
        reason: get(row, 14, "reason")?,
        slot: get(row, 15, "slot")?,
        shared: same.shared.of(row, 16, "shared", json)?,
        spare: get(row, 17, "spare")?,
    })
}

fn live(row: &Row<'_>) -> Result<(GroupName, LiveValues), DbError> {
    let version = get::<i64>(row, 1, "version")? as u64;
    Ok((parsed(row, 0, "group")?, LiveValues { version, fleet: json(row, 2, "fleet")?, set: json(row, 3, "set")? }))
}

fn intention(row: &Row<'_>) -> Result<OpenIntention, DbError> {
    Ok(OpenIntention {
        id: get(row, 0, "id")?,
        group: parsed(row, 1, "group")?,
        server: parsed(row, 2, "server")?,
        action: get(row, 3, "action")?,
    })
}
