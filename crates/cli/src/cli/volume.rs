//! `kiln volume`.

use std::path::PathBuf;

use clap::Subcommand;
use kiln_model::{ByteSize, GroupName, VolumeId, id::SnapshotName, volume::SnapshotId};

/// What `kiln volume rm` removes.
#[derive(Debug, Clone)]
pub enum Removed {
    /// A volume.
    Volume(VolumeId),
    /// A snapshot: its name has an `@`.
    Snapshot(SnapshotId),
}

impl std::str::FromStr for Removed {
    type Err = kiln_model::volume::InvalidVolumeId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('@') { text.parse().map(Self::Snapshot) } else { text.parse().map(Self::Volume) }
    }
}

/// `kiln volume`
#[derive(Debug, Subcommand)]
pub enum VolumeVerb {
    /// List volumes and their snapshots
    Ls,
    /// Make an empty volume that belongs to no group
    Create {
        /// Its name
        volume: VolumeId,
        /// Its size: 1GiB
        #[arg(long)]
        size: ByteSize,
        /// Use XFS instead of ext4
        #[arg(long)]
        xfs: bool,
    },
    /// Take a snapshot in which nothing is half-written, also while a server uses the volume
    Snapshot {
        /// The volume, as in db.data.0
        volume: VolumeId,
        /// The snapshot's name; one with the time in it where nothing is said
        name: Option<SnapshotName>,
    },
    /// Make a volume that begins with what a snapshot has
    Clone {
        /// The snapshot, as in db.data.0@before
        #[arg(value_name = "VOLUME@SNAPSHOT")]
        from: SnapshotId,
        /// The new volume's name
        #[arg(value_name = "NAME")]
        volume: VolumeId,
    },
    /// Put a volume back to a snapshot; the server that has it is replaced, and what was written since is kept as a snapshot
    Restore {
        /// The snapshot
        #[arg(value_name = "VOLUME@SNAPSHOT")]
        snapshot: SnapshotId,
        /// Let go what would be lost with that server outside its volumes, although it is more than the fleet says
        #[arg(long)]
        accept_loss: bool,
    },
    /// Make a volume larger while it is used
    Grow {
        /// The volume
        volume: VolumeId,
        /// Its new size
        size: ByteSize,
    },
    /// Write a snapshot to a file, compressed and with its checksum
    Export {
        /// The snapshot
        #[arg(value_name = "VOLUME@SNAPSHOT")]
        snapshot: SnapshotId,
        /// The file, which must not be there
        file: PathBuf,
    },
    /// Make a volume from such a file
    Import {
        /// The file
        file: PathBuf,
        /// The new volume's name
        #[arg(value_name = "NAME")]
        volume: VolumeId,
    },
    /// Remove a volume that nobody has or wants, with its snapshots; or one snapshot
    Rm {
        /// The volume, or the snapshot
        #[arg(value_name = "VOLUME[@SNAPSHOT]")]
        what: Removed,
    },
    /// Restore the newest snapshots on throwaway servers, and run the recipe's tests there
    Drill {
        /// Of this group; of all where nothing is said
        group: Option<GroupName>,
    },
}
