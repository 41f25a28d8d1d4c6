//! `volume`: how large the volumes of a group's servers are, and what is kept of them.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    id::VolumeName,
    text::{Entry, Keys, Value},
    volume::{Filesystem, LARGEST, Schedule, VolumePolicy},
};

/// The keys of a volume.
pub(crate) const KEYS: Keys = Keys { of: "a volume", valid: &["size", "filesystem", "retain", "snapshots"] };
/// The keys of `snapshots`.
pub(crate) const SNAPSHOTS: Keys = Keys { of: "`snapshots`", valid: &["every", "keep", "drill"] };

const EXAMPLE: &str = "{ size = \"1GiB\" }";
const FILESYSTEMS: [(&str, Filesystem); 2] = [("ext4", Filesystem::Ext4), ("xfs", Filesystem::Xfs)];
const MINUTE: Duration = Duration::from_secs(60);
const YEARS: Duration = Duration::from_secs(3660 * 86_400);

pub(super) fn read_all(value: &Value<'_>) -> Option<BTreeMap<VolumeName, VolumePolicy>> {
    let table = value.map("{ data = { size = \"1GiB\" } }")?;
    let read: Vec<_> = table.entries().map(|entry| read(&entry)).collect();
    read.into_iter().collect()
}

fn read(entry: &Entry<'_>) -> Option<(VolumeName, VolumePolicy)> {
    let name = match entry.key.parse::<VolumeName>() {
        Ok(name) => Some(name),
        Err(error) => entry.place.report(error.to_string(), "for example: `[group.db.volume.data]`"),
    };
    let table = entry.value.table(KEYS, EXAMPLE)?;
    let filesystem = table.get("filesystem").map_or(Some(Filesystem::Ext4), |v| v.word(&FILESYSTEMS));
    let least = filesystem.unwrap_or_default().least();
    let size = table.required("size", "size = \"1GiB\"").and_then(|v| v.size(least..=LARGEST, "\"1GiB\""));
    let retain = table.get("retain").map_or(Some(None), |v| v.duration(Duration::ZERO..=YEARS, "\"30d\"").map(Some));
    let snapshots = table.get("snapshots").map_or(Some(None), |v| schedule(&v).map(Some));
    let usual = VolumePolicy::new(size?);
    let retain = retain?.unwrap_or(usual.retain);
    Some((name?, VolumePolicy { filesystem: filesystem?, retain, snapshots: snapshots?, ..usual }))
}

fn schedule(value: &Value<'_>) -> Option<Schedule> {
    let table = value.table(SNAPSHOTS, "{ every = \"1h\", keep = 24 }")?;
    let every = table.required("every", "every = \"1h\"").and_then(|v| v.duration(MINUTE..=YEARS, "\"1h\""));
    let keep = table.required("keep", "keep = 24").and_then(|v| v.integer(1..=1000, "24"));
    let drill = table.get("drill").map_or(Some(None), |v| v.duration(MINUTE..=YEARS, "\"1d\"").map(Some));
    Some(Schedule { every: every?, keep: keep?, drill: drill? })
}
