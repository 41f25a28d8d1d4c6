//! A directory with images, and a daemon's process for it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kiln_api::{
    Client, ClientError, Event,
    event::Outcome,
    request::{ApplyRequest, DownRequest, Fresh, Loss, TestRequest},
    status::GroupStatus,
};
use kiln_model::{
    Fleet, Group, GroupName, ImageDigest, ImageManifest, Suite,
    fleet::{EvidencePolicy, Publish, RolloutPolicy},
    manifest::{Protocol, Readiness, Service, ServiceCheck, Stop},
    suite::{Test, TestKind, TextMatch},
};
use tempfile::TempDir;

use crate::{child, library::digest};

/// What takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(40);

pub struct Bench {
    pub directory: TempDir,
    pub daemon: Child,
    pub client: Client,
    /// Whether the state directory is seen only by the daemon.
    small_disk: bool,
}

impl Bench {
    pub async fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("kiln-d").tempdir().unwrap();
        let daemon = start(directory.path());
        let client = Client::new(&directory.path().join("state"));
        let mut bench = Self { directory, daemon, client, small_disk: false };
        bench.wait_until_it_answers().await;
        bench
    }

    /// A daemon whose state directory is a file system of so many mebibytes, in a mount namespace of its own.
    pub async fn with_small_disk(mebibytes: u32) -> Self {
        let directory = tempfile::Builder::new().prefix("kiln-d").tempdir().unwrap();
        let state = directory.path().join("state");
        fs::create_dir(&state).unwrap();
        let script = format!("mount -t tmpfs -o size={mebibytes}m,mode=700 small {} && exec \"$@\"", state.display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
        let daemon = start_by(command, directory.path());
        let seen = Path::new("/proc").join(daemon.id().to_string()).join("root").join(state.strip_prefix("/").unwrap());
        let mut bench = Self { directory, daemon, client: Client::new(&seen), small_disk: true };
        bench.wait_until_it_answers().await;
        bench
    }

    /// Where the daemon's state directory is seen from here.
    pub fn seen_state(&self) -> PathBuf {
        let state = self.directory.path().join("state");
        Path::new("/proc").join(self.daemon.id().to_string()).join("root").join(state.strip_prefix("/").unwrap())
    }

    /// Kills the daemon as `kill -9` does and starts another one.
    pub async fn kill_and_restart(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        self.daemon = start(self.directory.path());
        self.wait_until_it_answers().await;
    }

    pub async fn wait_until_it_answers(&mut self) {
        let start = Instant::now();
        while let Err(error) = self.client.status().await {
            let waiting = matches!(error, ClientError::NoDaemon { .. });
            assert!(waiting, "{error:?} {:?} {}", wait_for(&mut self.daemon), self.log());
            assert!(start.elapsed() < Duration::from_secs(20), "{}", self.log());
            assert_eq!(self.daemon.try_wait().unwrap(), None, "{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The process of the gateway, which may have just been started: it takes connections before it answers the daemon.
    pub async fn gateway(&self) -> u32 {
        let start = Instant::now();
        loop {
            if let Some(gateway) = self.client.host().await.unwrap().gateway {
                return gateway.pid;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        format!("{}{}", read("state/daemon.log"), read("output"))
    }

    /// Makes an image whose page says `page`.
    pub fn image(&self, name: &str, page: &str, change: impl FnOnce(&mut ImageManifest, &mut Suite)) -> ImageDigest {
        let dir = self.directory.path().join("images").join(name);
        kiln_testkit::busybox::tree(&dir.join("root"), &[("www/index.html", page)]).unwrap();
        let (mut manifest, mut suite) = (web(), suite(page));
        change(&mut manifest, &mut suite);
        fs::write(dir.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
        fs::write(dir.join("suite.json"), serde_json::to_vec(&suite).unwrap()).unwrap();
        digest(name)
    }

    pub async fn test(&self, image: ImageDigest) -> (Event, Vec<Event>) {
        let image = format!("web@{image}").parse().unwrap();
        let request = TestRequest { image, group: None, directory: "/".into(), fresh: Fresh::Reuse, move_dev: false };
        let mut seen = Vec::new();
        let stream = self.client.test(&request).await.unwrap();
        let last = stream.finish(|event| seen.push(event.clone())).await.unwrap();
        (last, seen)
    }

    /// Makes group `web` three servers of this image. The result, and everything that was told.
    pub async fn apply(&self, image: ImageDigest) -> (Event, Vec<Event>) {
        let request = request(image);
        let mut seen = Vec::new();
        let stream = self.client.apply(&request).await.unwrap();
        let last = stream.finish(|event| seen.push(event.clone())).await.unwrap();
        (last, seen)
    }

    pub async fn group(&self) -> GroupStatus {
        self.client.status().await.unwrap().groups.into_iter().next().unwrap()
    }

    /// Waits until the group is like this.
    pub async fn until(&self, what: &str, good: impl Fn(&GroupStatus) -> bool) -> GroupStatus {
        let start = Instant::now();
        loop {
            let group = self.group().await;
            if good(&group) {
                return group;
            }
            assert!(start.elapsed() < PATIENCE, "never: {what}: {group:#?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The page as a client of the gateway sees it.
    pub async fn page(&self, endpoint: &str) -> String {
        let address = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        let headers = BTreeMap::new();
        let ask = kiln_control::http::Ask { address, method: "GET", path: "/", headers: &headers };
        String::from_utf8(kiln_control::http::ask(ask).await.unwrap().body).unwrap()
    }

    pub async fn purge(&mut self) {
        let stream =
            self.client.down(&DownRequest { groups: Vec::new(), purge: true, loss: Loss::Accept }).await.unwrap();
        let last = stream.finish(|_| ()).await.unwrap();
        assert_ok(&last);
        let status = wait_for(&mut self.daemon).unwrap();
        assert!(status.success(), "{status} {}", self.log());
    }

    pub fn run_dir(&self) -> PathBuf {
        let state = self.directory.path().join("state").canonicalize().unwrap();
        let id = kiln_model::Digest::of(state.as_os_str().as_encoded_bytes()).hex();
        Path::new("/run/kiln").join(&id[..8])
    }
}

impl Drop for Bench {
    /// A test that failed leaves a daemon: purge with what is at hand, so that nothing stays on the host.
    fn drop(&mut self) {
        if self.daemon.try_wait().is_ok_and(|ended| ended.is_some()) && !self.run_dir().exists() {
            return;
        }
        if self.small_disk {
            // Only this daemon sees its state: make room and ask it.
            std::fs::remove_file(self.seen_state().join("filler")).unwrap_or_default();
        } else {
            self.daemon.kill().unwrap();
            self.daemon.wait().unwrap();
            self.daemon = start(self.directory.path());
        }
        let client = self.client.clone();
        let purged = std::thread::spawn(move || {
            let threads = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            threads.block_on(async {
                for _ in 0..500 {
                    if let Ok(stream) =
                        client.down(&DownRequest { groups: Vec::new(), purge: true, loss: Loss::Accept }).await
                    {
                        return stream.finish(|_| ()).await.map(drop).map_err(|error| error.to_string());
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err("the daemon does not answer".to_owned())
            })
        });
        println!("purged after a failure: {:?}", purged.join());
        if wait_for(&mut self.daemon).is_none() {
            self.daemon.kill().unwrap();
            self.daemon.wait().unwrap();
        }
    }
}

/// Waits for the end of a process, at most 20 s.
/// Waits until something holds.
pub async fn until(what: &str, mut good: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !good().await {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn wait_for(process: &mut Child) -> Option<std::process::ExitStatus> {
    for _ in 0..2000 {
        if let Some(status) = process.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

pub fn start(directory: &Path) -> Child {
    start_by(Command::new("/usr/bin/env"), directory)
}

/// Starts the daemon through a program that becomes the one named by its last arguments.
fn start_by(mut command: Command, directory: &Path) -> Child {
    let output = fs::OpenOptions::new().create(true).append(true).open(directory.join("output")).unwrap();
    command
        .arg(std::env::current_exe().unwrap())
        .args(child::arguments("child::daemon"))
        .env(child::DIRECTORY, directory)
        .stdin(Stdio::null())
        .stderr(output.try_clone().unwrap())
        .stdout(output)
        .spawn()
        .unwrap()
}

pub fn assert_ok(result: &Event) {
    assert!(matches!(result, Event::Result { result: Outcome::Ok, .. }), "{result:#?}");
}

pub fn endpoint(result: &Event) -> String {
    let Event::Result { endpoints, .. } = result else { panic!("{result:?}") };
    endpoints.first().unwrap_or_else(|| panic!("{result:#?}")).clone()
}

pub fn request(image: ImageDigest) -> ApplyRequest {
    let group = Group {
        count: 3,
        publish: vec![Publish { listen: 0, port: 8080, protocol: Protocol::Http, slot: None }],
        rollout: RolloutPolicy { drain: Duration::from_secs(2), ..RolloutPolicy::default() },
        ..Group::new(format!("web@{image}").parse().unwrap())
    };
    let name: GroupName = "web".parse().unwrap();
    let fleet =
        Fleet { groups: BTreeMap::from([(name, group)]), evidence: EvidencePolicy::default(), config: BTreeMap::new() };
    ApplyRequest {
        fleet,
        baked: BTreeMap::new(),
        directory: "/".into(),
        plan_only: false,
        fresh: Fresh::Reuse,
        loss: Loss::Refuse,
    }
}

fn web() -> ImageManifest {
    let check = ServiceCheck::Http { port: 8080, path: "/".into() };
    let service = Service {
        readiness: Some(Readiness { check, within: Duration::from_secs(10) }),
        stop: Stop { signal: "SIGTERM".into(), grace: Duration::from_secs(2) },
        ..Service::new(["/bin/httpd", "-f", "-p", "8080", "-h", "/www"].map(str::to_owned).to_vec())
    };
    let services = BTreeMap::from([("main".parse().unwrap(), service)]);
    ImageManifest::new("web".parse().unwrap(), services)
}

fn suite(page: &str) -> Suite {
    let kind = TestKind::Http {
        port: 8080,
        path: "/".into(),
        method: "GET".into(),
        request_headers: BTreeMap::new(),
        status: 200,
        headers: BTreeMap::new(),
        body: vec![TextMatch::Contains(page.into())],
    };
    Suite::of(vec![Test { name: "page".into(), within: Duration::from_secs(2), kind }])
}
