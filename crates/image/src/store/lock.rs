//! Locks between processes: files with `flock`, so that the kernel releases them when a holder dies.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::{
    Store,
    error::{Context as _, StoreError, at},
};

/// How long a writer waits for `gc`, and `gc` for writers.
const PATIENCE: Duration = Duration::from_secs(60);

/// A held lock; released when dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Store {
    /// Held while objects are written that nothing names yet, so that `gc` does not take them away.
    pub(super) fn shared_lock(&self) -> Result<Lock, StoreError> {
        acquire(&self.inner.dir.join("lock"), FlockOperation::NonBlockingLockShared, PATIENCE, "gc")
    }
    /// Held while unreferenced objects are removed.
    pub(crate) fn sweeping(&self) -> Result<Lock, StoreError> {
        acquire(&self.inner.dir.join("lock"), FlockOperation::NonBlockingLockExclusive, PATIENCE, "a bake")
    }
    /// Held while one step is run, so that a second bake waits for its layer instead of making it again.
    pub(crate) fn step_lock(&self, key: &kiln_model::Digest, patience: Duration) -> Result<Lock, StoreError> {
        let dir = self.locks()?;
        // A fixed set of files, so that they need no removal; two keys may share one, which only makes one wait.
        let path = dir.join(&key.hex()[..3]);
        acquire(&path, FlockOperation::NonBlockingLockExclusive, patience, "another bake of the same step")
    }
    /// Held while directories for steps are made or swept.
    pub(crate) fn work_lock(&self) -> Result<Lock, StoreError> {
        acquire(&self.locks()?.join("work"), FlockOperation::NonBlockingLockExclusive, PATIENCE, "another bake")
    }

    fn locks(&self) -> Result<PathBuf, StoreError> {
        let dir = self.inner.dir.join("work").join("locks");
        std::fs::create_dir_all(&dir).doing(|| at("create", &dir))?;
        Ok(dir)
    }
}

fn acquire(path: &Path, how: FlockOperation, patience: Duration, holder: &'static str) -> Result<Lock, StoreError> {
    let open = || OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = open().doing(|| at("open", path))?;
    let started = Instant::now();
    loop {
        match flock(&file, how) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(Errno::WOULDBLOCK) if started.elapsed() < patience => std::thread::sleep(Duration::from_millis(10)),
            Err(Errno::WOULDBLOCK) => return Err(StoreError::Busy { holder, seconds: patience.as_secs() }),
            Err(Errno::INTR) => {}
            failed => failed.doing(|| at("lock", path))?,
        }
    }
}
