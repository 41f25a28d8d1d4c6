//! Benchmarks: Kiln beside its peers, in one run, so that every figure is a ratio and no stored number is compared.
//!
//! Each drives the real `kiln` (release) with a state directory of its own, and writes rows; `bench/results.md` and
//! `bench/results.json` hold the last run. What a peer needs is looked for on the host; a peer that is not there is left
//! out and the row says so.

mod askers;
mod bake;
mod containerfile;
mod debs;
mod delivery;
mod figures;
mod gateway;
mod goss;
mod handover;
mod heal;
mod http;
mod import;
mod kiln;
mod launch;
mod load;
mod logs;
mod many;
mod memory;
mod metadata;
mod peers;
mod planner;
mod provision;
mod registry;
mod replace;
mod report;
mod soak;
mod survey;
mod volume;
mod wear;
mod whole;

use std::path::PathBuf;

use clap::Args;

use crate::{
    Outcome,
    command::{build_kiln, is_root, root},
    tools::{self, Missing},
};
use report::Row;

/// Options of `bench`.
#[derive(Args)]
pub struct Options {
    /// Only those whose name contains this: launch, delivery, whole, bake, containerfile, import, replace, gateway, heal, memory,
    /// many, metadata, volume, handover, logs, goss, planner, provision, soak, wear, survey.
    only: Option<String>,
    /// Take the median of so many.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load per round.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Measure this `kiln`, built for release, in place of building one.
    #[arg(long, value_name = "PROGRAM")]
    kiln: Option<PathBuf>,
    /// Install missing programs with apt-get (also done when CI=true).
    #[arg(long)]
    install: bool,
}

/// What each benchmark is given.
pub struct Bench {
    /// The `kiln` under test.
    pub kiln: PathBuf,
    /// A directory for state and copies, on the same disk as the workspace.
    pub work: PathBuf,
    pub rounds: usize,
    pub seconds: u32,
}

type Run = fn(&Bench) -> Outcome<Vec<Row>>;

const ALL: &[(&str, Run)] = &[
    ("launch", launch::run),
    ("delivery", delivery::run),
    ("whole", whole::run),
    ("bake", bake::run),
    ("containerfile", containerfile::run),
    ("import", import::run),
    ("replace", replace::run),
    ("gateway", gateway::run),
    ("heal", heal::run),
    ("memory", memory::run),
    ("many", many::run),
    ("metadata", metadata::run),
    ("volume", volume::run),
    ("handover", handover::run),
    ("logs", logs::run),
    ("goss", goss::run),
    ("planner", planner::run),
    ("provision", provision::run),
    ("soak", soak::run),
    ("wear", wear::run),
    ("survey", survey::run),
];

/// Runs them. One that fails does not keep the others from being run.
pub fn run(options: &Options) -> Outcome {
    if !is_root() {
        return Err("benchmarks launch servers, which needs root".into());
    }
    tools::need(tools::BENCH, Missing::from_flag(options.install))?;
    let work = root().join("target/bench");
    std::fs::create_dir_all(&work)?;
    let kiln = options.kiln.as_ref().map_or_else(|| build_kiln(true), |kiln| Ok(kiln.canonicalize()?))?;
    let bench = Bench { kiln, work, rounds: options.rounds.max(1), seconds: options.seconds };
    let wanted = options.only.as_deref().unwrap_or_default();
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for (name, run) in ALL.iter().filter(|(name, _)| name.contains(wanted)) {
        eprintln!("\n# {name}");
        match run(&bench) {
            Ok(new) => rows.extend(new),
            Err(error) => failed.push(format!("{name}: {error}")),
        }
    }
    let ran: Vec<&str> = ALL.iter().map(|(name, _)| *name).filter(|name| name.contains(wanted)).collect();
    report::write(&rows, &failed, &ran)?;
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n       ").into()) }
}

/// The daemon of a state directory.
pub fn daemon_of(state: &std::path::Path) -> Outcome<u32> {
    memory::daemon(state)
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value below which this share of the values is.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get((values.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN)
}

/// The median of so many runs.
pub fn median_of(rounds: usize, mut run: impl FnMut() -> Outcome<f64>) -> Outcome<f64> {
    (0..rounds).map(|_| run()).collect::<Outcome<Vec<_>>>().map(median)
}
