//! What the file of an environment (`fleet.staging.toml`) says differently from `fleet.toml`.
//!
//! It may say less than a fleet, never more: it names no group that the fleet does not have, and nothing about ports, rollouts
//! and evidence.

use std::collections::BTreeMap;

use super::{Fleet, Group, ImageRef, Limits, Scaling, Strategy, scaling, source, text};
use crate::{
    config::{ConfigKey, ConfigSource},
    diagnostic::{Diagnostics, shown},
    id::GroupName,
    recipe::read_environment,
    text::{Document, Entry, Keys, Table, suggest},
};

/// The keys of an environment's file.
pub(crate) const KEYS: Keys = Keys { of: "an environment's file", valid: &["config", "group"] };
/// The keys of a group there.
pub(crate) const GROUP: Keys =
    Keys { of: "a group of an environment's file", valid: &["image", "count", "environment", "config", "limits"] };

/// What an environment's file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Overlay {
    /// Values for every group.
    pub config: BTreeMap<ConfigKey, ConfigSource>,
    /// Its groups.
    pub groups: BTreeMap<GroupName, GroupOverlay>,
}

/// What it says of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct GroupOverlay {
    image: Option<ImageRef>,
    count: Option<(u32, Option<Scaling>)>,
    environment: BTreeMap<String, String>,
    /// Values of keys.
    pub config: BTreeMap<ConfigKey, ConfigSource>,
    limits: Limits,
}

impl Overlay {
    /// Reads and checks the file of an environment of this fleet.
    pub fn parse(text: &str, file: &str, fleet: &Fleet) -> Result<Self, Diagnostics> {
        let document = Document::parse(file, text)?;
        let overlay = read(&document.root(KEYS), fleet);
        document.finish(overlay)
    }

    /// The fleet with what is said here over it, key by key.
    pub fn over(&self, mut fleet: Fleet) -> Fleet {
        fleet.config.extend(self.config.clone());
        for (name, group) in &mut fleet.groups {
            if let Some(overlay) = self.groups.get(name) {
                overlay.over(group);
            }
        }
        fleet
    }
}

impl GroupOverlay {
    fn over(&self, group: &mut Group) {
        if let Some(image) = &self.image {
            group.image = image.clone();
        }
        if let Some((count, scaling)) = &self.count {
            (group.count, group.scaling) = (*count, scaling.clone());
        }
        group.environment.extend(self.environment.clone());
        group.config.extend(self.config.clone());
        group.limits = Limits {
            memory: self.limits.memory.or(group.limits.memory),
            cpu_millis: self.limits.cpu_millis.or(group.limits.cpu_millis),
            pids: self.limits.pids.or(group.limits.pids),
        };
    }
}

fn read(root: &Table<'_>, fleet: &Fleet) -> Option<Overlay> {
    let config = root.get("config").map_or(Some(BTreeMap::new()), |v| source::read_all(&v));
    let groups = root.get("group").map_or(Some(BTreeMap::new()), |value| {
        let table = value.map("{ web = { count = 1 } }")?;
        let read: Vec<_> = table.entries().map(|entry| group(&entry, fleet)).collect();
        read.into_iter().collect()
    });
    Some(Overlay { config: config?, groups: groups? })
}

fn group(entry: &Entry<'_>, fleet: &Fleet) -> Option<(GroupName, GroupOverlay)> {
    let known = entry.key.parse::<GroupName>().ok().and_then(|name| fleet.groups.get_key_value(&name));
    let Some((name, base)) = known else { return unknown(entry, fleet) };
    let table = entry.value.table(GROUP, "{ count = 1 }")?;
    let image = table.get("image").map_or(Some(None), |v| v.parsed::<ImageRef>("\"hello@stable\"").map(Some));
    let count = count(&table, base);
    let environment = table.get("environment").map_or(Some(BTreeMap::new()), |v| read_environment(&v));
    let config = table.get("config").map_or(Some(BTreeMap::new()), |v| source::read_all(&v));
    let limits = table.get("limits").map_or(Some(Limits::default()), |v| text::limits(&v));
    let group =
        GroupOverlay { image: image?, count: count?, environment: environment?, config: config?, limits: limits? };
    Some((name.clone(), group))
}

fn unknown<T>(entry: &Entry<'_>, fleet: &Fleet) -> Option<T> {
    let names: Vec<_> = fleet.groups.keys().map(GroupName::as_str).collect();
    let hint = suggest(entry.key, &names).map(|meant| format!("did you mean `{meant}`? ")).unwrap_or_default();
    entry.place.report(
        format!("the fleet has no group `{}`", shown(entry.key)),
        format!("{hint}An environment changes groups of fleet.toml and adds none"),
    )
}

fn count(table: &Table<'_>, base: &Group) -> Option<Option<(u32, Option<Scaling>)>> {
    let Some(value) = table.get("count") else { return Some(None) };
    let (count, scaling) = scaling::read(&value)?;
    scaling::is_woken(&value, scaling.as_ref(), !base.publish.is_empty())?;
    match base.rollout.strategy {
        Strategy::Rolling { max_unavailable, .. } if count > 0 && max_unavailable > count => value.place.report(
            format!("`max_unavailable` of this group is {max_unavailable}, and here it has {count} servers"),
            format!("write at least {max_unavailable}, or a smaller `max_unavailable` in fleet.toml"),
        ),
        _ => Some(Some((count, scaling))),
    }
}
