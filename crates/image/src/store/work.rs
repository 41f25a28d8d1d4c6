//! Directories that steps and imports work in: below the store, so that finished files move into it without a copy, and so that
//! nothing of them survives: what a killed bake left is removed by the next one.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::Store;

const PREFIX: &str = "step-";

/// A directory for a step could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action}")]
pub struct WorkError {
    action: String,
    #[source]
    source: io::Error,
}

impl WorkError {
    pub(crate) fn new(action: impl Into<String>, source: io::Error) -> Self {
        Self { action: action.into(), source }
    }
}

/// One step's directory, removed with everything in it when dropped.
#[derive(Debug)]
pub(crate) struct Work {
    dir: tempfile::TempDir,
    /// The directory itself, locked while it is in use; released after it is removed.
    _lock: File,
}

impl Work {
    /// A new directory with an empty `upper` and `work` in it.
    pub(crate) fn new(store: &Store) -> Result<Self, WorkError> {
        // Directories are made and swept one process at a time, so that a new one is never taken for an old one.
        let locked = store.work_lock();
        let _sweeping =
            locked.map_err(|error| WorkError::new("make a directory for the step", io::Error::other(error)))?;
        let base = store.dir().join("work");
        let doing = |action: &str, source| WorkError { action: format!("{action} {}", base.display()), source };
        sweep(&base).map_err(|e| doing("remove what a killed bake left in", e))?;
        let make = || -> io::Result<Self> {
            let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&base)?;
            let lock = File::open(dir.path())?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            for part in ["upper", "work"] {
                fs::create_dir(dir.path().join(part))?;
                fs::set_permissions(dir.path().join(part), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            }
            Ok(Self { dir, _lock: lock })
        };
        make().map_err(|e| doing("make a directory in", e))
    }
    pub(crate) fn upper(&self) -> PathBuf {
        self.dir.path().join("upper")
    }
    pub(crate) fn overlay_work(&self) -> PathBuf {
        self.dir.path().join("work")
    }
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
    /// Removes it now.
    pub(crate) fn remove(self) -> Result<(), WorkError> {
        let action = format!("remove {}", self.dir.path().display());
        self.dir.close().map_err(|source| WorkError { action, source })
    }
}

/// Removes directories whose bake is gone.
fn sweep(base: &Path) -> io::Result<()> {
    for entry in fs::read_dir(base)? {
        let path = entry?.path();
        if !path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(PREFIX.as_bytes())) {
            continue;
        }
        let lock = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            lock => lock?,
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            match fs::remove_dir_all(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
        }
    }
    Ok(())
}
