//! Runs each test in a process of its own, as cargo-nextest does, where that is not installed. Tests of namespaces and
//! mounts change the thread they run on, so they cannot share a process.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::Mutex,
    time::Instant,
};

use serde::Deserialize;

use crate::{
    Outcome,
    command::{cargo, output, run as run_command},
};

/// A test that takes longer has failed, seconds.
const LIMIT: &str = "300";

/// One test of one program.
struct Test {
    program: PathBuf,
    directory: PathBuf,
    name: String,
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Builds the tests, then runs them, as many at a time as there are processors.
pub fn run(chosen: &[&str]) -> Outcome {
    run_command(cargo().args(["test", "--no-run"]).args(chosen))?;
    let tests = find(chosen)?;
    let (queue, failed) = (Mutex::new(tests.iter()), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let Some(test) = queue.lock().expect("no panic while held").next() else { return };
                    if let Err(said) = run_one(test) {
                        failed.lock().expect("no panic while held").push((test, said));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic while held");
    report(tests.len(), &failed)
}

fn report(total: usize, failed: &[(&Test, String)]) -> Outcome {
    for (test, said) in failed {
        eprintln!("\n---- {} of {}\n{said}", test.name, test.program.display());
    }
    eprintln!("{total} tests, {} failed", failed.len());
    if failed.is_empty() { Ok(()) } else { Err(format!("{} of {total} tests failed", failed.len()).into()) }
}

fn find(chosen: &[&str]) -> Outcome<Vec<Test>> {
    let built = output(cargo().args(["test", "--no-run", "--message-format=json"]).args(chosen))?;
    let mut tests = Vec::new();
    for line in String::from_utf8(built.stdout)?.lines() {
        let message: Message = serde_json::from_str(line)?;
        let (Some(program), Some(manifest), Some(true)) =
            (message.executable, message.manifest_path, message.profile.map(|p| p.test))
        else {
            continue;
        };
        debug_assert_eq!(message.reason, "compiler-artifact");
        let directory = manifest.parent().ok_or("a manifest has a directory")?.to_owned();
        tests.extend(list(&program)?.into_iter().map(|name| Test {
            program: program.clone(),
            directory: directory.clone(),
            name,
        }));
    }
    Ok(tests)
}

fn list(program: &PathBuf) -> Outcome<Vec<String>> {
    let listed = output(Command::new(program).args(["--list", "--format", "terse"]))?;
    let text = String::from_utf8(listed.stdout)?;
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

fn run_one(test: &Test) -> Result<(), String> {
    let start = Instant::now();
    let ran = Command::new("timeout")
        .args(["--kill-after=10", LIMIT])
        .arg(&test.program)
        .args(["--exact", &test.name, "--nocapture"])
        .current_dir(&test.directory)
        .env("CARGO_MANIFEST_DIR", &test.directory)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| e.to_string())?;
    let passed = ran.status.success();
    let word = if passed { "pass" } else { "FAIL" };
    eprintln!("{word} {:>8.3}s {}", start.elapsed().as_secs_f64(), test.name);
    let said = || String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    if passed { Ok(()) } else { Err(said()) }
}
