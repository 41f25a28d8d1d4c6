//! Control groups: version 2 where its controllers are, the hierarchies of version 1 where those hold them, and both
//! together on hybrid hosts (limits by version 1, `cgroup.kill` and start by version 2).
//!
//! A [`Group`] is one name in every hierarchy used. Groups are directories made, filled, emptied and removed; no
//! process is needed to keep one.

use std::{
    fs::{File, OpenOptions},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::error::{Attempt as _, Outcome, Result, SysError};

mod detect;
mod freezer;

pub use detect::{Host, Version};

/// The hierarchies of version 1 that are used where they are mounted.
const V1_CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// The one that counts processor time, where version 2 is not there to do that.
const ACCOUNTING: &str = "cpuacct";
/// The one that freezes, where version 2 is not there to do that.
const FREEZER: &str = "freezer";
/// Length of a period of the processor limit.
const CPU_PERIOD_MICROS: u64 = 100_000;

/// What a group may use; none is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes, page cache and tmpfs included.
    pub memory: Option<u64>,
    /// Thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// What a group uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// Which limits of a group were reached so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hits {
    /// A process was killed for want of memory.
    pub memory: bool,
    /// A new process was refused.
    pub pids: bool,
}

/// One control group in every hierarchy used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Directories of version 1, by controller.
    v1: Vec<(&'static str, PathBuf)>,
    /// Directory of version 2.
    v2: Option<PathBuf>,
    /// Which version keeps the limits.
    limits: Version,
}

/// A group open for a process to be started in it.
#[derive(Debug)]
pub struct Entrance {
    /// Directory of version 2.
    pub v2: Option<File>,
    /// `cgroup.procs` files of version 1.
    pub v1: Vec<File>,
}

impl Host {
    /// A group by its name below the root: `kiln/1234/slot-7`. Nothing is made.
    pub fn group(&self, name: &str) -> Group {
        Group {
            v1: self.v1.iter().map(|(controller, root)| (*controller, root.join(name))).collect(),
            v2: self.v2.as_ref().map(|root| root.join(name)),
            limits: self.limits,
        }
    }
}

impl Group {
    fn directories(&self) -> impl Iterator<Item = &PathBuf> {
        self.v1.iter().map(|(_, path)| path).chain(&self.v2)
    }

    /// Makes the group and those above it. One that exists is a success.
    pub fn create(&self) -> Result<()> {
        for directory in self.directories() {
            std::fs::create_dir_all(directory).attempt(|| format!("make the control group {}", directory.display()))?;
        }
        if self.limits == Version::V2
            && let Some(directory) = &self.v2
        {
            detect::delegate_controllers(directory)?;
        }
        Ok(())
    }

    /// Opens the group for a process to be started in it.
    pub fn entrance(&self) -> Result<Entrance> {
        let open = |path: PathBuf, options: &OpenOptions| {
            options.open(&path).attempt(|| format!("open the control group {}", path.display()))
        };
        let v1 = self.v1.iter().map(|(_, path)| open(path.join("cgroup.procs"), OpenOptions::new().write(true)));
        Ok(Entrance {
            v1: v1.collect::<Result<_>>()?,
            v2: self.v2.clone().map(|path| open(path, OpenOptions::new().read(true))).transpose()?,
        })
    }

    /// Sets what is limited; what is not stays as it is.
    pub fn limit(&self, limits: &Limits) -> Result<()> {
        let quota = |millis: u32| u64::from(millis) * CPU_PERIOD_MICROS / 1000;
        match self.limits {
            Version::V2 => {
                self.set_v2("memory.max", limits.memory)?;
                self.set_v2("pids.max", limits.pids)?;
                self.set_v2("cpu.max", limits.cpu_millis.map(|millis| format!("{} {CPU_PERIOD_MICROS}", quota(millis))))
            }
            Version::V1 => {
                self.set_v1("memory", "memory.limit_in_bytes", limits.memory)?;
                self.set_v1("pids", "pids.max", limits.pids)?;
                self.set_v1("cpu", "cpu.cfs_quota_us", limits.cpu_millis.map(quota))
            }
        }
    }

    fn set_v2(&self, file: &str, value: Option<impl ToString>) -> Result<()> {
        match (value, &self.v2) {
            (Some(value), Some(directory)) => write(&directory.join(file), &value.to_string()),
            _ => Ok(()),
        }
    }

    fn set_v1(&self, controller: &'static str, file: &str, value: Option<impl ToString>) -> Result<()> {
        let Some(value) = value else { return Ok(()) };
        let (_, directory) = self.v1.iter().find(|(name, _)| *name == controller).ok_or_else(|| SysError {
            action: format!("limit {controller}: the host has no such control group controller"),
            outcome: Outcome::Unsupported,
        })?;
        write(&directory.join(file), &value.to_string())
    }

    /// What the group uses, where the host counts it.
    pub fn usage(&self) -> Usage {
        let v1 = |controller: &str, file: &str| {
            self.v1.iter().find(|(name, _)| *name == controller).and_then(|(_, path)| number(&path.join(file)))
        };
        let v2 = |file: &str| self.v2.as_ref().and_then(|path| number(&path.join(file)));
        match self.limits {
            Version::V1 => Usage { memory: v1("memory", "memory.usage_in_bytes"), pids: v1("pids", "pids.current") },
            Version::V2 => Usage { memory: v2("memory.current"), pids: v2("pids.current") },
        }
    }

    /// Processor time of all that ran in the group so far, where the host counts it: `cpu.stat` of version 2, which needs no
    /// controller (kernel: admin-guide/cgroup-v2), or `cpuacct.usage` of version 1, in nanoseconds (cgroup-v1/cpuacct).
    pub fn processor_time(&self) -> Option<Duration> {
        let v2 = self.v2.as_ref().and_then(|path| keyed(&path.join("cpu.stat"), "usage_usec"));
        let accounting = || self.v1.iter().find(|(name, _)| *name == ACCOUNTING);
        let v1 = || accounting().and_then(|(_, path)| number(&path.join("cpuacct.usage")));
        v2.map(Duration::from_micros).or_else(|| v1().map(Duration::from_nanos))
    }

    /// Which limits were reached, where the host counts it.
    pub fn limit_hits(&self) -> Hits {
        let v1 = |controller: &str, file: &str, key: &str| {
            let group = self.v1.iter().find(|(name, _)| *name == controller);
            group.is_some_and(|(_, path)| counted(&path.join(file), key))
        };
        let v2 = |file: &str, key: &str| self.v2.as_ref().is_some_and(|path| counted(&path.join(file), key));
        match self.limits {
            Version::V1 => {
                Hits { memory: v1("memory", "memory.oom_control", "oom_kill"), pids: v1("pids", "pids.events", "max") }
            }
            Version::V2 => Hits { memory: v2("memory.events", "oom_kill"), pids: v2("pids.events", "max") },
        }
    }

    /// Processes in the group, in any hierarchy.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        for directory in self.directories() {
            let path = directory.join("cgroup.procs");
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0))
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                // A group that is being removed answers ENODEV.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error).attempt(|| format!("read {}", path.display())),
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Kills every process in the group. Does not wait.
    pub fn kill(&self) -> Result<()> {
        if let Some(directory) = &self.v2 {
            match write(&directory.join("cgroup.kill"), "1") {
                Err(SysError { outcome: Outcome::Absent | Outcome::Unsupported, .. }) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        for pid in self.processes()? {
            match crate::pidfd::open(pid) {
                // The number could have passed to another process between reading and opening: look again.
                Ok(process) if self.processes()?.contains(&pid) => crate::pidfd::kill(process.as_fd())?,
                Ok(_) | Err(SysError { outcome: Outcome::Gone, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.let_die()
    }

    /// Kills what is in the group and removes it, trying again while processes end, at most `limit`. A group that is not
    /// there is a success.
    pub fn remove(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_micros(200);
        loop {
            match self.remove_directories() {
                Err(SysError { outcome: Outcome::Busy, .. }) if Instant::now() < deadline => {}
                other => return other,
            }
            self.kill()?;
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn remove_directories(&self) -> Result<()> {
        for directory in self.directories() {
            match std::fs::remove_dir(directory) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.attempt(|| format!("remove the control group {}", directory.display()))?,
            }
        }
        Ok(())
    }

    /// Whether the group exists in any hierarchy.
    pub fn exists(&self) -> bool {
        self.directories().any(|directory| directory.exists())
    }

    /// Names of the groups directly below, in any hierarchy.
    pub fn children(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for directory in self.directories() {
            let entries = match std::fs::read_dir(directory) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.attempt(|| format!("list the control group {}", directory.display()))?,
            };
            for entry in entries {
                let entry = entry.attempt(|| format!("list the control group {}", directory.display()))?;
                if entry.path().is_dir() {
                    names.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }
}

fn write(path: &Path, value: &str) -> Result<()> {
    // Without O_CREAT: a control that is not there must not look like one that could not be made.
    let written = OpenOptions::new().write(true).open(path).and_then(|mut file| {
        use std::io::Write as _;
        file.write_all(value.as_bytes())
    });
    written.attempt(|| format!("write {value} to {}", path.display()))
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether a file of lines `key number` counts this key above 0.
fn counted(path: &Path, key: &str) -> bool {
    keyed(path, key).is_some_and(|count| count > 0)
}

/// The number of a key in a file of lines `key number`.
fn keyed(path: &Path, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut numbers = text.lines().filter_map(|line| line.split_once(' '));
    numbers.find(|(name, _)| *name == key)?.1.trim().parse().ok()
}
