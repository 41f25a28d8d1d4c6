//! One daemon for each state directory: an exclusive lock (flock(2)) on `kiln.lock-file`, which names the holder's process.
//! The kernel releases it when the holder ends, however it ends.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{fs::FlockOperation, io::Errno};

/// The lock's file in the state directory.
pub const FILE: &str = "kiln.lock-file";

/// Why the state directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A daemon runs already.
    #[error("a daemon ({holder}) already works on {}; stop it first, or use another `--state` directory", dir.display())]
    Held {
        /// The state directory.
        dir: PathBuf,
        /// `process 123`, or that it is unknown.
        holder: String,
    },
    /// The directory or file cannot be used.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// The right to work on a state directory; given up when dropped.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Makes the state directory (mode 0700) if need be and locks it.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| LockError::Io { action, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create", dir))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed("protect", dir))?;
        let path = dir.join(FILE);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = file.map_err(failed("open", &path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(LockError::Held { dir: dir.to_owned(), holder: holder(&mut file) }),
            Err(errno) => return Err(failed("lock", &path)(errno.into())),
        }
        name_holder(&mut file).map_err(failed("write", &path))?;
        Ok(Self { _file: file })
    }
}

fn name_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(32).read_to_string(&mut text).map(|_| text.trim().parse::<u32>()) {
        Ok(Ok(pid)) => format!("process {pid}"),
        _ => "its process is not known yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_a_second_lock_names_the_holder_and_the_first_ending_frees_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let first = StateLock::take(&state).unwrap();
        let error = StateLock::take(&state).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
        drop(first);
        StateLock::take(&state).unwrap();
    }

    #[test]
    fn host_a_directory_that_cannot_be_made_is_named() {
        let error = StateLock::take(Path::new("/proc/kiln")).unwrap_err();
        assert!(error.to_string().contains("/proc/kiln"), "{error}");
    }
}
