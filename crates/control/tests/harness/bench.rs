//! A runtime of its own for each test, and a directory with busybox as the image.

use std::{
    collections::BTreeMap,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use kiln_api::Event;
use kiln_control::harness::{
    self, ImageTree, Subject, SuiteRun,
    tree::{self, TreeError, TreeFacts},
};
use kiln_engine::{Engine as _, ExecResult, LaunchSpec, local::LocalEngine};
use kiln_model::{
    Digest, FrozenConfig, ImageDigest, ImageManifest, Suite,
    evidence::{Report, TestOutcome, Verdict},
    manifest::{Readiness, Service, ServiceCheck, Stop},
    suite::{Test, TestKind},
};
use kiln_runtime::{BoxError, RootProvider, Runtime, RuntimeOptions};
use kiln_sys::mount;
use rustix::fs::CWD;
use tempfile::TempDir;

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

impl ImageTree for Directory {
    fn facts(&self, _: &ImageDigest) -> Result<TreeFacts, TreeError> {
        let root = std::fs::File::open(&self.0).map_err(|error| TreeError::Mount(Box::new(error)))?;
        tree::scan(root.as_fd())
    }
}

/// One state directory with an engine.
pub struct Bench {
    engine: LocalEngine,
    directory: TempDir,
    pub events: Arc<Mutex<Vec<Event>>>,
    /// The same with the moment of each.
    told: Arc<Mutex<Vec<(Instant, Event)>>>,
}

impl Bench {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("kiln-h").tempdir().unwrap();
        let state = directory.path().join("state");
        std::fs::create_dir(&state).unwrap();
        make_root(&directory.path().join("root"));
        let roots = Arc::new(Directory(directory.path().join("root")));
        let runtime = Runtime::open(RuntimeOptions::for_state(&state).unwrap(), roots).unwrap();
        let engine = LocalEngine::new(Arc::new(runtime));
        Self { engine, directory, events: Arc::default(), told: Arc::default() }
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Copies a program of the host, and the libraries that it needs, to the same paths in the image.
    pub fn program(&self, program: &Path, at: &str) {
        let copy = |from: &Path, at: &str| {
            let to = self.root().join(at.trim_start_matches('/'));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(from, to).unwrap();
        };
        copy(program, at);
        let libraries = std::process::Command::new("ldd").arg(program).output().unwrap().stdout;
        let libraries = String::from_utf8(libraries).unwrap();
        let paths = libraries.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
        paths.for_each(|path| copy(Path::new(path), path));
    }

    /// Runs a command in a server of its own, once its web server answers.
    pub async fn inside(&self, manifest: ImageManifest, command: &[&str]) -> ExecResult {
        self.repeated(manifest, command, 1).await.remove(0).0
    }

    /// How long a command takes that must succeed, so many times.
    pub async fn times(&self, manifest: ImageManifest, command: &[&str], rounds: usize) -> Vec<Duration> {
        let took = |(ran, took): (ExecResult, Duration)| {
            assert_eq!(ran.exit, 0, "{ran:?}");
            took
        };
        self.repeated(manifest, command, rounds).await.into_iter().map(took).collect()
    }

    async fn repeated(&self, manifest: ImageManifest, command: &[&str], rounds: usize) -> Vec<(ExecResult, Duration)> {
        let spec = LaunchSpec {
            server: format!("own-{:08x}", std::process::id()).parse().unwrap(),
            generation: 1,
            group: None,
            slot: None,
            manifest: Arc::new(manifest),
            limits: Default::default(),
            secrets: Arc::default(),
            volumes: Vec::new(),
            shared: Vec::new(),
            times: Default::default(),
        };
        let release = kiln_model::trust::admit_for_test(ImageDigest(Digest::of(b"x")), config());
        let server = self.engine.launch(&release, &spec).await.unwrap();
        let address = (server.address.unwrap(), 8080);
        let answers = async {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), answers).await.expect("the web server answers");
        let command: Vec<String> = command.iter().map(ToString::to_string).collect();
        let inside = self.engine.inside().unwrap();
        let mut all = Vec::new();
        for _ in 0..rounds {
            let start = Instant::now();
            let ran = inside.exec(&spec.server, &command, "root", Duration::from_secs(60), 16 << 20).await.unwrap();
            all.push((ran, start.elapsed()));
        }
        self.engine.destroy(&spec.server, 1).await.unwrap();
        all
    }

    /// From the moment a server's services are ready to the end of a suite's one test on it, which must pass.
    pub async fn time_of_tests(&self, manifest: ImageManifest, tests: Vec<Test>) -> Duration {
        self.told.lock().unwrap().clear();
        let name = format!("{} / ", tests[0].name);
        let run = self.run(manifest, tests).await;
        assert_passed(&run.report);
        let told = self.told.lock().unwrap();
        let at = |wanted: &dyn Fn(&Event) -> bool| told.iter().find(|(_, event)| wanted(event)).expect("it was told").0;
        let ready = at(&|event| matches!(event, Event::TestServerReady { .. }));
        at(&|event| matches!(event, Event::Test { result, .. } if result.name.starts_with(&name))) - ready
    }

    pub async fn run(&self, manifest: ImageManifest, tests: Vec<Test>) -> SuiteRun {
        let subject = Subject {
            volumes: Default::default(),
            name: manifest.name.clone(),
            image: ImageDigest(Digest::of(b"x")),
            manifest: Arc::new(manifest),
            secrets: Arc::default(),
            matrix: None,
            live: Default::default(),
        };
        let tree = Arc::new(Directory(self.root()));
        let events = self.events.clone();
        let told = self.told.clone();
        let events = move |event: Event| {
            told.lock().unwrap().push((Instant::now(), event.clone()));
            events.lock().unwrap().push(event);
        };
        let suite = Suite::of(tests);
        let run = harness::run_suite(&self.engine, tree, &subject, &config(), &suite, None, &events).await.unwrap();
        assert_eq!(self.engine.runtime().observe().unwrap(), [], "test servers are left");
        run
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.engine.runtime().purge().unwrap();
    }
}

fn config() -> FrozenConfig {
    FrozenConfig::of_environment(BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]))
}

/// An image with one service.
pub fn image(service: Service) -> ImageManifest {
    let services = BTreeMap::from([("main".parse().unwrap(), service)]);
    ImageManifest::new("busybox".parse().unwrap(), services)
}

pub fn shell(script: &str) -> Service {
    let stop = Stop { signal: "SIGTERM".into(), grace: Duration::from_secs(2) };
    Service { stop, ..Service::new(["/bin/sh", "-c", script].map(str::to_owned).to_vec()) }
}

/// Busybox's web server with a readiness check.
pub fn web() -> ImageManifest {
    let check = ServiceCheck::Http { port: 8080, path: "/".into() };
    image(Service {
        command: ["/bin/httpd", "-f", "-p", "8080", "-h", "/www"].map(str::to_owned).to_vec(),
        user: "web".into(),
        readiness: Some(Readiness { check, within: Duration::from_secs(10) }),
        ..shell("")
    })
}

/// The limit of every test: long enough for a busy machine.
pub const WITHIN: Duration = Duration::from_millis(1200);

pub fn test(name: &str, kind: TestKind) -> Test {
    Test { name: name.to_owned(), within: WITHIN, kind }
}

/// The outcome of a test of this name.
pub fn outcome<'a>(report: &'a Report, name: &str) -> &'a TestOutcome {
    report.tests.iter().find(|test| test.name == name).unwrap_or_else(|| panic!("no {name} in {report:?}"))
}

/// The message of a test that must have failed.
pub fn failure<'a>(report: &'a Report, name: &str) -> &'a str {
    let outcome = outcome(report, name);
    assert_eq!(outcome.verdict, Verdict::Failed, "{outcome:?}");
    outcome.message.as_deref().unwrap()
}

pub fn assert_passed(report: &Report) {
    let failed: Vec<_> = report.tests.iter().filter(|test| test.verdict == Verdict::Failed).collect();
    assert!(failed.is_empty() && report.verdict == Verdict::Passed, "{failed:#?}");
}

fn make_root(root: &Path) {
    let status = "Package: busybox\nStatus: install ok installed\nVersion: 1:1.35.0-4\n";
    let files = [("www/index.html", "<h1>It works</h1>\n"), ("var/lib/dpkg/status", status)];
    kiln_testkit::busybox::tree(root, &files).unwrap();
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755)).unwrap();
}
