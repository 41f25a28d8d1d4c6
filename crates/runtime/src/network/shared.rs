//! Files: the lock that all state directories of a host share, and the record of one's network.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{NetworkError, Subnet, error::failed};

/// Writes a small file so that readers see the old or the new content, never a part.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}

/// What is shared between state directories is looked at and changed under this lock. The last to be purged removes the
/// file, so a lock on a file that has been removed meanwhile is no lock.
pub(super) struct Shared {
    file: File,
    path: PathBuf,
}

impl Shared {
    pub(super) fn lock(directory: &Path) -> Result<Self, NetworkError> {
        fs::create_dir_all(directory).map_err(failed("create", directory))?;
        let path = directory.join("network.lock");
        loop {
            let file = File::options().create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(failed("open", &path))?;
            file.lock().map_err(failed("lock", &path))?;
            let shared = Self { file, path: path.clone() };
            if shared.is_current()? {
                return Ok(shared);
            }
        }
    }

    fn is_current(&self) -> Result<bool, NetworkError> {
        let ours = self.file.metadata().map_err(failed("look at", &self.path))?;
        match fs::metadata(&self.path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("look at", &self.path)(error)),
        }
    }

    pub(super) fn remove(self) -> Result<(), NetworkError> {
        fs::remove_file(&self.path).map_err(failed("remove", &self.path))
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    subnet: Subnet,
}

pub(super) fn record_path(run_dir: &Path) -> PathBuf {
    run_dir.join("network.json")
}

pub(super) fn recorded_subnet(run_dir: &Path) -> Result<Option<Subnet>, NetworkError> {
    let path = record_path(run_dir);
    match fs::read(&path) {
        Ok(bytes) => {
            let record: Record =
                serde_json::from_slice(&bytes).map_err(|source| NetworkError::Record { path, source })?;
            Ok(Some(record.subnet))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", &path)(error)),
    }
}

/// Records the network in use.
pub(super) fn record_subnet(run_dir: &Path, subnet: Subnet) -> Result<(), NetworkError> {
    let path = record_path(run_dir);
    let bytes =
        serde_json::to_vec(&Record { subnet }).map_err(|source| NetworkError::Record { path: path.clone(), source })?;
    write_whole(&path, &bytes).map_err(failed("write", &path))
}

/// Forgets it.
pub(super) fn forget_subnet(run_dir: &Path) -> Result<(), NetworkError> {
    let path = record_path(run_dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
        _ => Ok(()),
    }
}
