//! Five thousand servers killed and replaced on the real engine: at the end nothing is left on the host, and nothing of the daemon is larger,
//! than half-way.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Bench,
    kiln::Kiln,
    memory,
    report::{Row, Target},
};
use crate::{Outcome, command::output};

/// Servers that are killed, half of them all the time until then.
const KILLED: u32 = 5_000;
const SERVERS: u32 = 20;
/// What was asked for is done, and what is made ahead is there again, after this time.
const REST: Duration = Duration::from_secs(5);
/// Who was killed is replaced within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is counted, and by how much it may be more at the end.
const COUNTED: [(&str, &str, f64); 11] = [
    ("mounts", "", 0.0),
    ("network namespaces", "", 0.0),
    ("control groups", "", 0.0),
    ("links", "", 0.0),
    ("files and sockets in /run/kiln", "", 0.0),
    ("files in the state directory", "", 0.0),
    ("processes", "", 0.0),
    // A connection to the gateway and a question of `kiln status` may be under way.
    ("descriptors of daemon and gateway", "", 3.0),
    ("private memory of the daemon", "MiB", 8.0),
    ("private memory of the gateway", "MiB", 4.0),
    // 200,000 entries of the audit log are kept, and these are fewer.
    ("the state file, for each server replaced", "KiB", 4.0),
];

/// Kills, and counts half-way and at the end.
pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    let kiln = Kiln::fresh(bench, "wear", "hello")?;
    let healing = "healing = { always = 100, within = \"1s\" }";
    kiln.edit("fleet.toml", "count = 3", &format!("count = {SERVERS}\nspares = 2\n{healing}"))?;
    // Two of ten are replaced by what was ready and stood still.
    kiln.edit("image.toml", "[service.web]\n", "[service.web]\nhold_ready = \"1h\"\n")?;
    kiln.up()?;
    kiln.keep_downloads(bench)?;
    let place = Place::of(&kiln)?;
    let (begun, mut killed, mut middle) = (Instant::now(), 0, None);
    while killed < KILLED {
        let victims = kill_half(&kiln)?;
        killed += victims.len() as u32;
        replaced(&kiln, &victims)?;
        if middle.is_none() && killed >= KILLED / 2 {
            middle = Some((killed, place.count()?));
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (half, middle) = middle.ok_or("there is no middle")?;
    let end = place.count()?;
    let later = f64::from(killed - half);
    let row = |(what, unit, most): &(&str, &str, f64)| -> Outcome<Row> {
        let figure = |counts: &BTreeMap<&str, f64>| counts.get(what).copied().ok_or_else(|| format!("no {what}"));
        let (before, after) = (figure(&middle)?, figure(&end)?);
        let grown = (after - before).max(0.0);
        let file = what.contains("for each");
        Ok(Row {
            bench: "wear".into(),
            what: format!("growth of {what}, from replacement {half} to {killed}"),
            kiln: if file { grown / later } else { grown },
            unit: (*unit).into(),
            peer: None,
            target: Some(Target::AtMost(*most)),
            note: format!("{before:.1} and {after:.1}, {:.0} replacements a second", f64::from(killed) / seconds),
        })
    };
    COUNTED.iter().map(row).collect()
}

/// Kills half of the servers, at once. Says which.
fn kill_half(kiln: &Kiln) -> Outcome<Vec<u64>> {
    let servers = kiln.ready_servers()?;
    let pids = servers.iter().filter_map(|server| server["pid"].as_u64());
    let half: Vec<u64> = pids.take(SERVERS as usize / 2).collect();
    output(Command::new("kill").arg("-KILL").args(half.iter().map(u64::to_string)))?;
    Ok(half)
}

/// Waits until others are in their place: that they are dead is not seen at once.
fn replaced(kiln: &Kiln, victims: &[u64]) -> Outcome {
    let begun = Instant::now();
    loop {
        kiln.settled(SERVERS)?;
        let there = |server: &Value| server["pid"].as_u64().is_some_and(|pid| victims.contains(&pid));
        if !kiln.servers()?.iter().any(there) {
            return kiln.settled(SERVERS);
        }
        if begun.elapsed() > PATIENCE {
            return Err("servers that were killed are still there".into());
        }
    }
}

/// Where everything is that belongs to one state directory.
struct Place {
    state: PathBuf,
    /// Eight digits that are in the names of all that is its.
    id: String,
}

impl Place {
    fn of(kiln: &Kiln) -> Outcome<Self> {
        let servers = kiln.ready_servers()?;
        let pid = servers.first().and_then(|server| server["pid"].as_u64()).ok_or("no server")?;
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let id = groups.lines().find_map(|line| line.split_once("/kiln/")?.1.split('/').next());
        Ok(Self { state: kiln.state().to_owned(), id: id.ok_or("the server is in no group of Kiln's")?.to_owned() })
    }

    fn count(&self) -> Outcome<BTreeMap<&'static str, f64>> {
        std::thread::sleep(REST);
        let programs = memory::of_state(&self.state)?;
        let daemon = memory::daemon(&self.state)?;
        let descriptors = programs.iter().map(|pid| entries(Path::new(&format!("/proc/{pid}/fd"))));
        let other: f64 =
            programs.iter().filter(|pid| **pid != daemon).map(|pid| private(*pid)).sum::<Outcome<f64>>()?;
        let ours = self.processes()?;
        let namespaces: BTreeSet<_> =
            ours.iter().filter_map(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).ok()).collect();
        let file: u64 = ["kiln.db", "kiln.db-wal"].iter().filter_map(|name| size(&self.state.join(name))).sum();
        let run = PathBuf::from("/run/kiln").join(&self.id);
        Ok(BTreeMap::from([
            ("mounts", self.mounts(daemon)?),
            ("network namespaces", namespaces.len() as f64),
            ("control groups", self.control_groups()? as f64),
            ("links", self.links()?),
            ("files and sockets in /run/kiln", below(&run)? as f64),
            ("files in the state directory", below(&self.state.join("spool"))? as f64),
            ("processes", ours.len() as f64),
            ("descriptors of daemon and gateway", descriptors.sum::<Outcome<usize>>()? as f64),
            ("private memory of the daemon", private(daemon)?),
            ("private memory of the gateway", other),
            ("the state file, for each server replaced", file as f64 / 1024.0),
        ]))
    }

    /// Mounts of the host and of the daemon that name something of it.
    fn mounts(&self, daemon: u32) -> Outcome<f64> {
        let state = self.state.to_string_lossy().into_owned();
        let count = |path: &str| -> Outcome<usize> {
            let text = fs::read_to_string(path)?;
            Ok(text.lines().filter(|line| line.contains(&state) || line.contains(&self.id)).count())
        };
        Ok((count("/proc/self/mountinfo")? + count(&format!("/proc/{daemon}/mountinfo"))?) as f64)
    }

    fn links(&self) -> Outcome<f64> {
        let names = fs::read_dir("/sys/class/net")?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names = names.collect::<Outcome<Vec<String>>>()?;
        Ok(names.iter().filter(|name| name.contains(&self.id)).count() as f64)
    }

    /// The directories of its groups, in every hierarchy.
    fn group_directories(&self) -> Outcome<Vec<PathBuf>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let roots = mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
        Ok(roots.map(|root| Path::new(root).join("kiln").join(&self.id)).filter(|path| path.is_dir()).collect())
    }

    fn control_groups(&self) -> Outcome<usize> {
        let directories = |root: &PathBuf| -> Outcome<usize> {
            let entries = fs::read_dir(root)?.collect::<std::io::Result<Vec<_>>>()?;
            Ok(entries.iter().filter(|entry| entry.path().is_dir()).count())
        };
        self.group_directories()?.iter().map(directories).sum()
    }

    /// All that is in its groups.
    fn processes(&self) -> Outcome<BTreeSet<u32>> {
        let mut pids = BTreeSet::new();
        for root in self.group_directories()? {
            for entry in fs::read_dir(root)? {
                let text = fs::read_to_string(entry?.path().join("cgroup.procs")).unwrap_or_default();
                pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            }
        }
        Ok(pids)
    }
}

/// MiB.
fn private(pid: u32) -> Outcome<f64> {
    Ok(memory::private(pid.into())? / 1024.0)
}

fn size(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|file| file.len())
}

fn entries(directory: &Path) -> Outcome<usize> {
    Ok(fs::read_dir(directory)?.count())
}

/// Everything below a directory.
fn below(directory: &Path) -> Outcome<usize> {
    let mut count = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        count += 1;
        if entry.file_type()?.is_dir() {
            count += below(&entry.path())?;
        }
    }
    Ok(count)
}
