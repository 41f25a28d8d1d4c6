//! `daemon.log` in the state directory: one JSON object to a line, at most about twice [`MAX_SIZE`] on disk.
//!
//! A log that cannot be written (a full disk) stops nothing: its lines are lost.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// The log's name in the state directory; the part before it has `.1` appended.
pub const FILE: &str = "daemon.log";
/// A new file is begun at this size, in bytes.
pub const MAX_SIZE: u64 = 16 << 20;

/// Sends this process's log to the state directory. `KILN_LOG` chooses what is logged (`info` by default).
pub fn install(state_dir: &Path) -> io::Result<()> {
    let filter = EnvFilter::try_from_env("KILN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(Log::open(&state_dir.join(FILE))?)
        .finish();
    tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)
}

#[derive(Debug, Clone)]
struct Log(Arc<Mutex<Open>>);

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        let (file, size) = open(path)?;
        Ok(Self(Arc::new(Mutex::new(Open { path: path.to_owned(), file, size }))))
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

impl Open {
    fn begin_anew(&mut self) -> io::Result<()> {
        fs::rename(&self.path, self.path.with_extension("log.1"))?;
        (self.file, self.size) = open(&self.path)?;
        Ok(())
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut open = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if open.size >= MAX_SIZE {
            open.begin_anew()?;
        }
        let written = open.file.write(line)?;
        open.size += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;
    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_a_log_that_is_full_begins_anew_and_keeps_one_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::write(&path, vec![b'x'; MAX_SIZE as usize]).unwrap();
        let mut log = Log::open(&path).unwrap();
        log.write_all(b"line\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"line\n");
        assert_eq!(fs::metadata(dir.path().join("daemon.log.1")).unwrap().len(), MAX_SIZE);
    }
}
