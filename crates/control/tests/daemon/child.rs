//! The processes: this test program started again, as a daemon or as its gateway. Without the variable, the functions
//! below are tests that do nothing.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kiln_control::{
    daemon::{self, DaemonError, DaemonOptions, GatewayProcess, GatewayTraffic, LocalHost, Parts, Revival, StateLock},
    keys::Keys,
    metadata::Identity,
    sources::keeper::Damping,
    traces::TraceSettings,
};
use kiln_engine::local::LocalEngine;
use kiln_runtime::{Runtime, RuntimeOptions};

use crate::library::Directories;

/// The directory that the processes work in.
pub const DIRECTORY: &str = "KILN_TEST_DIRECTORY";

/// Arguments that make this program one of the functions below.
pub fn arguments(function: &str) -> Vec<OsString> {
    ["--exact", function, "--nocapture"].map(OsString::from).to_vec()
}

/// A file of the directory: the address at which the daemon offers metrics.
pub const METRICS: &str = "metrics";
/// A file of the directory: the address of the collector that the daemon sends traces to.
pub const TRACES: &str = "traces";

fn directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

#[test]
fn gateway() {
    let Some(directory) = directory() else { return };
    let mut options = kiln_gateway::GatewayOptions::new(directory.join("state"));
    options.inherit = true;
    options.workers = Some(1);
    kiln_gateway::run(options).unwrap();
}

#[test]
fn daemon() {
    let Some(directory) = directory() else { return };
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Err(error) = threads.block_on(run(&directory)) {
        println!("DAEMON: {}", kiln_api::error::chain(&error));
        std::process::exit(4);
    }
}

async fn run(directory: &Path) -> Result<(), DaemonError> {
    let state = directory.join("state");
    let lock = StateLock::take(&state)?;
    daemon::log::install(&state).unwrap();
    let keys = Arc::new(Keys::open(&state)?);
    let library = Arc::new(Directories::new(directory, keys.clone()));
    let options = RuntimeOptions { berths: 2, ..RuntimeOptions::for_state(&state).unwrap() };
    let (run_dir, id) = (options.run_dir.clone(), options.id.clone());
    let runtime = Arc::new(Runtime::open(options, library.clone()).unwrap());
    let gateway = GatewayProcess::new(&state, std::env::current_exe().unwrap(), arguments("child::gateway"));
    let metrics = std::fs::read_to_string(directory.join(METRICS)).ok().map(|address| address.parse().unwrap());
    let traces = std::fs::read_to_string(directory.join(TRACES)).ok();
    let traces = TraceSettings::of(traces.as_deref(), &|_| None).unwrap();
    let parts = Parts {
        engine: Arc::new(LocalEngine::new(runtime.clone())),
        library,
        keys,
        identity: Arc::new(Identity::open(&state)?),
        traffic: Arc::new(GatewayTraffic(gateway.clone())),
        gateway: Some(gateway),
        metadata: daemon::metadata(&runtime, &state)?,
        throwaways: Some(daemon::throwaways(&runtime, &run_dir)?),
        host: Arc::new(LocalHost::new(runtime, id, run_dir.clone())),
    };
    // Shorter than for people, so that the tests need not wait.
    let damping = Damping { quiet: Duration::from_millis(300), interval: Duration::from_millis(500) };
    daemon::run(
        lock,
        DaemonOptions { state_dir: state, run_dir, metrics, traces, damping, revival: Revival::Supervisor },
        parts,
    )
    .await
}
