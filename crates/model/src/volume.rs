//! Volumes: data that outlives servers. Who has which, when a snapshot is due, and what is kept for how long.
//!
//! The servers of a group whose image needs volumes have *slots*, numbers from 0 on. A volume belongs to a slot, not to a server:
//! whoever takes the slot gets the volume. `db.data.0` is the volume `data` of slot 0 of the group `db`. Volumes that
//! somebody made by hand have a name of their own and belong to no group.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    id::{GroupName, InvalidName, SnapshotName, VolumeName},
    manifest::{ImageManifest, WritableKind},
    size::ByteSize,
};

/// Which volume: `GROUP.NAME.SLOT`, or a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeId(String);

/// A text that names no volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVolumeId {
    /// A part of it is not a name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// It has another number of parts, or no slot.
    #[error(
        "`{text}` names no volume: write GROUP.NAME.SLOT (for example `db.data.0`) or the name of one that you made"
    )]
    Shape {
        /// The text, shortened.
        text: String,
    },
}

impl VolumeId {
    /// The volume of a slot.
    pub fn of(group: &GroupName, name: &VolumeName, slot: u32) -> Self {
        Self(format!("{group}.{name}.{slot}"))
    }
    /// A volume of no group.
    pub fn free(name: &VolumeName) -> Self {
        Self(name.to_string())
    }
    /// The id as text: safe as the name of a file.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The slot it belongs to; none for one of no group.
    pub fn slot(&self) -> Option<(GroupName, VolumeName, u32)> {
        let mut parts = self.0.split('.');
        let (group, name, slot) = (parts.next()?, parts.next()?, parts.next()?);
        Some((group.parse().ok()?, name.parse().ok()?, slot.parse().ok()?))
    }
}

impl FromStr for VolumeId {
    type Err = InvalidVolumeId;
    fn from_str(text: &str) -> Result<Self, InvalidVolumeId> {
        let parts: Vec<&str> = text.split('.').collect();
        match parts[..] {
            [name] => Ok(Self::free(&name.parse()?)),
            [group, name, slot] if is_slot(slot) => {
                group.parse::<GroupName>()?;
                name.parse::<VolumeName>()?;
                Ok(Self(text.to_owned()))
            }
            _ => Err(InvalidVolumeId::Shape { text: text.escape_debug().take(80).collect() }),
        }
    }
}

/// A number as it is written by us: without a sign or zeros before it.
fn is_slot(text: &str) -> bool {
    text.parse::<u32>().is_ok_and(|slot| slot.to_string() == text)
}

impl TryFrom<String> for VolumeId {
    type Error = InvalidVolumeId;
    fn try_from(text: String) -> Result<Self, InvalidVolumeId> {
        text.parse()
    }
}
impl From<VolumeId> for String {
    fn from(id: VolumeId) -> String {
        id.0
    }
}
impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A snapshot of a volume: `db.data.0@before-upgrade`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId {
    /// The volume.
    pub volume: VolumeId,
    /// The snapshot.
    pub name: SnapshotName,
}

impl FromStr for SnapshotId {
    type Err = InvalidVolumeId;
    fn from_str(text: &str) -> Result<Self, InvalidVolumeId> {
        let (volume, name) = text
            .split_once('@')
            .ok_or_else(|| InvalidVolumeId::Shape { text: text.escape_debug().take(80).collect() })?;
        Ok(Self { volume: volume.parse()?, name: name.parse()? })
    }
}
impl TryFrom<String> for SnapshotId {
    type Error = InvalidVolumeId;
    fn try_from(text: String) -> Result<Self, InvalidVolumeId> {
        text.parse()
    }
}
impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> String {
        id.to_string()
    }
}
impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.volume, self.name)
    }
}

/// The file system of a volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Filesystem {
    /// ext4.
    #[default]
    Ext4,
    /// XFS.
    Xfs,
}

impl Filesystem {
    /// Its name for people and for the kernel.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
    /// A volume is at least this large.
    pub fn least(self) -> ByteSize {
        match self {
            Self::Ext4 => ByteSize::mib(16),
            // What mkfs.xfs accepts since 5.19.
            Self::Xfs => ByteSize::mib(300),
        }
    }
}

/// A volume is at most this large.
pub const LARGEST: ByteSize = ByteSize::bytes(16 << 40);

/// What a fleet says of a volume of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumePolicy {
    /// Its size. A greater one grows the volume; it is never made smaller.
    pub size: ByteSize,
    /// Its file system, for one that is not there yet.
    #[serde(default)]
    pub filesystem: Filesystem,
    /// One that nobody wants any more is kept for so long.
    #[serde(with = "crate::duration")]
    pub retain: Duration,
    /// Snapshots by the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Schedule>,
}

impl VolumePolicy {
    /// Kept for 30 days, no snapshots by the clock.
    pub fn new(size: ByteSize) -> Self {
        Self { size, filesystem: Filesystem::Ext4, retain: Duration::from_secs(30 * 86_400), snapshots: None }
    }
}

/// Snapshots by the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// One every so often.
    #[serde(with = "crate::duration")]
    pub every: Duration,
    /// So many are kept.
    pub keep: u32,
    /// The newest one is proven on a throwaway server every so often.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::duration::option")]
    pub drill: Option<Duration>,
}

/// Whether something that is done every so often is due.
pub fn is_due(every: Duration, last: Option<Timestamp>, now: Timestamp) -> bool {
    last.is_none_or(|last| Duration::try_from(now.duration_since(last)).is_ok_and(|age| age >= every))
}

/// Why a snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Somebody asked for it: kept until somebody removes it.
    Asked,
    /// The schedule.
    Scheduled,
    /// A rollout was about to begin.
    Rollout,
    /// The volume was about to be put back to an earlier snapshot.
    Restore,
    /// A clone was made of it.
    Clone,
}

/// Of those that are kept for a rollback, or beside a restore, so many stay.
pub const KEPT_AUTOMATIC: usize = 5;

impl Cause {
    /// The word for people and scripts.
    pub fn word(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Scheduled => "scheduled",
            Self::Rollout => "rollout",
            Self::Restore => "restore",
            Self::Clone => "clone",
        }
    }
}

/// Which snapshots of one volume are no longer kept, oldest first. `keep` is what the schedule says.
pub fn surplus<'a>(
    snapshots: impl Iterator<Item = (&'a SnapshotName, Cause, Timestamp)>,
    keep: usize,
) -> Vec<&'a SnapshotName> {
    let mut by_cause: BTreeMap<&str, Vec<(Timestamp, &SnapshotName, Cause)>> = BTreeMap::new();
    for (name, cause, at) in snapshots {
        by_cause.entry(cause.word()).or_default().push((at, name, cause));
    }
    let mut gone = Vec::new();
    for mut all in by_cause.into_values() {
        all.sort_by_key(|(at, name, _)| (*at, *name));
        let most = match all[0].2 {
            Cause::Asked => usize::MAX,
            Cause::Scheduled => keep,
            // Its blocks stay with the clone.
            Cause::Clone => 0,
            Cause::Rollout | Cause::Restore => KEPT_AUTOMATIC,
        };
        gone.extend(all[..all.len().saturating_sub(most)].iter().map(|(_, name, _)| *name));
    }
    gone
}

/// The volumes that servers of an image need, in the order of their paths.
pub fn needed(image: &ImageManifest) -> impl Iterator<Item = Needed<'_>> {
    image.writable.iter().filter_map(|writable| match &writable.kind {
        WritableKind::Volume { name, hooks, scale_from } => {
            Some(Needed { name, path: &writable.path, user: &writable.user, hooks, scale_from: *scale_from })
        }
        _ => None,
    })
}

/// A volume that servers of an image need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed<'a> {
    /// Its name.
    pub name: &'a VolumeName,
    /// Where it is.
    pub path: &'a str,
    /// Whose it is.
    pub user: &'a str,
    /// What is run around a snapshot, and before a hand-over.
    pub hooks: &'a Hooks,
    /// Where the volumes of further slots come from.
    pub scale_from: ScaleFrom,
}

/// Where the volumes of slots other than 0 come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScaleFrom {
    /// They begin empty.
    #[default]
    Empty,
    /// Each begins as a clone of slot 0's.
    Clone,
}

impl ScaleFrom {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::Empty
    }
}

/// Commands that are run inside the server, as the volume's user, around a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// Before the file system is frozen. If it fails, no snapshot is taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quiesce: Vec<String>,
    /// After it was thawed, also if the snapshot failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resume: Vec<String>,
    /// In the server that has the volume, which still serves, just before it is ended so that its successor gets it. A failure
    /// is told, and changes nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hand_over: Vec<String>,
}

impl Hooks {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.quiesce.is_empty() && self.resume.is_empty() && self.hand_over.is_empty()
    }
}

/// A volume to give to a server when it is launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Which of the image's volumes.
    pub name: VolumeName,
    /// What it is given.
    pub source: Source,
}

/// What a server is given as a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A volume that stays.
    Kept(Kept),
    /// A volume of its own that is gone with it: for tests.
    Throwaway {
        /// What it begins with; empty where there is nothing.
        from: Option<SnapshotId>,
        /// Its size, where it begins empty.
        size: ByteSize,
        /// Its file system, where it begins empty.
        filesystem: Filesystem,
    },
}

/// A volume that stays, and the right to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The volume.
    pub volume: VolumeId,
    /// Counts the attachments of this volume; whoever comes with an older number is refused.
    pub fence: u64,
    /// At least so large.
    pub size: ByteSize,
    /// Put back to a snapshot first.
    pub restore: Option<Restore>,
}

/// A volume is put back to a snapshot when it is attached next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// The snapshot.
    pub snapshot: SnapshotName,
    /// What the volume was is kept under this name.
    pub before: SnapshotName,
    /// Counts the restores of this volume: each is carried out once.
    pub number: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_names_that_lead_elsewhere_are_no_volumes() {
        for text in [
            "", ".", "..", "../x", "a/b", "a.b", "a.b.c.d", "a.b.-1", "a.b.01", "a..0", "A", "a\n", "a\0", "a.b.0 ",
            "a@b",
        ] {
            assert!(text.parse::<VolumeId>().is_err(), "{text:?}");
        }
        for text in ["x", "x@", "@y", "x@..", "x@a/b", "x@y@z"] {
            assert!(text.parse::<SnapshotId>().is_err(), "{text:?}");
        }
        let id: VolumeId = "db.data.10".parse().unwrap();
        assert_eq!(id, VolumeId::of(&"db".parse().unwrap(), &"data".parse().unwrap(), 10));
        assert_eq!(id.slot().unwrap().2, 10);
        assert_eq!("mine".parse::<VolumeId>().unwrap().slot(), None);
        let shown = "a\u{1b}[31m/".parse::<VolumeId>().unwrap_err().to_string();
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }

    #[test]
    fn unit_so_many_snapshots_are_kept_of_each_kind() {
        let at = |n: i64| Timestamp::from_second(n).unwrap();
        let name = |n: i64| format!("s{n}").parse::<SnapshotName>().unwrap();
        let causes = [Cause::Asked, Cause::Scheduled, Cause::Rollout];
        let all: Vec<_> = (0..30).map(|n| (name(n), causes[n as usize % 3], at(n))).collect();
        let gone = surplus(all.iter().map(|(name, cause, at)| (name, *cause, *at)), 3);
        let count =
            |cause: Cause| gone.iter().filter(|gone| all.iter().any(|s| s.0 == ***gone && s.1 == cause)).count();
        assert_eq!((count(Cause::Asked), count(Cause::Scheduled), count(Cause::Rollout)), (0, 7, 5));
        assert!(gone.contains(&&name(1)) && !gone.contains(&&name(28)), "the oldest go first");
    }

    #[test]
    fn unit_what_is_done_every_hour_is_due_after_an_hour() {
        let at = |n: i64| Timestamp::from_second(n).unwrap();
        let hour = Duration::from_secs(3600);
        assert!(is_due(hour, None, at(0)));
        assert!(!is_due(hour, Some(at(0)), at(3599)));
        assert!(is_due(hour, Some(at(0)), at(3600)));
        assert!(!is_due(hour, Some(at(9000)), at(0)), "a clock that was set back makes nothing due");
    }
}
