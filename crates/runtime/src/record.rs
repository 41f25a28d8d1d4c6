//! What is known of a server on disk: written before anything of it exists, so that whatever a crash leaves behind is
//! found and removed, or adopted, by the next daemon.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use kiln_model::{FrozenConfig, GroupName, ImageDigest, ReleaseId, ServerId, VolumeId};
use serde::{Deserialize, Serialize};

use crate::error::{OnFile as _, Result};

/// How far a launch has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// It has begun; found after a crash, what there is of it is removed.
    Launching,
    /// PID 1 has started the services.
    Launched,
}

/// A server's record. Additions get `#[serde(default)]`: servers outlive the daemon that launched them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The server.
    pub server: ServerId,
    /// Its generation.
    pub generation: u64,
    /// Its release.
    pub release: ReleaseId,
    /// Its image.
    pub image: ImageDigest,
    /// Its group; none for a test server.
    pub group: Option<GroupName>,
    /// Its place on this host: user ids, control group, address.
    pub slot: u16,
    /// How far its launch has come.
    pub progress: Progress,
    /// PID 1 in the host's numbers.
    pub pid: u32,
    /// When PID 1 started, in clock ticks since boot.
    pub start_ticks: u64,
    /// The inode of PID 1's descriptor.
    pub identity: u64,
    /// Unix milliseconds of the launch.
    pub started_at_ms: i64,
    /// Its address, if it has a network.
    pub address: Option<Ipv4Addr>,
    /// The volumes it was given that stay.
    #[serde(default)]
    pub volumes: Vec<HeldVolume>,
    /// Its configuration; secrets only as their hashes.
    #[serde(default)]
    pub config: FrozenConfig,
}

/// A volume that a server was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldVolume {
    /// The volume.
    pub volume: VolumeId,
    /// The number with which it was given.
    pub fence: u64,
    /// Where it is inside.
    pub path: String,
}

/// The directory of a server's small files.
#[derive(Debug, Clone)]
pub struct Files {
    directory: PathBuf,
    spool: PathBuf,
}

impl Files {
    /// Of one server.
    pub fn new(run_dir: &Path, state_dir: &Path, server: &ServerId) -> Self {
        Self {
            directory: run_dir.join("servers").join(server.as_str()),
            spool: state_dir.join("spool").join(server.as_str()),
        }
    }
    /// The record.
    pub fn record(&self) -> PathBuf {
        self.directory.join("record.json")
    }
    /// The socket PID 1 listens on.
    pub fn control(&self) -> PathBuf {
        self.directory.join("control.sock")
    }
    /// What PID 1 says of its end.
    pub fn ending(&self) -> PathBuf {
        self.directory.join("ending.json")
    }
    /// The two spool files.
    pub fn spool(&self) -> [PathBuf; 2] {
        [self.spool.join("0"), self.spool.join("1")]
    }

    /// Makes the directories, empty of what an earlier launch may have left.
    pub fn create(&self) -> Result<()> {
        self.remove()?;
        for directory in [&self.directory, &self.spool] {
            std::fs::create_dir_all(directory).on("make the directory", directory)?;
        }
        Ok(())
    }

    /// Removes everything. What is not there is a success. The record goes last: as long as anything is left, it is
    /// known whose it was.
    pub fn remove(&self) -> Result<()> {
        for path in [self.control(), self.ending(), self.record().with_extension("new")] {
            absent_is_fine(std::fs::remove_file(&path)).on("remove", path)?;
        }
        absent_is_fine(std::fs::remove_dir_all(&self.spool)).on("remove", &self.spool)?;
        absent_is_fine(std::fs::remove_dir_all(&self.directory)).on("remove", &self.directory)
    }

    /// Writes the record whole: a reader sees the old or the new one.
    pub fn write(&self, record: &Record) -> Result<()> {
        let path = self.record();
        let temporary = path.with_extension("new");
        let bytes = serde_json::to_vec(record).map_err(std::io::Error::from).on("write", &path)?;
        std::fs::write(&temporary, bytes).on("write", &temporary)?;
        std::fs::rename(&temporary, &path).on("put in place", &path)
    }

    /// Reads the record; none if there is none, or one that was cut off before a server could exist.
    pub fn read(&self) -> Result<Option<Record>> {
        let path = self.record();
        match std::fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).on("read", path),
        }
    }
}

/// Every server that has files in a run directory.
pub fn known(run_dir: &Path) -> Result<Vec<ServerId>> {
    let directory = run_dir.join("servers");
    let entries = match std::fs::read_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.on("list", &directory)?,
    };
    let mut servers = Vec::new();
    for entry in entries {
        let name = entry.on("list", &directory)?.file_name();
        servers.extend(name.to_str().and_then(|name| name.parse().ok()));
    }
    Ok(servers)
}

fn absent_is_fine(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// When a process started, in clock ticks since boot (field 22 of proc_pid_stat(5)); none if it is gone.
pub fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything.
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(19)?.parse().ok()
}
