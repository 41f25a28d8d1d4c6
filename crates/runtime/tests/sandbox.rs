//! Root tests of the build sandbox: what commands can do, what they cannot, and what is left of them.
#![allow(missing_docs)]

#[path = "sandbox/bench.rs"]
mod bench;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use bench::Bench;
use kiln_runtime::sandbox::{Bind, Outcome};

#[test]
fn root_a_command_is_root_over_its_tree_and_its_files_are_roots_on_disk() {
    let mut bench = Bench::new();
    let ran =
        bench.shell("id -u; echo new > /etc/new; echo x > /etc/other; chown 1000:1000 /etc/other; rm /etc/group").ok();
    assert_eq!(ran.stdout, "0\n");
    let owner = |path: &str| {
        let found = fs::metadata(ran.upper.join(path)).unwrap();
        (found.uid(), found.gid())
    };
    assert_eq!(owner("etc/new"), (0, 0));
    assert_eq!(owner("etc/other"), (1000, 1000));
    assert_eq!(fs::metadata(ran.upper.join("etc/group")).unwrap().rdev(), 0, "a whiteout");
    assert!(!bench.path().join("lower/etc/new").exists());
}

#[test]
fn root_output_exit_code_environment_and_place_are_the_jobs() {
    let mut bench = Bench::new();
    let mut job = bench.job(&["/bin/sh", "-c", "echo out; echo err >&2; echo $COLOUR; pwd; hostname; exit 7"]);
    job.environment.push(("COLOUR".into(), "blue".into()));
    job.working_directory = "/var".into();
    let ran = bench.run(job).unwrap();
    assert_eq!(ran.outcome, Outcome::Exited(7));
    assert_eq!(ran.stdout, "out\nblue\n/var\nbuild\n");
    assert_eq!(ran.stderr, "err\n");
}

#[test]
fn root_nothing_outside_the_tree_is_written_to_it() {
    let mut bench = Bench::new();
    let ran = bench.shell("touch /run/a /tmp/b /dev/shm/c; echo x > /dev/null; ls /proc/self/fd > /tmp/d").ok();
    assert_eq!(fs::read_dir(&ran.upper).unwrap().count(), 0);
}

#[test]
fn root_host_paths_are_shown_below_run_only() {
    let mut bench = Bench::new();
    let source = bench.path().join("shown");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    let mut job =
        bench.job(&["/bin/sh", "-c", "cat /run/kiln/in/file; stat -c %u /run/kiln/in/file; touch /run/kiln/in/x"]);
    job.binds.push(Bind { source: source.clone(), target: "/run/kiln/in".into(), writable: false });
    let ran = bench.run(job).unwrap();
    assert_eq!(ran.stdout, "content0\n");
    assert!(ran.stderr.contains("Read-only file system"), "{}", ran.stderr);
    for target in ["/etc/x", "/run/../etc", "/run", "relative"] {
        let mut job = bench.job(&["/bin/true"]);
        job.binds.push(Bind { source: source.clone(), target: target.into(), writable: false });
        assert!(bench.run(job).is_err(), "{target}");
    }
}

#[test]
fn root_a_command_that_runs_too_long_is_stopped_with_all_its_processes() {
    let mut bench = Bench::new();
    let mut job = bench.job(&["/bin/sh", "-c", "setsid sleep 1234.5 & sleep 1234.5"]);
    job.time_limit = Duration::from_millis(300);
    let start = Instant::now();
    let ran = bench.run(job).unwrap();
    assert_eq!(ran.outcome, Outcome::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(ran.stderr.contains("ran longer than 300ms"), "{}", ran.stderr);
}

#[test]
fn root_a_command_starts_quickly() {
    let mut bench = Bench::new();
    let mut times: Vec<_> = (0..20)
        .map(|_| {
            let job = bench.job(&["/bin/true"]);
            let start = Instant::now();
            bench.run(job).unwrap().ok();
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("one command: median {:?}, slowest {:?}", times[10], times[19]);
    assert!(times[10] < Duration::from_millis(100));
}
