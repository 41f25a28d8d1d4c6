//! `shared`: what the shared directories of a group's servers are bound to.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    id::SharedName,
    shared::{Export, HostDirectory, Nfs, NfsVersion, Place, SharedDirectory, TIMEOUT},
    text::{Entry, Keys, Table, Value},
};

/// The keys of a shared directory.
pub(crate) const KEYS: Keys =
    Keys { of: "a shared directory", valid: &["directory", "nfs", "version", "timeout", "read_only", "execute"] };

/// The keys that only NFS has.
const OF_NFS: [&str; 2] = ["version", "timeout"];
const VERSIONS: [(&str, NfsVersion); 2] = [("4.2", NfsVersion::V4_2), ("3", NfsVersion::V3)];
const EXAMPLE: &str = "{ directory = \"/srv/uploads\" }";

pub(super) fn read_all(value: &Value<'_>) -> Option<BTreeMap<SharedName, SharedDirectory>> {
    let table = value.map("{ uploads = { directory = \"/srv/uploads\" } }")?;
    let read: Vec<_> = table.entries().map(|entry| read(&entry)).collect();
    read.into_iter().collect()
}

fn read(entry: &Entry<'_>) -> Option<(SharedName, SharedDirectory)> {
    let name = match entry.key.parse::<SharedName>() {
        Ok(name) => Some(name),
        Err(error) => entry.place.report(error.to_string(), "for example: `[group.web.shared.uploads]`"),
    };
    let table = entry.value.table(KEYS, EXAMPLE)?;
    let place =
        table.one_of(&["directory", "nfs"], "directory = \"/srv/uploads\"").and_then(|choice| match choice.key {
            "directory" => directory(&choice.value, &table),
            _ => nfs(&choice.value, &table),
        });
    let flag = |key| table.get(key).map_or(Some(false), |v| v.boolean());
    let (read_only, execute) = (flag("read_only"), flag("execute"));
    Some((name?, SharedDirectory { place: place?, read_only: read_only?, execute: execute? }))
}

fn directory(value: &Value<'_>, table: &Table<'_>) -> Option<Place> {
    let directory = value.parsed::<HostDirectory>("\"/srv/uploads\"");
    if let Some(value) = OF_NFS.into_iter().find_map(|key| table.get(key)) {
        return value.place.report("only NFS has this", "remove it, or write `nfs = \"server:/export\"`");
    }
    directory.map(Place::Directory)
}

fn nfs(value: &Value<'_>, table: &Table<'_>) -> Option<Place> {
    let export = value.parsed::<Export>("\"server:/export\"");
    let version = table.get("version").map_or(Some(NfsVersion::default()), |v| v.word(&VERSIONS));
    let limits = Duration::from_secs(3)..=Duration::from_secs(600);
    let timeout = table.get("timeout").map_or(Some(TIMEOUT), |v| v.duration(limits, "\"15s\""));
    Some(Place::Nfs(Nfs { export: export?, version: version?, timeout: timeout? }))
}
