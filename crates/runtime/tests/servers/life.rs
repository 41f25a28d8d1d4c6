//! Launch, stop, failure, adoption, destruction.

use std::time::Duration;

use kiln_runtime::{Phase, Stopped};

use crate::bench::{Bench, IDLE, id, image};

#[test]
fn root_a_server_starts_runs_commands_and_stops_cleanly() {
    let bench = Bench::new();
    let seen = bench.launch("one", image(IDLE));
    assert_eq!(seen.phase, Phase::Running);
    assert!(seen.services[0].up, "{seen:?}");
    assert_eq!(bench.shell("one", "id -u; hostname; echo $GREETING; cat /proc/1/comm"), "0\none\n\nkiln-init\n");
    let stopped = bench.runtime().stop(&id("one"), 1, Duration::from_secs(10)).unwrap();
    assert_eq!(stopped, Stopped::Clean);
    assert_eq!(bench.wait_for_end("one"), "stopped");
    bench.runtime().destroy(&id("one"), 1).unwrap();
    assert_eq!(bench.runtime().observe().unwrap(), []);
    bench.runtime().destroy(&id("one"), 1).unwrap();
}
