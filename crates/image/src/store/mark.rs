//! What a power cut can leave, and how it is found.
//!
//! An object gets its name when it is written and is made durable later. If the power fails in between, a file system may
//! keep the name and lose the content, and a later bake would take the empty file for the object. So a writer leaves a
//! mark, with the id of the boot, before its first object, and takes it away when everything is durable; file systems
//! keep such changes in order. Whoever opens a store with a mark of another boot hashes every object that is not older
//! than the mark and removes those that are not what their names say.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use composefs::fsverity::FsVerityHashValue as _;
use rayon::prelude::*;

use super::{
    Store, StoreError,
    error::{Context as _, at},
    gc, lock,
    objects::Object,
    verify,
};

/// Changes with every boot.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// File systems keep times in steps of a clock tick, some of a second or two.
const COARSE: Duration = Duration::from_secs(3);

/// Held by whoever writes objects: keeps `gc` away, and marks what is not durable yet.
#[derive(Debug)]
pub(crate) struct Writing {
    store: Store,
    mark: PathBuf,
    _lock: lock::Lock,
}

impl Store {
    /// Begins to write.
    pub(crate) fn writing(&self) -> Result<Writing, StoreError> {
        let lock = self.shared_lock()?;
        let dir = marks(self);
        let file = tempfile::Builder::new().prefix(&format!("{}.", boot()?)).tempfile_in(&dir);
        let (_, mark) =
            file.and_then(|file| file.keep().map_err(|e| e.error)).doing(|| at("create a file in", &dir))?;
        Ok(Writing { store: self.clone(), mark, _lock: lock })
    }

    /// Looks for marks of an earlier boot and removes what that boot left damaged.
    pub(super) fn recover(&self) -> Result<(), StoreError> {
        let boot = boot()?;
        let old: Vec<PathBuf> = gc::entries(&marks(self))?
            .into_iter()
            .filter(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&boot)))
            .collect();
        let since = old.iter().filter_map(|mark| fs::metadata(mark).ok()?.modified().ok()).min();
        let Some(since) = since else { return Ok(()) };
        let _lock = self.sweeping()?;
        self.remove_damaged(since.checked_sub(COARSE).unwrap_or(SystemTime::UNIX_EPOCH))?;
        old.iter().try_for_each(|mark| gc::remove_all(mark))
    }

    fn remove_damaged(&self, since: SystemTime) -> Result<(), StoreError> {
        let objects = self.dir().join("composefs/objects");
        for first in 0..=0xff_u8 {
            let files = gc::entries(&objects.join(format!("{first:02x}")))?;
            files.par_iter().try_for_each(|path| match is_damaged(first, path, since) {
                Ok(false) => Ok(()),
                Ok(true) => {
                    tracing::warn!(path = %path.display(), "an object that a power cut damaged is removed");
                    gc::remove_all(path)
                }
                Err(e) => Err(e).doing(|| at("check", path)),
            })?;
        }
        // Names that lead nowhere would otherwise be taken for what they name.
        for part in ["streams", "images"] {
            for link in gc::links(&self.dir().join("composefs").join(part))?.iter().filter(|link| !link.exists()) {
                gc::remove_all(link)?;
            }
        }
        Ok(())
    }
}

impl Writing {
    /// Everything that was written is durable.
    pub(crate) fn settled(self) -> Result<(), StoreError> {
        gc::remove_all(&self.mark)
    }
}

/// A writer that failed makes durable what it leaves.
impl Drop for Writing {
    fn drop(&mut self) {
        if self.mark.exists()
            && self.store.repo().sync().is_ok()
            && let Err(error) = gc::remove_all(&self.mark)
        {
            tracing::warn!(%error, "the mark of a writer could not be removed");
        }
    }
}

fn is_damaged(first: u8, path: &Path, since: SystemTime) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let stat = fs::symlink_metadata(path)?;
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(stat.ctime().max(0).unsigned_abs());
    if changed < since {
        return Ok(false);
    }
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let Ok(named) = Object::from_object_dir_and_basename(first, name) else { return Ok(false) };
    Ok(verify::hash(path)?.0 != named)
}

fn marks(store: &Store) -> PathBuf {
    store.dir().join("unsettled")
}

fn boot() -> Result<String, StoreError> {
    fs::read_to_string(BOOT).map(|text| text.trim().to_owned()).doing(|| format!("read {BOOT}"))
}
