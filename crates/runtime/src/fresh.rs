//! Whether a server that was made ahead is still what it was when it was made.
//!
//! Nothing of its own has run in it: PID 1 has mounted its places and waits. So what is asked when it is to be used is whether
//! PID 1 still waits, alone, and whether the places that can be written hold what they held then. Nobody inside could have
//! changed them; somebody on the host could.

use std::os::fd::AsFd as _;

use kiln_boot::setup::Operation;
use kiln_model::VerifiedRelease;
use kiln_sys::{pidfd, within};
use rustix::fs::{Mode, OFlags};

use crate::{
    berth::Berth,
    plan::{Descriptor, Plan},
    record::Record,
};

/// What the writable places of a server hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Print(Vec<(String, Option<Held>)>);

/// Blocks and inodes that are used, and when the names at the top were changed last.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    blocks: u64,
    inodes: u64,
    changed: (i64, i64),
}

impl Print {
    /// Of a server that was made by this plan.
    pub fn of(pid: u32, plan: &Plan) -> Self {
        let places = places(plan);
        Self(places.into_iter().map(|place| (place.clone(), held(pid, &place))).collect())
    }

    /// The first place that holds something else now.
    fn changed(&self, pid: u32) -> Option<&str> {
        self.0.iter().find(|(place, before)| held(pid, place) != *before).map(|(place, _)| place.as_str())
    }
}

/// Why a server that was made ahead is not to be used, if it is not.
pub(crate) fn why_not(berth: &Berth, record: &Record, print: &Print, release: &VerifiedRelease) -> Option<String> {
    let wanted = release.release();
    if record.release != wanted.id() || record.image != wanted.image {
        return Some(format!("it is of release {}, not {}", record.release.short(), wanted.id().short()));
    }
    if pidfd::has_ended(berth.process.pidfd.as_fd()).unwrap_or(true) {
        return Some("PID 1 has ended".to_owned());
    }
    match berth.group.processes() {
        Ok(processes) if processes == [record.pid] => {}
        Ok(processes) => return Some(format!("{} processes are in it", processes.len())),
        Err(error) => return Some(error.to_string()),
    }
    print.changed(record.pid).map(|place| format!("somebody wrote into {place}"))
}

/// The memory file systems that the plan makes.
fn places(plan: &Plan) -> Vec<String> {
    let place = |operation: &Operation| match operation {
        Operation::Mount(mount) if mount.filesystem == "tmpfs" => Some(mount.path.clone()),
        Operation::Attach { descriptor, path, .. } => {
            matches!(plan.descriptors.get(*descriptor), Some(Descriptor::Ephemeral { .. })).then(|| path.clone())
        }
        _ => None,
    };
    plan.operations.iter().filter_map(place).collect()
}

/// None for a place that is not there.
fn held(pid: u32, place: &str) -> Option<Held> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()).ok()?;
    let place = within::open(&root, place, flags, Mode::empty()).ok()?;
    let (filesystem, directory) = (rustix::fs::fstatfs(&place).ok()?, rustix::fs::fstat(&place).ok()?);
    Some(Held {
        blocks: filesystem.f_blocks.saturating_sub(filesystem.f_bfree),
        inodes: filesystem.f_files.saturating_sub(filesystem.f_ffree),
        changed: (directory.st_mtime, directory.st_mtime_nsec as i64),
    })
}
