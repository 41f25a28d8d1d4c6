//! A launch that fails or is cut off leaves nothing.

use std::{os::unix::process::CommandExt as _, process::Command, sync::Arc};

use kiln_model::volume::Filesystem;
use kiln_runtime::{LaunchStep, Phase};

use crate::{
    bench::{Bench, IDLE, NO_LIMITS, eventually, id, image, tmpfs, writable},
    volumes,
};

/// Set in a copy of this test program that is to be killed in the middle of a launch.
const DIE_AT: &str = "KILN_TEST_DIE_AT";
const DIRECTORY: &str = "KILN_TEST_DIRECTORY";
/// The number with which its server is given a volume, if it is.
const FENCE: &str = "KILN_TEST_FENCE";

#[test]
fn root_a_launch_that_fails_leaves_nothing() {
    let bench = Bench::with(|options| options.berths = 0);
    let mut manifest = image(IDLE);
    manifest.writable = vec![writable("/no/such/directory", tmpfs(4096))];
    let error = bench.try_launch("failing", 1, manifest, NO_LIMITS).unwrap_err();
    assert_eq!(error.to_string(), "PID 1 could not mount tmpfs at /no/such/directory");
    assert_eq!(bench.left_on_host(), Vec::<String>::new());
    bench.launch("failing", image(IDLE));
}

/// Launches and is killed at a step; run by the next test only.
#[test]
fn root_helper_dies_at_a_step_of_a_launch() {
    let (Ok(step), Ok(directory)) = (std::env::var(DIE_AT), std::env::var(DIRECTORY)) else { return };
    let bench = Bench::again(directory.as_ref(), |options| {
        options.probe = Some(Arc::new(move |reached| {
            if format!("{reached:?}") == step {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
            }
        }));
    });
    match std::env::var(FENCE) {
        Ok(fence) => {
            drop(volumes::launch(&bench, "victim", volumes::kept("db.data.0", fence.parse().unwrap())).unwrap())
        }
        Err(_) => drop(bench.launch("victim", image(IDLE))),
    }
}

/// Starts a copy of this program that launches a server and is killed at a step.
fn killed_at(bench: &Bench, step: LaunchStep, fence: Option<u64>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "faults::root_helper_dies_at_a_step_of_a_launch"]);
    command.env(DIE_AT, format!("{step:?}")).env(DIRECTORY, bench.directory()).arg0("kiln-test-victim");
    let status = command.envs(fence.map(|fence| (FENCE, fence.to_string()))).output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status.status), Some(9), "{step:?}: {status:?}");
}

#[test]
fn root_a_launch_with_a_volume_killed_at_any_step_loses_no_line_and_gives_it_to_one_server() {
    let mut bench = Bench::new();
    bench.runtime().volumes().create(&"db.data.0".parse().unwrap(), volumes::SIZE, Filesystem::Ext4).unwrap();
    for (number, step) in LaunchStep::ALL.into_iter().enumerate() {
        bench.runtime = None;
        let fence = 2 * number as u64 + 1;
        killed_at(&bench, step, Some(fence));
        bench.reopen();
        let seen = bench.runtime().observe().unwrap();
        assert_eq!(seen.len(), usize::from(step == LaunchStep::Done), "{step:?}: {seen:?}");
        if step == LaunchStep::Done {
            assert_eq!(bench.shell("victim", "wc -l < /var/data/log"), format!("{number}\n"));
        }
        // Also a victim that runs is not asked.
        volumes::launch(&bench, "next", volumes::kept("db.data.0", fence + 1)).unwrap();
        let seen = bench.runtime().observe().unwrap();
        let running = seen.iter().filter(|server| server.phase == Phase::Running).count();
        assert_eq!(running, 1, "{step:?}: {seen:?}");
        let lines = bench.shell_as("next", "web", "echo line >> /var/data/log && sync && wc -l < /var/data/log");
        assert_eq!(String::from_utf8(lines.stdout).unwrap(), format!("{}\n", number + 1), "{step:?}");
        bench.runtime().destroy(&id("next"), 1).unwrap();
        bench.runtime().destroy(&id("victim"), 1).unwrap();
    }
}

#[test]
fn root_a_launch_killed_at_any_step_leaves_nothing_or_a_server() {
    let mut bench = Bench::new();
    for step in LaunchStep::ALL.into_iter().filter(|step| *step != LaunchStep::Volumes) {
        bench.runtime = None;
        killed_at(&bench, step, None);
        bench.reopen();
        let seen = bench.runtime().observe().unwrap();
        if step == LaunchStep::Done {
            assert_eq!(seen[0].phase, Phase::Running);
            bench.runtime().destroy(&id("victim"), 1).unwrap();
        } else {
            assert_eq!(seen, [], "{step:?}");
        }
        // Places made ahead are not left over: they are made now.
        eventually(|| bench.runtime().berths_ready() == bench.options.berths);
        let left = bench.left_on_host();
        assert_eq!(left.len(), bench.options.berths, "{step:?}: {left:?}");
    }
}

#[test]
fn root_fifty_servers_launch_side_by_side_and_go_again() {
    let bench = Bench::with(|options| options.berths = 8);
    std::thread::scope(|scope| {
        for number in 0..50 {
            let bench = &bench;
            scope.spawn(move || bench.launch(&format!("many-{number}"), image(IDLE)));
        }
    });
    let seen = bench.runtime().observe().unwrap();
    let up = |server: &kiln_runtime::Observed| {
        let services = bench.runtime().services(&server.record.server).unwrap();
        server.phase == Phase::Running && services.len() == 1 && services[0].up
    };
    let wrong: Vec<_> = seen.iter().filter(|server| !up(server)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(bench.runtime().slots().len(), 50);
    std::thread::scope(|scope| {
        for number in 0..50 {
            let bench = &bench;
            scope.spawn(move || bench.runtime().destroy(&id(&format!("many-{number}")), 1).unwrap());
        }
    });
    assert_eq!(bench.runtime().observe().unwrap(), []);
}
