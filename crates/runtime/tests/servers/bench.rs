//! A runtime of its own for each test, on directories of its own, and a small image to launch.

use std::{
    collections::BTreeMap,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::{PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kiln_model::{
    Digest, FrozenConfig, ImageDigest, ImageManifest, ServerId, VerifiedRelease,
    config::Secrets,
    fleet::Limits,
    manifest::{Service, Stop, Writable, WritableKind},
    size::ByteSize,
    trust,
};
use kiln_runtime::{BoxError, Observed, Output, Phase, Request, RootProvider, Runtime, RuntimeOptions, protocol::Exec};
use kiln_sys::mount;
use rustix::fs::CWD;
use tempfile::TempDir;

/// A directory as the root of every image.
pub struct Directory(pub PathBuf);

impl RootProvider for Directory {
    fn root(&self, _: &ImageDigest, users: BorrowedFd<'_>) -> Result<OwnedFd, BoxError> {
        let tree = mount::clone_tree(CWD, &self.0, mount::Depth::One)?;
        mount::restrict(tree.as_fd(), mount::Depth::One, mount::Attributes::READ_ONLY)?;
        mount::map_owners(tree.as_fd(), users)?;
        Ok(tree)
    }
}

/// One state directory.
pub struct Bench {
    pub runtime: Option<Runtime>,
    pub options: RuntimeOptions,
    directory: PathBuf,
    _owned: Option<TempDir>,
}

impl Bench {
    /// Without a network, and with few places made ahead.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("kiln-t").tempdir().unwrap();
        Self::at(directory, |_| ())
    }

    pub fn with(change: impl FnOnce(&mut RuntimeOptions)) -> Self {
        let directory = tempfile::Builder::new().prefix("kiln-t").tempdir().unwrap();
        Self::at(directory, change)
    }

    fn at(directory: TempDir, change: impl FnOnce(&mut RuntimeOptions)) -> Self {
        std::fs::create_dir(directory.path().join("state")).unwrap();
        make_root(&directory.path().join("root"));
        let path = directory.path().to_owned();
        Self::open(path, Some(directory), change)
    }

    /// On the directory of another bench, which removes it.
    pub fn again(directory: &Path, change: impl FnOnce(&mut RuntimeOptions)) -> Self {
        Self::open(directory.to_owned(), None, change)
    }

    fn open(directory: PathBuf, owned: Option<TempDir>, change: impl FnOnce(&mut RuntimeOptions)) -> Self {
        let (state_dir, run_dir) = (directory.join("state"), directory.join("run"));
        let id = Digest::of(directory.as_os_str().as_encoded_bytes()).hex()[..8].to_owned();
        let mut options =
            RuntimeOptions { state_dir, run_dir, id, network: None, berths: 1, spool_bytes: 1 << 20, probe: None };
        change(&mut options);
        let mut bench = Self { runtime: None, options, directory, _owned: owned };
        bench.reopen();
        bench
    }

    /// Closes the runtime, as a daemon that ends, and opens it again.
    pub fn reopen(&mut self) {
        self.runtime = None;
        let roots = Arc::new(Directory(self.root()));
        self.runtime = Some(Runtime::open(self.options.clone(), roots).unwrap());
    }

    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().unwrap()
    }

    pub fn launch(&self, name: &str, manifest: ImageManifest) -> Observed {
        self.try_launch(name, 1, manifest, NO_LIMITS).unwrap()
    }

    pub fn try_launch(
        &self,
        name: &str,
        generation: u64,
        manifest: ImageManifest,
        limits: Limits,
    ) -> kiln_runtime::Result<Observed> {
        let request = Request { generation, limits, ..request(name, manifest) };
        self.runtime().launch(&release(), &request)
    }

    /// Launches with a configuration.
    pub fn configured(
        &self,
        name: &str,
        manifest: ImageManifest,
        config: FrozenConfig,
        secrets: Secrets,
    ) -> kiln_runtime::Result<Observed> {
        let request = Request { secrets: Arc::new(secrets), ..request(name, manifest) };
        let release = trust::admit_for_test(ImageDigest(Digest::of(b"busybox")), config);
        self.runtime().launch(&release, &request)
    }

    /// Runs a shell script inside, as a user.
    pub fn shell_as(&self, name: &str, user: &str, script: &str) -> Output {
        let exec = Exec {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            user: user.to_owned(),
            environment: Vec::new(),
            directory: None,
            terminal: None,
        };
        // An emulated processor, of which a server has a tenth, is slow.
        self.runtime().exec(&id(name), exec, Duration::from_secs(90), 1 << 20).unwrap()
    }

    /// Runs a shell script inside, as root; its output.
    pub fn shell(&self, name: &str, script: &str) -> String {
        let output = self.shell_as(name, "root", script);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    /// Waits until the server has ended; why it did.
    pub fn wait_for_end(&self, name: &str) -> String {
        let mut reason = None;
        eventually(|| {
            let servers = self.runtime().observe().unwrap();
            let server = servers.into_iter().find(|server| server.record.server == id(name)).unwrap();
            if let Phase::Exited { reason: why, .. } = server.phase {
                reason = Some(why);
            }
            reason.is_some()
        });
        reason.unwrap()
    }

    /// Control groups and processes that this state directory has on the host.
    pub fn left_on_host(&self) -> Vec<String> {
        let mut left = Vec::new();
        let host = kiln_sys::cgroup::Host::detect().unwrap();
        let group = host.group(&format!("kiln/{}", self.options.id));
        for child in group.children().unwrap() {
            let pids = host.group(&format!("kiln/{}/{child}", self.options.id)).processes().unwrap();
            left.push(format!("control group {child} with {pids:?}"));
        }
        for directory in [self.options.run_dir.join("servers"), self.options.state_dir.join("spool")] {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            left.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        left
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.purge().unwrap();
        }
    }
}

pub const NO_LIMITS: Limits = Limits { memory: None, cpu_millis: None, pids: None };

/// The first launch of a server without limits, with nothing beside its image.
pub fn request(server: &str, manifest: ImageManifest) -> Request {
    Request {
        server: id(server),
        generation: 1,
        group: None,
        slot: None,
        manifest: Arc::new(manifest),
        limits: NO_LIMITS,
        secrets: Arc::default(),
        volumes: Vec::new(),
        shared: Vec::new(),
        times: Default::default(),
    }
}

pub fn id(name: &str) -> ServerId {
    name.parse().unwrap()
}

pub fn release() -> VerifiedRelease {
    let environment = BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]);
    trust::admit_for_test(ImageDigest(Digest::of(b"busybox")), FrozenConfig::of_environment(environment))
}

pub fn eventually(mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "it did not happen within 20 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An image with one service, a shell script.
pub fn image(script: &str) -> ImageManifest {
    let services = BTreeMap::from([("main".parse().unwrap(), service(script))]);
    ImageManifest::new("busybox".parse().unwrap(), services)
}

pub fn service(script: &str) -> Service {
    let stop = Stop { signal: "SIGTERM".into(), grace: Duration::from_secs(5) };
    Service { stop, ..Service::new(["/bin/sh", "-c", script].map(str::to_owned).to_vec()) }
}

pub fn writable(path: &str, kind: WritableKind) -> Writable {
    Writable { path: path.into(), kind, user: "web".into(), mode: 0o750 }
}

pub fn tmpfs(size: u64) -> WritableKind {
    WritableKind::Tmpfs { size: ByteSize::bytes(size) }
}

/// Sleeps until it is asked to stop.
pub const IDLE: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done";

pub fn make_root(root: &Path) {
    for directory in ["bin", "etc", "proc", "sys", "dev", "run", "tmp", "var/tmp", "var/data", "root", "mnt"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let applets = std::process::Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(applets).unwrap().lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    let files = [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/data:/bin/sh\n"),
        ("etc/group", "root:x:0:\nweb:x:33:\nextra:x:50:web\n"),
        ("etc/hosts", ""),
        ("etc/hostname", ""),
        ("etc/resolv.conf", ""),
        ("var/data/seed", "from the image\n"),
    ];
    for (path, content) in files {
        std::fs::write(root.join(path), content).unwrap();
    }
    std::os::unix::fs::chown(root.join("var/data"), Some(33), Some(33)).unwrap();
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755)).unwrap();
}
