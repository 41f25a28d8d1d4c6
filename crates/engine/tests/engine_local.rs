//! The local engine keeps the contract of engines, with busybox as the image and a directory of the host as its root.
#![allow(missing_docs)]

// The same small image that the runtime's tests launch; they use more of that file.
#[allow(dead_code)]
#[path = "../../runtime/tests/servers/bench.rs"]
mod bench;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use kiln_engine::{Engine, Observed, local::LocalEngine};
use kiln_model::{ImageManifest, VerifiedRelease};
use kiln_runtime::{Runtime, RuntimeOptions, network::NetworkOptions};
use kiln_testkit::conformance::{self, Factory};
use tempfile::TempDir;

/// Makes engines on directories of their own, and removes what they made in the end.
#[derive(Default)]
struct Local {
    opened: Mutex<BTreeMap<usize, (RuntimeOptions, TempDir)>>,
}

impl Local {
    fn open(&self, number: usize) -> Arc<dyn Engine> {
        let opened = self.opened.lock().unwrap();
        let (options, directory) = &opened[&number];
        let roots = Arc::new(bench::Directory(directory.path().join("root")));
        Arc::new(LocalEngine::new(Arc::new(Runtime::open(options.clone(), roots).unwrap())))
    }
}

#[async_trait::async_trait]
impl Factory for Local {
    async fn engine(&self) -> Arc<dyn Engine> {
        let directory = tempfile::Builder::new().prefix("kiln-e").tempdir().unwrap();
        let (state_dir, run_dir) = (directory.path().join("state"), directory.path().join("run"));
        std::fs::create_dir(&state_dir).unwrap();
        bench::make_root(&directory.path().join("root"));
        let id = kiln_model::Digest::of(directory.path().as_os_str().as_encoded_bytes()).hex()[..8].to_owned();
        let network = Some(NetworkOptions {
            id: id.clone(),
            run_dir: run_dir.clone(),
            shared_dir: "/run/kiln".into(),
            subnet: None,
            offered_ports: Vec::new(),
        });
        let options = RuntimeOptions { state_dir, run_dir, id, network, berths: 2, spool_bytes: 1 << 20, probe: None };
        let number = self.opened.lock().unwrap().len();
        self.opened.lock().unwrap().insert(number, (options, directory));
        self.open(number)
    }

    async fn reopened(&self, engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
        drop(engine);
        let last = self.opened.lock().unwrap().len() - 1;
        self.open(last)
    }

    fn release(&self) -> VerifiedRelease {
        bench::release()
    }

    fn manifest(&self) -> Arc<ImageManifest> {
        Arc::new(bench::image(bench::IDLE))
    }

    async fn kill(&self, _: &Arc<dyn Engine>, server: &Observed) {
        let pid = rustix::process::Pid::from_raw(server.pid.unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        for (options, directory) in std::mem::take(&mut *self.opened.lock().unwrap()).into_values() {
            let roots = Arc::new(bench::Directory(directory.path().join("root")));
            Runtime::open(options, roots).unwrap().purge().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn engine_local_keeps_the_contract() {
    conformance::run(&Local::default()).await;
}
