//! The local engine passes the suite: real servers in namespaces, with busybox as the image and a directory as its root.

use std::{
    collections::BTreeMap,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::symlink,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kiln_engine::{Engine, Observed, local::LocalEngine};
use kiln_model::{
    Digest, FrozenConfig, ImageDigest, ImageManifest, VerifiedRelease,
    manifest::{Restart, Service, Stop},
    trust,
};
use kiln_runtime::{BoxError, RootProvider, Runtime, RuntimeOptions};
use kiln_sys::mount;
use kiln_testkit::conformance::{self, Factory};
use rustix::fs::CWD;

/// A directory as the root of every image.
struct Directory(PathBuf);

impl RootProvider for Directory {
    fn root(&self, _: &ImageDigest, users: BorrowedFd<'_>) -> Result<OwnedFd, BoxError> {
        let tree = mount::clone_tree(CWD, &self.0, mount::Depth::One)?;
        mount::restrict(tree.as_fd(), mount::Depth::One, mount::Attributes::READ_ONLY)?;
        mount::map_owners(tree.as_fd(), users)?;
        Ok(tree)
    }
}

/// One state directory; every engine of the suite is over it, so `reopened` finds what the one before left.
struct Host {
    directory: tempfile::TempDir,
    runtime: Mutex<Option<Arc<Runtime>>>,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("kiln-t").tempdir().unwrap();
        std::fs::create_dir(directory.path().join("state")).unwrap();
        make_root(&directory.path().join("root"));
        Self { directory, runtime: Mutex::default() }
    }
    fn open(&self) -> Arc<dyn Engine> {
        let options = RuntimeOptions::for_state(&self.directory.path().join("state")).unwrap();
        let roots = Arc::new(Directory(self.directory.path().join("root")));
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        *runtime = None;
        // A launch that nobody waits for any more holds the one before until it is through.
        let deadline = Instant::now() + Duration::from_secs(10);
        let opened = loop {
            match Runtime::open(options.clone(), roots.clone()) {
                Ok(opened) => break Arc::new(opened),
                Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        *runtime = Some(opened.clone());
        Arc::new(LocalEngine::new(opened))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Also after a check that failed, nothing stays on the host.
        drop(self.open());
        if let Some(runtime) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() {
            runtime.purge().unwrap();
        }
    }
}

#[async_trait::async_trait]
impl Factory for Host {
    async fn engine(&self) -> Arc<dyn Engine> {
        self.open()
    }
    async fn reopened(&self, engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
        drop(engine);
        self.open()
    }
    fn release(&self) -> VerifiedRelease {
        trust::admit_for_test(ImageDigest(Digest::of(b"busybox")), FrozenConfig::default())
    }
    fn manifest(&self) -> Arc<ImageManifest> {
        let idle = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done";
        let service = Service {
            command: ["/bin/sh", "-c", idle].map(str::to_owned).to_vec(),
            user: "root".into(),
            environment: BTreeMap::new(),
            working_directory: "/".into(),
            ports: Vec::new(),
            readiness: None,
            stop: Stop { signal: "SIGTERM".into(), grace: Duration::from_secs(5) },
            restart: Restart::Never,
        };
        let services = BTreeMap::from([("main".parse().unwrap(), service)]);
        Arc::new(ImageManifest { version: 1, name: "busybox".parse().unwrap(), services, writable: Vec::new() })
    }
    async fn kill(&self, _engine: &Arc<dyn Engine>, server: &Observed) {
        let pid = i32::try_from(server.pid.unwrap()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn engine_local_passes_the_suite() {
    conformance::run(&Host::new()).await;
}

fn make_root(root: &Path) {
    for directory in ["bin", "etc", "proc", "sys", "dev", "run", "tmp", "var/tmp", "root"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let applets = std::process::Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(applets).unwrap().lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    for (path, content) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/hosts", ""),
        ("etc/hostname", ""),
        ("etc/resolv.conf", ""),
    ] {
        std::fs::write(root.join(path), content).unwrap();
    }
}
