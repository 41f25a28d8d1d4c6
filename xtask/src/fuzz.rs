//! `cargo xtask fuzz`: every parser of bytes from outside, fed with what nobody would write.
//!
//! The targets are the programs of `fuzz/`, a workspace of its own that nothing else builds. They are built with the installed
//! toolchain: the compiler counts the edges of the code (`SanitizerCoverage`), libFuzzer of `libfuzzer-sys` looks for inputs that
//! reach new ones. No sanitizer is used, which only nightly compilers have: the code is safe Rust with overflow checks and
//! assertions on. An input may need so much memory and time ([`MEMORY`], [`TIME`]) and no more.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;

use crate::{
    Outcome,
    command::{cargo, root, run, target_dir},
};

/// What one input may need, MiB: of which about 100 are the program's own.
const MEMORY: u32 = 768;
/// How long one input may take, seconds.
const TIME: u32 = 10;
/// Longest input, bytes.
const LENGTH: u32 = 64 << 10;
#[cfg(target_arch = "x86_64")]
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
#[cfg(target_arch = "aarch64")]
const TRIPLE: &str = "aarch64-unknown-linux-gnu";

/// As `cargo fuzz run -s none` builds (cargo-fuzz, `project.rs`).
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// Options of `fuzz`.
#[derive(Args)]
pub struct Options {
    /// Only this target; all of them where none is named.
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Targets at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Begin from this number, so that a run can be repeated; from a new one each time where none is said.
    #[arg(long)]
    seed: Option<u32>,
    /// Add what was found to `fuzz/corpus`, as few files as reach the same code.
    #[arg(long)]
    keep: bool,
    /// Run the target once with this input, as a finding is repeated.
    #[arg(long, value_name = "FILE", requires = "target", conflicts_with_all = ["keep", "seconds", "jobs", "seed"])]
    input: Option<PathBuf>,
}

/// Runs the targets. What fails is kept, and all of it is said at the end.
pub fn run_all(options: &Options) -> Outcome {
    let targets = targets(options.target.as_deref())?;
    let built = build(options.target.as_deref())?;
    if let (Some(input), [target]) = (&options.input, &targets[..]) {
        let mut once = limited(&built.join(target), target, &places(target)?);
        return run(once.arg(input));
    }
    let queue = Mutex::new(targets.iter());
    let failed = Mutex::new(Vec::new());
    let next = || queue.lock().expect("no holder panics").next();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while let Some(target) = next() {
                    if let Err(error) = one(&built, target, options) {
                        failed.lock().expect("no holder panics").push(error.to_string());
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no holder panics");
    println!("fuzz: {} passed, {} failed", targets.len() - failed.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n       ").into()) }
}

fn targets(only: Option<&str>) -> Outcome<Vec<String>> {
    let mut names = Vec::new();
    for file in fs::read_dir(root().join("fuzz/fuzz_targets"))? {
        let name = file?.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
        names.push(name);
    }
    names.sort();
    names.retain(|name| only.is_none_or(|only| only == name));
    if names.is_empty() { Err("there is no such target: see fuzz/fuzz_targets".into()) } else { Ok(names) }
}

/// Builds the targets with the versions of the workspace's lock, and returns their directory.
fn build(only: Option<&str>) -> Outcome<PathBuf> {
    let directory = target_dir()?.join("fuzz");
    fs::create_dir_all(&directory)?;
    fs::copy(root().join("Cargo.lock"), root().join("fuzz/Cargo.lock"))?;
    let mut build = cargo();
    build.args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", TRIPLE]);
    match only {
        Some(target) => build.args(["--bin", target]),
        None => build.arg("--bins"),
    };
    // Half of all that is built is for these targets alone.
    if only.is_none_or(|target| matches!(target, "zookeeper" | "relp")) {
        build.args(["--features", "kiln-control"]);
    }
    run(build.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &directory))?;
    Ok(directory.join(TRIPLE).join("release"))
}

/// Where a target's inputs are.
struct Places {
    /// In the repository.
    kept: PathBuf,
    /// What this machine found.
    found: PathBuf,
    /// What failed: `TARGET-crash-…`.
    failed: PathBuf,
}

fn places(target: &str) -> Outcome<Places> {
    let work = target_dir()?.join("fuzz");
    let places = Places {
        kept: root().join("fuzz/corpus").join(target),
        found: work.join("corpus").join(target),
        failed: work.join("failed"),
    };
    for directory in [&places.kept, &places.found, &places.failed] {
        fs::create_dir_all(directory)?;
    }
    Ok(places)
}

fn one(built: &Path, target: &str, options: &Options) -> Outcome {
    let places = places(target)?;
    let log = target_dir()?.join("fuzz").join(format!("{target}.log"));
    let program = built.join(target);
    let mut fuzz = limited(&program, target, &places);
    fuzz.arg(format!("-max_total_time={}", options.seconds)).arg("-print_final_stats=1");
    fuzz.args(options.seed.map(|seed| format!("-seed={seed}")));
    fuzz.args([&places.found, &places.kept]);
    let file = fs::File::create(&log)?;
    let status = fuzz.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).status()?;
    let said = fs::read_to_string(&log)?;
    println!("{target}: {}", summary(&said));
    if !status.success() {
        let (end, log) = (tail(&said), log.display());
        return Err(
            format!("{target} failed ({status}); all it said is in {log}:\n{end}\n{}", finding(target, &said)).into()
        );
    }
    if options.keep {
        keep(&program, target, &places)?;
    }
    Ok(())
}

fn limited(program: &Path, target: &str, places: &Places) -> Command {
    let mut fuzz = Command::new(program);
    fuzz.arg(format!("-artifact_prefix={}/{target}-", places.failed.display()));
    fuzz.args([format!("-rss_limit_mb={MEMORY}"), format!("-timeout={TIME}"), format!("-max_len={LENGTH}")]);
    fuzz
}

/// The input that failed and how to repeat it: in full, because what a machine of CI keeps may be its output alone.
fn finding(target: &str, said: &str) -> String {
    let Some(input) =
        said.lines().rev().find_map(|line| line.split_once("Test unit written to ").map(|(_, file)| file))
    else {
        return "no input was named: it failed before the first, or after the last one".into();
    };
    let repeat = format!("repeat it: cargo xtask fuzz {target} --input {input}");
    match fs::read(input) {
        Ok(bytes) => {
            format!("{repeat}\nelsewhere: base64 -d > {target}-input <<'END'\n{}\nEND", STANDARD.encode(bytes))
        }
        Err(error) => format!("{repeat}\n(which cannot be read: {error})"),
    }
}

/// Copies into the repository what reaches code that its corpus does not: small files, and few.
fn keep(program: &Path, target: &str, places: &Places) -> Outcome {
    let mut merge = limited(program, target, places);
    merge.args(["-set_cover_merge=1", "-max_len=4096"]).args([&places.kept, &places.found]);
    let status = merge.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{target}: its corpus could not be merged: {status}").into()) }
}

/// Runs, runs in a second, edges.
fn summary(said: &str) -> String {
    let stat = |name: &str| {
        let value = said.lines().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
        value.map_or("?", |value| value.trim_start_matches(':').trim()).to_owned()
    };
    let edges = said.lines().rev().find_map(|line| line.split_once(" cov: ")?.1.split(' ').next()).unwrap_or("?");
    format!("{} runs, {} per second, {edges} edges", stat("number_of_executed_units"), stat("average_exec_per_sec"))
}

fn tail(said: &str) -> String {
    let lines: Vec<_> = said.lines().filter(|line| !line.starts_with('#')).collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_a_finding_is_shown_in_full_with_the_command_that_repeats_it() {
        let file = std::env::temp_dir().join(format!("kiln-finding-{}", std::process::id()));
        fs::write(&file, b"a bad\0layer").expect("written");
        let said = format!("#2 NEW\n==1== ERROR\nartifact_prefix='x'; Test unit written to {}\n", file.display());
        let shown = finding("layer", &said);
        fs::remove_file(&file).expect("removed");
        assert!(shown.contains(&format!("cargo xtask fuzz layer --input {}", file.display())), "{shown}");
        assert!(shown.contains("YSBiYWQAbGF5ZXI="), "{shown}");
        assert!(finding("layer", &said).contains("cannot be read"), "it is gone now");
        assert!(finding("layer", "it did not start").contains("no input was named"));
    }
}
