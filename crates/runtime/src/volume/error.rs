//! What can go wrong with volumes on this host.

use std::path::PathBuf;

use kiln_model::{
    ByteSize, ServerId,
    volume::{SnapshotId, VolumeId},
};
use kiln_sys::SysError;

/// What functions about volumes return.
pub type Result<T> = std::result::Result<T, VolumeError>;

/// Something about a volume failed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// No such volume.
    #[error("there is no volume {0} on this host")]
    Unknown(VolumeId),
    /// No such snapshot.
    #[error("there is no snapshot {0}")]
    NoSnapshot(SnapshotId),
    /// The name is taken.
    #[error("there is a volume {0} already")]
    Exists(VolumeId),
    /// Somebody with a newer right has it.
    #[error("volume {volume} was given to {holder} with number {known}, which is newer than {asked}")]
    Fenced {
        /// The volume.
        volume: VolumeId,
        /// The number asked for.
        asked: u64,
        /// The number known.
        known: u64,
        /// Who has it.
        holder: ServerId,
    },
    /// A server has it, so this cannot be done.
    #[error("volume {0} is attached to a server")]
    Attached(VolumeId),
    /// Whoever had it last has not let go of it in time.
    #[error("volume {volume} is still attached somewhere after {} s", waited.as_secs())]
    NotReleased {
        /// The volume.
        volume: VolumeId,
        /// How long it was waited for.
        waited: std::time::Duration,
    },
    /// It would lose what lies behind the new end.
    #[error("volume {volume} has {has}, and cannot be made as small as {wanted}: what is on it would be cut off")]
    Smaller {
        /// The volume.
        volume: VolumeId,
        /// Its size.
        has: ByteSize,
        /// The size asked for.
        wanted: ByteSize,
    },
    /// It cannot be grown while a server has it.
    #[error(
        "volume {0} is larger from its server's next replacement on: this host does not let Kiln grow an ext4 that is in use (it lacks CAP_SYS_RESOURCE)"
    )]
    Later(VolumeId),
    /// The pool, or the disk under it, is full.
    #[error("the pool of the volumes has {free} left, which is too little to {action} safely")]
    NoRoom {
        /// What was to be done.
        action: &'static str,
        /// What is left.
        free: ByteSize,
    },
    /// The file system in it is damaged.
    #[error(
        "the file system of volume {volume} is damaged: {found}; nothing was changed, and an earlier snapshot can be restored with `kiln volume restore`"
    )]
    Damaged {
        /// The volume.
        volume: String,
        /// What was found.
        found: String,
    },
    /// A program of the host is missing.
    #[error("{program} is needed to {action} and is not on this host: install the package `{package}`")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
        /// What it is needed for.
        action: &'static str,
    },
    /// A program of the host failed.
    #[error("{program} failed: {said}")]
    Program {
        /// The program.
        program: &'static str,
        /// What it said last.
        said: String,
    },
    /// A program of the host took too long.
    #[error("{program} did not end within {} s and was ended", limit.as_secs_f64())]
    TooLong {
        /// The program.
        program: &'static str,
        /// How long it was waited for.
        limit: std::time::Duration,
    },
    /// A stream is not one of a volume, or was changed on its way.
    #[error("{}: {why}", path.display())]
    Stream {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] SysError),
    /// A file.
    #[error("could not {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file, within the pool.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Names the file in an input or output error.
pub(super) trait OnFile<T> {
    fn on(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> OnFile<T> for std::result::Result<T, E> {
    fn on(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| VolumeError::File { action, path: path.into(), source: source.into() })
    }
}
