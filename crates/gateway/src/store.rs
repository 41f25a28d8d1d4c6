//! The last table on disk: `gateway.json`, replaced whole.
//!
//! It is for the next gateway process, not for the next boot: servers do not survive a boot, and the daemon gives the
//! table anew. So nothing is synced, which would cost milliseconds in the middle of every rollout.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::table::Routes;

const FORMAT: u32 = 1;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Version of this file's shape.
    format: u32,
    /// Version of the table.
    pub version: u64,
    /// The table.
    pub routes: Routes,
    /// The port of each route, in order.
    pub ports: Vec<u16>,
}

impl Kept {
    pub fn new(version: u64, routes: Routes, ports: Vec<u16>) -> Self {
        Self { format: FORMAT, version, routes, ports }
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("gateway.json")
}

/// Reads the last table; the empty one where there is none. A file that cannot be understood is set aside as
/// `gateway.json.bad` and counts as none: the daemon gives the table anew.
pub fn load(state_dir: &Path) -> io::Result<Kept> {
    let path = path(state_dir);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        other => other?,
    };
    match serde_json::from_slice::<Kept>(&text) {
        Ok(kept) if kept.format == FORMAT && kept.ports.len() == kept.routes.routes.len() => Ok(kept),
        understood => {
            tracing::error!(path = %path.display(), error = ?understood.err(), "the kept table cannot be read, set aside");
            fs::rename(&path, path.with_extension("json.bad"))?;
            Ok(Kept::default())
        }
    }
}

/// Writes the table, whole or not at all.
pub fn save(state_dir: &Path, kept: &Kept) -> io::Result<()> {
    let path = path(state_dir);
    let new = path.with_extension("json.new");
    fs::write(&new, serde_json::to_vec(kept)?)?;
    fs::rename(&new, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), Kept::default());
        let kept = Kept::new(7, Routes::default(), Vec::new());
        save(dir.path(), &kept).unwrap();
        assert_eq!(load(dir.path()).unwrap(), kept);
    }

    #[test]
    fn host_what_cannot_be_read_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["", "{}", r#"{"format":9,"version":1,"routes":{"routes":[]},"ports":[]}"#, "\0\0\0"] {
            fs::write(path(dir.path()), bad).unwrap();
            assert_eq!(load(dir.path()).unwrap(), Kept::default(), "{bad:?}");
            assert!(dir.path().join("gateway.json.bad").exists());
        }
    }
}
