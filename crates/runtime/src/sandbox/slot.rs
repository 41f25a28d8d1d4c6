//! Build slots: what tells apart the commands that run at the same time, from whatever process. A slot is held by a
//! lock on a file, which the kernel releases when its holder dies.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use kiln_sys::idmap;

use super::{FIRST_ID, SandboxError, failed};
use crate::network::{FIRST_BUILD_SLOT, SLOTS};

const COUNT: u16 = SLOTS - FIRST_BUILD_SLOT;

/// A slot held by this process.
#[derive(Debug)]
pub(super) struct Slot {
    number: u16,
    scratch: PathBuf,
    _lock: File,
}

impl Slot {
    /// Takes the first free slot.
    pub(super) fn take(run_dir: &Path) -> Result<Self, SandboxError> {
        let scratch = run_dir.join("build");
        fs::create_dir_all(&scratch).map_err(failed("create", &scratch))?;
        for number in 0..COUNT {
            let path = run_dir.join(format!("build-{number}.lock"));
            let file = File::options().create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(failed("open", &path))?;
            match file.try_lock() {
                Ok(()) => return Ok(Self { number, scratch, _lock: file }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
            }
        }
        Err(SandboxError::Busy(COUNT))
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    pub(super) fn network_slot(&self) -> u16 {
        FIRST_BUILD_SLOT + self.number
    }

    pub(super) fn first_id(&self) -> u32 {
        FIRST_ID + u32::from(self.number) * idmap::IDS
    }

    /// An empty directory; what is mounted there is seen in private mount namespaces only.
    pub(super) fn scratch(&self) -> &Path {
        &self.scratch
    }
}
