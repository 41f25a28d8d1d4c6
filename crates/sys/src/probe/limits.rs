//! Limits of the host that many servers run into.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::{Check, State};

/// Descriptors a daemon with 200 servers needs, with room.
const DESCRIPTORS: u64 = 8192;
const INSTANCES: u64 = 128;
const PROCESSES: u64 = 32_768;
const MEMORY_KIB: u64 = 1 << 20;

pub(super) fn checks() -> Vec<Check> {
    vec![descriptors(), inotify(), processes(), memory()]
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn enough(
    name: &'static str,
    found: Option<u64>,
    needed: u64,
    unit: &str,
    effect: &'static str,
    help: &'static str,
) -> Check {
    let text = found.map_or("unknown".to_owned(), |found| format!("{found} {unit}"));
    match found {
        Some(found) if found < needed => Check::lacking(name, State::Degraded, text, effect, help),
        _ => Check::found(name, text),
    }
}

fn descriptors() -> Check {
    // No limit at all is reported as none.
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let effect = "the daemon and the gateway carry fewer servers and connections";
    enough("file descriptors", Some(limit), DESCRIPTORS, "per process", effect, "raise the hard limit of open files")
}

fn inotify() -> Check {
    let found = number("/proc/sys/fs/inotify/max_user_instances");
    let effect = "software in many servers that watches files may fail to";
    enough("inotify", found, INSTANCES, "instances per user", effect, "raise fs.inotify.max_user_instances")
}

fn processes() -> Check {
    let found = number("/proc/sys/kernel/pid_max");
    enough("processes", found, PROCESSES, "on the host", "many servers exhaust them", "raise kernel.pid_max")
}

fn memory() -> Check {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let found = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    enough(
        "memory",
        found,
        MEMORY_KIB,
        "KiB available",
        "baking and testing may be stopped for want of it",
        "add memory",
    )
}
