//! What is kept of a volume beside its content. Written whole and to the disk before a server gets the volume.

use std::{fs::File, io::Write as _, path::Path};

use kiln_model::{ServerId, volume::Filesystem};
use serde::{Deserialize, Serialize};

use super::error::{OnFile as _, Result, VolumeError};

/// The version of this file.
const VERSION: u32 = 1;

/// What is known of a volume. Additions get `#[serde(default)]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) version: u32,
    pub(super) filesystem: Filesystem,
    /// The number of the latest attachment.
    pub(super) fence: u64,
    /// Who got it then.
    #[serde(default)]
    pub(super) holder: Option<ServerId>,
    /// The number of the latest restore that was carried out.
    #[serde(default)]
    pub(super) restored: u64,
}

impl State {
    pub(super) fn new(filesystem: Filesystem) -> Self {
        Self { version: VERSION, filesystem, fence: 0, holder: None, restored: 0 }
    }

    pub(super) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("state");
        let bytes = std::fs::read(&path).on("read", &path)?;
        let state: Self = serde_json::from_slice(&bytes).map_err(std::io::Error::from).on("understand", &path)?;
        if state.version > VERSION {
            let found = format!("its state is of version {}, written by a newer Kiln", state.version);
            return Err(VolumeError::Damaged { volume: path.display().to_string(), found });
        }
        Ok(state)
    }

    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let (path, new) = (directory.join("state"), directory.join("state.new"));
        let bytes = serde_json::to_vec(self).map_err(std::io::Error::from).on("write", &new)?;
        let mut file = File::create(&new).on("make", &new)?;
        file.write_all(&bytes).on("write", &new)?;
        file.sync_data().on("write", &new)?;
        std::fs::rename(&new, &path).on("put in place", &path)?;
        File::open(directory).and_then(|directory| directory.sync_all()).on("write", directory)
    }
}
