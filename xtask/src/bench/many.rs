//! A hundred servers launched at once, and then a thousand (a bridge has places for few more): what each costs, and what the
//! daemon does while nothing happens.

use std::time::{Duration, Instant};

use super::{
    Bench,
    kiln::Kiln,
    memory, peers,
    report::{Row, Target},
};
use crate::Outcome;

/// Launched at once.
const TOGETHER: u32 = 100;
/// Running at once.
const SERVERS: u32 = 1000;
/// The daemon is watched for so long while nothing happens.
const REST: Duration = Duration::from_secs(20);

/// Seconds; memory of the daemon, the gateway and every PID 1, divided; share of a core.
pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    let kiln = Kiln::fresh(bench, "many", "hello")?;
    kiln.edit("fleet.toml", "count = 3", "count = 1")?;
    kiln.edit("fleet.toml", "progress_deadline = \"30s\"", "progress_deadline = \"5m\"")?;
    kiln.up()?;
    kiln.keep_downloads(bench)?;
    kiln.edit("fleet.toml", "count = 1", &format!("count = {}", TOGETHER + 1))?;
    let together = kiln.up()?.seconds;
    let many = grow(&kiln)?;
    kiln.settled(SERVERS)?;
    let (each, parts) = memory_of_each(&kiln)?;
    let resting = resting(&kiln)?;
    let row = |what: String, kiln, unit: &str, target: Option<f64>, note| Row {
        bench: "many".into(),
        what,
        kiln,
        unit: unit.into(),
        peer: None,
        target: target.map(Target::AtMost),
        note,
    };
    Ok(vec![
        row(
            format!("{TOGETHER} servers launched at once, all ready"),
            together,
            "s",
            Some(2.0),
            "`kiln up`".to_owned(),
        ),
        row(
            format!("from {TOGETHER} to {SERVERS} servers, all ready"),
            many,
            "s",
            None,
            format!("{} at the same moment", SERVERS - TOGETHER - 1),
        ),
        row(format!("memory of Kiln for each of {SERVERS} servers"), each, "MiB", Some(2.0), parts),
        row(
            format!("daemon at rest with {SERVERS} servers"),
            resting * 100.0,
            "% of a core",
            Some(1.0),
            format!("over {} s", REST.as_secs()),
        ),
    ])
}

/// To all servers at the same moment.
fn grow(kiln: &Kiln) -> Outcome<f64> {
    kiln.edit("fleet.toml", &format!("count = {}", TOGETHER + 1), &format!("count = {SERVERS}"))?;
    Ok(kiln.up()?.seconds)
}

fn memory_of_each(kiln: &Kiln) -> Outcome<(f64, String)> {
    let servers = kiln.servers()?;
    let pids = servers.iter().filter_map(|server| server["pid"].as_u64());
    let inits = pids.map(memory::private).collect::<Outcome<Vec<_>>>()?.iter().sum::<f64>() / 1024.0;
    let own = memory::of_state(kiln.state())?;
    let programs = own.iter().map(|pid| memory::private(u64::from(*pid))).collect::<Outcome<Vec<_>>>()?;
    let programs = programs.iter().sum::<f64>() / 1024.0;
    #[allow(clippy::cast_precision_loss)]
    let each = (inits + programs) / servers.len() as f64;
    Ok((
        each,
        format!("{programs:.0} MiB of daemon and gateway, {inits:.0} MiB of all PID 1s; the page cache is shared"),
    ))
}

/// The share of a core that the daemon takes while nothing happens.
fn resting(kiln: &Kiln) -> Outcome<f64> {
    let daemon = memory::daemon(kiln.state())?;
    std::thread::sleep(Duration::from_secs(5));
    let (begin, before) = (Instant::now(), peers::processor_time(daemon)?);
    std::thread::sleep(REST);
    Ok((peers::processor_time(daemon)? - before) / begin.elapsed().as_secs_f64())
}
