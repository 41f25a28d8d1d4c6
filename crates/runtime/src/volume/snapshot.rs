//! Snapshots: another file that shares the image's content, taken while nothing is written.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::PoisonError,
    time::Duration,
};

use kiln_model::volume::SnapshotId;
use kiln_sys::freeze::{self, Frozen};

use super::{
    Volumes, copy_of,
    error::{OnFile as _, Result},
};

/// A file system is thawed after this time, whatever has become of the snapshot.
const FROZEN_FOR: Duration = Duration::from_secs(20);

/// A directory of a volume that a server has, opened as that server sees it.
#[derive(Debug)]
pub struct Inside(pub(crate) OwnedFd);

impl Volumes {
    /// Takes a snapshot. One of this name that is there is a success. While a server has the volume, its file system is frozen
    /// for the moment in which the content is shared.
    pub(crate) fn snapshot(&self, snapshot: &SnapshotId, inside: Option<&Inside>) -> Result<()> {
        let lock = self.lock_of(&snapshot.volume);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.existing(&snapshot.volume)?;
        let path = place.snapshot(&snapshot.name);
        if path.exists() {
            return Ok(());
        }
        place.pool.room("take a snapshot")?;
        let image = place.open_image()?;
        let new = place.directory.join("snapshot.new");
        let frozen = inside.map(|inside| Frozen::new(inside.0.as_fd(), FROZEN_FOR)).transpose()?;
        let copied = copy_of(&image, &new);
        if let Some(frozen) = frozen {
            frozen.thaw()?;
        }
        copied?.sync_all().on("write", &new)?;
        std::fs::rename(&new, &path).on("put in place", snapshot.to_string())
    }
}

/// Thaws what a process that was killed with everything beside it may have left frozen.
pub(crate) fn thaw_left(inside: &Inside) -> Result<()> {
    Ok(freeze::thaw_left(inside.0.as_fd())?)
}
