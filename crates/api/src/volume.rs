//! `GET /v1/volumes` and `POST /v1/volume`.

use kiln_model::{
    ByteSize, VolumeId,
    id::SnapshotName,
    volume::{Filesystem, SnapshotId},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::request::Loss;

/// What there is of volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volumes {
    /// The volumes, by id.
    pub volumes: Vec<VolumeStatus>,
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeStatus {
    /// `GROUP.NAME.SLOT`, or the name of one that was made by hand.
    pub id: String,
    /// Its size: `1GiB`.
    pub size: String,
    /// What its image takes in the pool, in bytes, content shared with snapshots counted in full; null where it is not there.
    pub used: Option<u64>,
    /// `ext4`, `xfs`.
    pub filesystem: String,
    /// Its group.
    pub group: Option<String>,
    /// Its slot in the group.
    pub slot: Option<u32>,
    /// The server that has it.
    pub server: Option<String>,
    /// `wanted` (not made yet), `attached`, `free`, `orphan` (nobody wants it any more).
    pub state: String,
    /// Since when it is an orphan, RFC 3339.
    pub since: Option<String>,
    /// Why it is an orphan.
    pub reason: Option<String>,
    /// Counts its attachments.
    pub fence: u64,
    /// Milliseconds of its last hand-over, from asking the old server to end until the new one was ready.
    pub handover_ms: Option<u64>,
    /// Its snapshots, by name.
    pub snapshots: Vec<SnapshotStatus>,
    /// The time of the newest snapshot that was restored and tested with success, RFC 3339.
    pub proven: Option<String>,
    /// Why the last drill failed, if it did.
    pub drill_failed: Option<String>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotStatus {
    /// Its name.
    pub name: String,
    /// When it was taken, RFC 3339.
    pub at: String,
    /// `asked`, `scheduled`, `rollout` (before one), `restore` (what a restore took away).
    pub cause: String,
}

/// Something to be done to a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum VolumeRequest {
    /// Make an empty one that belongs to no group.
    Create {
        /// Its name.
        #[schema(value_type = String)]
        volume: VolumeId,
        /// Its size.
        #[schema(value_type = String)]
        size: ByteSize,
        /// Its file system.
        #[serde(default)]
        #[schema(value_type = String)]
        filesystem: Filesystem,
    },
    /// Take a snapshot.
    Snapshot {
        /// The volume.
        #[schema(value_type = String)]
        volume: VolumeId,
        /// Its name; one with the time in it where there is none.
        #[schema(value_type = Option<String>)]
        name: Option<SnapshotName>,
    },
    /// Make a volume from a snapshot.
    Clone {
        /// The snapshot.
        #[schema(value_type = String)]
        from: SnapshotId,
        /// The new volume's name.
        #[schema(value_type = String)]
        volume: VolumeId,
    },
    /// Put a volume back to a snapshot when it is attached next; a server that has it is replaced.
    Restore {
        /// The snapshot.
        #[schema(value_type = String)]
        snapshot: SnapshotId,
        /// Whether more may be lost with that server than the fleet says.
        #[serde(default)]
        loss: Loss,
    },
    /// Make a volume larger.
    Grow {
        /// The volume.
        #[schema(value_type = String)]
        volume: VolumeId,
        /// Its new size.
        #[schema(value_type = String)]
        size: ByteSize,
    },
    /// Write a snapshot to a file of the host.
    Export {
        /// The snapshot.
        #[schema(value_type = String)]
        snapshot: SnapshotId,
        /// The file, absolute, which must not be there.
        file: String,
    },
    /// Make a volume from such a file.
    Import {
        /// The file, absolute.
        file: String,
        /// The new volume's name.
        #[schema(value_type = String)]
        volume: VolumeId,
    },
    /// Remove a volume that nobody has or wants, with its snapshots.
    Remove {
        /// The volume.
        #[schema(value_type = String)]
        volume: VolumeId,
    },
    /// Remove a snapshot.
    RemoveSnapshot {
        /// The snapshot.
        #[schema(value_type = String)]
        snapshot: SnapshotId,
    },
}

/// What was done to a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeDone {
    /// What, in words.
    pub done: String,
}

/// `POST /v1/drill`: restore the newest snapshot of each volume on a throwaway server and run the recipe's tests there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrillRequest {
    /// Of this group; of all where none is named.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub group: Option<kiln_model::GroupName>,
}
