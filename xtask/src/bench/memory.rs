//! What the daemon and PID 1 take with 200 servers.

use std::{fs, path::Path};

use super::{
    Bench,
    kiln::Kiln,
    median,
    report::{Row, Target},
};
use crate::Outcome;

const SERVERS: u32 = 200;

/// Resident memory of the daemon; private memory of `kiln-init`.
pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    let kiln = Kiln::fresh(bench, "memory", "hello")?;
    kiln.edit("fleet.toml", "count = 3", &format!("count = {SERVERS}"))?;
    kiln.up()?;
    kiln.keep_downloads(bench)?;
    let daemon = daemon(kiln.state())?;
    let resident = field(&format!("/proc/{daemon}/status"), "VmRSS:")?;
    let inits = kiln.servers()?.iter().filter_map(|server| server["pid"].as_u64()).collect::<Vec<_>>();
    let private = inits.iter().map(|pid| private(*pid)).collect::<Outcome<Vec<_>>>()?;
    let row = |what: &str, kiln, unit: &str, limit, note: String| Row {
        bench: "memory".into(),
        what: what.into(),
        kiln,
        unit: unit.into(),
        peer: None,
        target: Some(Target::AtMost(limit)),
        note,
    };
    Ok(vec![
        row("daemon, resident", resident / 1024.0, "MiB", 100.0, format!("{} servers", inits.len())),
        row("kiln-init, private, each", median(private), "KiB", 256.0, "median".to_owned()),
    ])
}

/// The daemon's process.
pub fn daemon(state: &Path) -> Outcome<u32> {
    let found = processes(state)?.into_iter().find(|(_, words)| words.iter().any(|word| word == "daemon"));
    found.map(|(pid, _)| pid).ok_or_else(|| "no daemon runs for the state directory".into())
}

/// The processes that have the state directory as an argument: daemon and gateway.
pub fn of_state(state: &Path) -> Outcome<Vec<u32>> {
    Ok(processes(state)?.into_iter().map(|(pid, _)| pid).collect())
}

fn processes(state: &Path) -> Outcome<Vec<(u32, Vec<String>)>> {
    let (state, mut found) = (state.to_string_lossy().into_owned(), Vec::new());
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> =
            line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        if words.contains(&state) {
            found.push((pid, words));
        }
    }
    Ok(found)
}

/// Private memory of a process, KiB.
pub fn private(pid: u64) -> Outcome<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    Ok(field(&path, "Private_Clean:")? + field(&path, "Private_Dirty:")?)
}

/// A field of a file of `/proc`, KiB.
fn field(path: &str, name: &str) -> Outcome<f64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("{path} has no {name}"))?;
    Ok(line.split_whitespace().next().ok_or("an empty field")?.parse()?)
}
