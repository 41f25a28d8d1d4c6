//! Whether a server that was made ahead is still what it was when it was made.
//!
//! Nothing of its own has run in one that was staged: PID 1 has mounted its places and waits. So what is asked when it is to be used is whether
//! PID 1 still waits, alone, and whether the places that can be written hold what they held then. Nobody inside could have
//! changed them; somebody on the host could.
//!
//! A server that was held when its services were ready is asked the same, beside whether all its processes are those of then,
//! and have used no processor since.

use std::{os::fd::AsFd as _, time::Duration};

use kiln_boot::setup::Operation;
use kiln_model::VerifiedRelease;
use kiln_sys::{pidfd, within};
use rustix::fs::{Mode, OFlags};

use crate::{
    ahead::Ahead,
    berth::Berth,
    error::Result,
    plan::{Descriptor, Plan},
    record::Record,
    server::Server,
};

/// So often it is looked whether what was frozen uses a processor no more, with a pause between.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(1);

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
        Self::of_places(pid, places(plan))
    }

    fn of_places(pid: u32, places: Vec<String>) -> Self {
        Self(places.into_iter().map(|place| (place.clone(), held(pid, &place))).collect())
    }

    /// The first place that holds something else now.
    fn changed(&self, pid: u32) -> Option<&str> {
        self.0.iter().find(|(place, before)| held(pid, place) != *before).map(|(place, _)| place.as_str())
    }
}

/// What is in a server that was frozen when it was ready, and what it has used of a processor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Still {
    print: Print,
    processes: Vec<u32>,
    used: Option<Duration>,
}

/// Something in it still moved.
#[derive(Debug)]
pub(crate) struct Moved;

impl Still {
    /// Of a server that was frozen just now. What its processes used last may be counted a moment later.
    pub fn of(server: &Server, places: &[String]) -> Result<Self> {
        for _ in 0..LOOKS {
            let used = server.group.processor_time();
            std::thread::sleep(PAUSE);
            if server.group.processor_time() == used {
                let print = Print::of_places(server.record.pid, places.to_vec());
                return Ok(Self { print, processes: server.group.processes()?, used });
            }
        }
        Err(Moved.into())
    }

    fn changed(&self, server: &Server) -> Result<Option<String>> {
        if !server.group.is_frozen()? || server.group.processor_time() != self.used {
            return Ok(Some("somebody let it go on".to_owned()));
        }
        let processes = server.group.processes()?;
        if processes != self.processes {
            return Ok(Some(format!("{} processes were in it, and {} are", self.processes.len(), processes.len())));
        }
        let place = self.print.changed(server.record.pid);
        Ok(place.map(|place| format!("somebody wrote into {place}")))
    }
}

/// Why a server whose services were started ahead is not to be used, if it is not.
pub(crate) fn why_not_taken(server: &Server, release: &VerifiedRelease) -> Option<String> {
    let Some(Ahead::Frozen(still)) = &server.ahead else { return Some("it was never seen to be ready".to_owned()) };
    let process = server.process();
    other_release(&server.record, release)
        .or_else(|| ended(process.is_none_or(|process| pidfd::has_ended(process.as_fd()).unwrap_or(true))))
        .or_else(|| still.changed(server).unwrap_or_else(|error| Some(error.to_string())))
}

fn other_release(record: &Record, release: &VerifiedRelease) -> Option<String> {
    let wanted = release.release();
    let same = record.release == wanted.id() && record.image == wanted.image;
    (!same).then(|| format!("it is of release {}, not {}", record.release.short(), wanted.id().short()))
}

fn ended(ended: bool) -> Option<String> {
    ended.then(|| "PID 1 has ended".to_owned())
}

/// Why a server that was made ahead is not to be used, if it is not.
pub(crate) fn why_not(berth: &Berth, record: &Record, print: &Print, release: &VerifiedRelease) -> Option<String> {
    let gone = ended(pidfd::has_ended(berth.process.pidfd.as_fd()).unwrap_or(true));
    if let Some(why) = other_release(record, release).or(gone) {
        return Some(why);
    }
    match berth.group.processes() {
        Ok(processes) if processes == [record.pid] => {}
        Ok(processes) => return Some(format!("{} processes are in it", processes.len())),
        Err(error) => return Some(error.to_string()),
    }
    print.changed(record.pid).map(|place| format!("somebody wrote into {place}"))
}

/// The memory file systems that the plan makes.
pub(crate) fn places(plan: &Plan) -> Vec<String> {
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
