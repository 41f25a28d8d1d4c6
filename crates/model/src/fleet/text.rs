//! The text form of a fleet: `fleet.toml`.

use std::{collections::BTreeMap, time::Duration};

use super::{
    DrillPolicy, EvidencePolicy, Fleet, Group, HealingPolicy, ImageRef, Limits, LogsPolicy, LossPolicy, OnExpiry,
    OnRevoked, OnSourceChange, RolloutPolicy, Strategy, Windows, drill, healing, logs, loss, publish, rollout, scaling,
    shared, source, volume, window,
};
use crate::{
    diagnostic::{Diagnostics, shown},
    id::GroupName,
    recipe::read_environment,
    size::ByteSize,
    text::{Document, Entry, Keys, Place, Table, Value},
};

/// The keys of a fleet.
pub(crate) const KEYS: Keys = Keys { of: "a fleet", valid: &["config", "group", "evidence", "logs"] };
/// The keys of a group.
pub(crate) const GROUP: Keys = Keys {
    of: "a group",
    valid: &[
        "image",
        "count",
        "spares",
        "environment",
        "config",
        "service_binding",
        "on_source_change",
        "on_revoked",
        "limits",
        "volume",
        "shared",
        "publish",
        "rollout",
        "healing",
        "drill",
        "max_age",
        "windows",
        "logs",
        "loss",
    ],
};
/// The keys of `limits`.
pub(crate) const LIMITS: Keys = Keys { of: "`limits`", valid: &["memory", "cpu", "pids"] };
/// The keys of `[evidence]`.
pub(crate) const EVIDENCE: Keys = Keys { of: "`[evidence]`", valid: &["max_age", "on_expiry"] };

const ON_SOURCE_CHANGE: [(&str, OnSourceChange); 3] =
    [("ignore", OnSourceChange::Ignore), ("report", OnSourceChange::Report), ("rollout", OnSourceChange::Rollout)];
const ON_REVOKED: [(&str, OnRevoked); 2] = [("keep", OnRevoked::Keep), ("replace", OnRevoked::Replace)];
pub(super) const MAX_COUNT: i64 = 10_000;
const MAX_SPARES: i64 = 100;
/// A group's name and the random end of a server's id share the 63 characters of a host name.
const MAX_GROUP_NAME: usize = 50;

impl Fleet {
    /// Reads and checks `fleet.toml`. `file` is how the person names it. Everything that is wrong is in the diagnostics.
    pub fn parse(text: &str, file: &str) -> Result<Self, Diagnostics> {
        let document = Document::parse(file, text)?;
        let fleet = read(&document.root(KEYS));
        document.finish(fleet)
    }
}

fn read(root: &Table<'_>) -> Option<Fleet> {
    let config = root.get("config").map_or(Some(BTreeMap::new()), |v| source::read_all(&v));
    let evidence = root.get("evidence").map_or(Some(EvidencePolicy::default()), |v| evidence(&v));
    let logs = root.get("logs").map_or(Some(None), |v| logs::read(&v));
    let usual = logs.clone().flatten();
    let groups = root.required("group", "[group.web]` followed by `image = \"hello\"").and_then(|value| {
        let table = value.map("{ web = { image = \"hello\" } }")?;
        let read: Vec<_> = table.entries().map(|entry| group(&entry, usual.as_ref())).collect();
        if read.is_empty() {
            return value
                .place
                .report("the fleet has no group", "add one: `[group.web]` followed by `image = \"hello\"`");
        }
        listens_are_distinct(read.iter().flat_map(|(_, published)| published));
        read.into_iter().map(|(group, _)| group).collect::<Option<BTreeMap<_, _>>>()
    });
    logs?;
    Some(Fleet { groups: groups?, evidence: evidence?, config: config? })
}

fn listens_are_distinct<'a, 'd: 'a>(published: impl Iterator<Item = &'a publish::Placed<'d>>) {
    let mut seen: BTreeMap<u16, Place<'_>> = BTreeMap::new();
    for (listen, place) in published.filter_map(publish::Placed::listen) {
        if let Some(first) = seen.get(&listen) {
            place.contradicts::<()>(
                *first,
                format!("the host's port {listen} is published twice"),
                "it is published here already",
                "choose another port, or 0 for any free one",
            );
        } else {
            seen.insert(listen, place);
        }
    }
}

fn group<'d>(entry: &Entry<'d>, usual: Option<&LogsPolicy>) -> (Option<(GroupName, Group)>, Vec<publish::Placed<'d>>) {
    let name = group_name(entry);
    let Some(table) = entry.value.table(GROUP, "{ image = \"hello\" }") else { return (None, vec![]) };
    let image = table.required("image", "image = \"hello\"").and_then(|v| v.parsed::<ImageRef>("\"hello@stable\""));
    let counted = table.get("count").map_or(Some((1, None)), |v| scaling::read(&v));
    let environment = table.get("environment").map_or(Some(BTreeMap::new()), |v| read_environment(&v));
    let config = table.get("config").map_or(Some(BTreeMap::new()), |v| source::read_all(&v));
    let bindings = table.get("service_binding").map_or(Some(BTreeMap::new()), |v| source::bindings(&v));
    let changes = table.get("on_source_change").map_or(Some(OnSourceChange::default()), |v| v.word(&ON_SOURCE_CHANGE));
    let revoked = table.get("on_revoked").map_or(Some(OnRevoked::default()), |v| v.word(&ON_REVOKED));
    let limits = table.get("limits").map_or(Some(Limits::default()), |v| limits(&v));
    let volumes = table.get("volume").map_or(Some(BTreeMap::new()), |v| volume::read_all(&v));
    let shared = table.get("shared").map_or(Some(BTreeMap::new()), |v| shared::read_all(&v));
    let (publish, published) = table.get("publish").map_or((Some(vec![]), vec![]), |v| publish::read(&v));
    if let (Some(value), Some((_, scaling)), Some(publish)) = (table.get("count"), &counted, &publish) {
        scaling::is_woken(&value, scaling.as_ref(), !publish.is_empty());
    }
    let count_place = table.get("count").map(|v| v.place);
    let rollout = table.get("rollout").map_or(Some(RolloutPolicy::default()), |v| {
        rollout::read(&v, counted.as_ref().map(|(count, _)| *count).zip(count_place))
    });
    if rollout.as_ref().is_some_and(|rollout| rollout.strategy == Strategy::BlueGreen) {
        one_set_at_a_time(&table);
    }
    let spares = table.get("spares").map_or(Some(0), |v| v.integer(0..=MAX_SPARES, "1"));
    if spares.is_some_and(|spares| spares > 0) {
        no_spares_with_volumes(&table);
    }
    let most = counted.as_ref().map(|(count, scaling)| scaling.as_ref().map_or(*count, |scaling| scaling.max).max(1));
    publish::slots_are_there(&table, &published, most);
    let healing = table.get("healing").map_or(Some(HealingPolicy::default()), |v| healing::read(&v));
    let drill = table.get("drill").map_or(Some(DrillPolicy::default()), |v| drill::read(&v));
    let ages = Duration::from_secs(60)..=Duration::from_secs(3660 * 86_400);
    let max_age = table.get("max_age").map_or(Some(None), |v| v.duration(ages, "\"7d\"").map(Some));
    let windows = table.get("windows").map_or(Some(Windows::default()), |v| window::read(&v));
    let logs = table.get("logs").map_or_else(|| Some(usual.cloned()), |v| logs::read(&v));
    let loss = table.get("loss").map_or(Some(LossPolicy::default()), |v| loss::read(&v));
    let group = || {
        let (image, environment) = (image?, environment?);
        let (count, scaling) = counted?;
        Some((
            name?,
            Group {
                count,
                spares: spares?,
                scaling,
                environment,
                config: config?,
                bindings: bindings?,
                on_source_change: changes?,
                on_revoked: revoked?,
                limits: limits?,
                volumes: volumes?,
                shared: shared?,
                publish: publish?,
                rollout: rollout?,
                healing: healing?,
                drill: drill?,
                max_age: max_age?,
                windows: windows?,
                logs: logs?,
                loss: loss?,
                ..Group::new(image)
            },
        ))
    };
    (group(), published)
}

/// A second set of servers cannot have the volumes that the first one has.
fn one_set_at_a_time(table: &Table<'_>) {
    if let (Some(volumes), Some(rollout)) = (table.get("volume"), table.get("rollout")) {
        rollout.place.contradicts::<()>(
            volumes.place,
            "servers with volumes cannot be replaced blue/green: two sets of them would need the same volumes",
            "the volumes",
            "use `strategy = \"rolling\"`: each server hands its volumes to its successor",
        );
    }
}

/// A spare is made before it is known whose place it will take, and so which slot and which volumes it would have.
fn no_spares_with_volumes(table: &Table<'_>) {
    if let (Some(volumes), Some(spares)) = (table.get("volume"), table.get("spares")) {
        spares.place.contradicts::<()>(
            volumes.place,
            "servers with volumes have no spares: each of them has a slot, and a spare has none",
            "the volumes",
            "remove `spares`: the successor of a server with volumes is made ahead at every planned replacement",
        );
    }
}

fn group_name(entry: &Entry<'_>) -> Option<GroupName> {
    match entry.key.parse::<GroupName>() {
        Ok(name) if name.as_str().len() <= MAX_GROUP_NAME => Some(name),
        Ok(_) => entry.place.report(
            format!("`{}` is too long for a group: its servers are called after it", shown(entry.key)),
            format!("use at most {MAX_GROUP_NAME} characters"),
        ),
        Err(error) => entry.place.report(error.to_string(), "for example: `[group.web]`"),
    }
}

pub(super) fn limits(value: &Value<'_>) -> Option<Limits> {
    let table = value.table(LIMITS, "{ memory = \"256MiB\", cpu = 0.5, pids = 200 }")?;
    let sizes = ByteSize::mib(4)..=ByteSize::bytes(64 << 40);
    let memory = table.get("memory").map_or(Some(None), |v| v.size(sizes, "\"256MiB\"").map(Some));
    let cpu = table.get("cpu").map_or(Some(None), |v| v.number(0.01..=1024.0, "0.5").map(Some));
    let pids = table.get("pids").map_or(Some(None), |v| v.integer::<u32>(4..=4_194_304, "200").map(Some));
    let cpu_millis = cpu?.map(|cores| (cores * 1000.0).round() as u32);
    Some(Limits { memory: memory?, cpu_millis, pids: pids? })
}

fn evidence(value: &Value<'_>) -> Option<EvidencePolicy> {
    let table = value.table(EVIDENCE, "{ max_age = \"30d\" }")?;
    let default = EvidencePolicy::default();
    let limits = Duration::from_secs(60)..=Duration::from_secs(3660 * 86_400);
    let max_age = table.get("max_age").map_or(Some(default.max_age), |v| v.duration(limits, "\"30d\""));
    let words = [("warn", OnExpiry::Warn), ("stop", OnExpiry::Stop)];
    let on_expiry = table.get("on_expiry").map_or(Some(default.on_expiry), |v| v.word(&words));
    Some(EvidencePolicy { max_age: max_age?, on_expiry: on_expiry? })
}
