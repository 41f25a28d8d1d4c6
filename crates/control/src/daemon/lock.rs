//! One daemon for each state directory: an exclusive lock (flock(2)) on `kiln.lock-file`, which names the holder's process.
//! The kernel releases it when the holder ends, however it ends.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{fs::FlockOperation, io::Errno};

/// The lock's file in the state directory.
pub const FILE: &str = "kiln.lock-file";

/// Children of a daemon that was killed may hold its lock for so long.
const DEAD_HOLDER_LIMIT: Duration = Duration::from_secs(5);

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
        lock(&mut file, dir, &path)?;
        name_holder(&mut file).map_err(failed("write", &path))?;
        Ok(Self { _file: file })
    }
}

/// Where the holder named in the file is dead, what holds the lock is a child that it was just starting and that is about to
/// end: it is waited for.
fn lock(file: &mut File, dir: &Path, path: &Path) -> Result<(), LockError> {
    let start = Instant::now();
    loop {
        match rustix::fs::flock(&*file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(LockError::Io { action: "lock", path: path.to_owned(), source: errno.into() }),
        }
        let holder = holder(file);
        if holder.is_none_or(is_alive) || start.elapsed() > DEAD_HOLDER_LIMIT {
            let holder = holder.map_or("its process is not known yet".to_owned(), |pid| format!("process {pid}"));
            return Err(LockError::Held { dir: dir.to_owned(), holder });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_alive(pid: u32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed());
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

fn name_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// The process named in the file, where one is: between taking the lock and writing the name there is none.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
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
    fn host_a_child_of_a_dead_holder_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let held = StateLock::take(dir.path()).unwrap();
        fs::write(dir.path().join(FILE), format!("{}\n", dead.id())).unwrap();
        let child = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(held);
        });
        StateLock::take(dir.path()).unwrap();
        child.join().unwrap();
    }

    #[test]
    fn host_a_directory_that_cannot_be_made_is_named() {
        let error = StateLock::take(Path::new("/proc/kiln")).unwrap_err();
        assert!(error.to_string().contains("/proc/kiln"), "{error}");
    }
}
