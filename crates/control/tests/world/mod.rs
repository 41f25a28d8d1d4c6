//! A world around [`Control`]: a fake engine, releases that are plain values, traffic that is checked.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use kiln_control::{
    Asked, Backend, Bound, Carried, Control, ControlOptions, Drained, FailPoint, Failures, ImageInfo, ImageOrigin,
    Releases, ReleasesError, Routes, Settled, Traffic, TrafficError, TrafficLoad, Wanted,
};
use kiln_model::{
    Digest, Fleet, FrozenConfig, Group, GroupName, ImageDigest, ImageManifest, Release, ReleaseId, ServerId, Suite,
    SuiteDigest,
    evidence::{self, Envelope, Report, SigningKey, TestOutcome, Verdict},
    fleet::{EvidencePolicy, ImageRef, Publish, RolloutPolicy, Strategy},
    manifest::{Protocol, Service, Stop, Writable, WritableKind},
    trust::{TrustPolicy, TrustedKey},
    volume::{Hooks, ScaleFrom, VolumePolicy},
};
use kiln_testkit::{FakeEngine, Manners};

pub fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// Image number `n`.
pub fn image(n: u8) -> ImageDigest {
    ImageDigest(Digest::of(&[n]))
}

pub fn suite() -> SuiteDigest {
    Suite::default().digest()
}

/// The release of image `n` with the configuration of [`group`].
pub fn release(n: u8) -> ReleaseId {
    Release { image: image(n), config: FrozenConfig::default().digest() }.id()
}

pub fn manifest() -> ImageManifest {
    let stop = Stop { signal: "SIGTERM".to_owned(), grace: Duration::from_secs(1) };
    let service = Service { stop, ..Service::new(vec!["/usr/sbin/web".to_owned()]) };
    ImageManifest::new("hello".parse().unwrap(), BTreeMap::from([("web".parse().unwrap(), service)]))
}

/// An image whose servers may be held when they are ready.
pub fn that_may_be_held() -> ImageManifest {
    let mut manifest = manifest();
    manifest.services.values_mut().for_each(|service| service.hold_ready = Some(Duration::from_secs(3600)));
    manifest
}

/// An image whose data is a volume that further slots are cloned from.
pub fn with_volume() -> ImageManifest {
    let name = "data".parse().unwrap();
    let kind = WritableKind::Volume { name, hooks: Hooks::default(), scale_from: ScaleFrom::Clone };
    let mut manifest = manifest();
    manifest.writable = vec![Writable { path: "/data".into(), kind, user: "root".into(), mode: 0o755 }];
    manifest
}

/// Images whose evidence is a list of reports.
#[derive(Default)]
pub struct Shelf {
    pub reports: Mutex<BTreeMap<ImageDigest, Vec<Envelope>>>,
    pub revoked: Mutex<Vec<ImageDigest>>,
    /// Whether their data is a volume.
    pub volumes: AtomicBool,
    /// Whether their servers may be held when they are ready.
    pub holds_ready: AtomicBool,
}

impl Shelf {
    pub fn report(&self, n: u8, verdict: Verdict, finished_at: Timestamp) {
        let test = TestOutcome { name: "page".to_owned(), verdict, took: Duration::ZERO, message: None };
        let report = Report {
            name: "hello".to_owned(),
            image: image(n),
            config: FrozenConfig::default().digest(),
            suite: suite(),
            verdict,
            finished_at,
            parameters: vec![],
            tests: vec![test],
            matrix: vec![],
            reads: Default::default(),
        };
        let envelope = evidence::seal(&report, &key());
        self.reports.lock().unwrap().entry(image(n)).or_default().push(envelope);
    }
}

impl Releases for Shelf {
    fn resolve(&self, image: &ImageRef) -> Result<ImageInfo, ReleasesError> {
        Err(ReleasesError::NotFound { image: image.to_string() })
    }
    fn image(&self, image: &ImageDigest) -> Result<ImageInfo, ReleasesError> {
        let name = "hello".parse().unwrap();
        Ok(ImageInfo {
            digest: *image,
            name,
            manifest: Arc::new(match self.volumes.load(Ordering::SeqCst) {
                true => with_volume(),
                false if self.holds_ready.load(Ordering::SeqCst) => that_may_be_held(),
                false => manifest(),
            }),
            suite: suite(),
            origin: ImageOrigin::Baked,
        })
    }
    fn reports(&self, image: &ImageDigest) -> Result<Vec<Envelope>, ReleasesError> {
        Ok(self.reports.lock().unwrap().get(image).cloned().unwrap_or_default())
    }
    fn policy(&self, evidence: EvidencePolicy) -> Result<TrustPolicy, ReleasesError> {
        let keys = vec![TrustedKey { name: "this-host".parse().unwrap(), key: key().verifying_key() }];
        let revoked = self.revoked.lock().unwrap().iter().map(|image| (*image, "a hole".to_owned())).collect();
        Ok(TrustPolicy { keys, revoked, evidence, ..TrustPolicy::default() })
    }
}

/// A gateway that serves nothing, and remembers the least number of servers that ever got traffic.
#[derive(Default)]
pub struct Gate {
    pub table: Mutex<Routes>,
    /// Ports that belong to other programs.
    pub taken: Mutex<Vec<u16>>,
    /// Tables in force so far: for each, how many servers got new traffic.
    pub serving: Mutex<Vec<usize>>,
    pub away: Mutex<bool>,
    pub drain: Mutex<Duration>,
    pub drained: Mutex<Vec<ServerId>>,
    /// Requests that come each second, to all servers together.
    pub rate: Mutex<f64>,
    /// Requests that wait, and what says so at once.
    pub waiting: Mutex<u64>,
    pub rings: tokio::sync::Notify,
    /// What each server has answered, and until when.
    pub served: Mutex<(Option<std::time::Instant>, BTreeMap<ServerId, f64>)>,
    /// Requests that no server answered.
    pub failed: Mutex<u64>,
}

impl Gate {
    /// The fewest servers behind the gateway since it first had this many.
    pub fn fewest_since(&self, first: usize) -> usize {
        let serving = self.serving.lock().unwrap();
        serving.iter().skip_while(|n| **n < first).min().copied().unwrap_or(0)
    }
    pub fn backends(&self) -> Vec<Backend> {
        self.table.lock().unwrap().routes.iter().flat_map(|route| route.backends.clone()).collect()
    }
}

#[async_trait::async_trait]
impl Traffic for Gate {
    async fn set_routes(&self, routes: &Routes) -> Result<Vec<Bound>, TrafficError> {
        if *self.away.lock().unwrap() {
            return Err(TrafficError::Unavailable("the gateway is away".into()));
        }
        let mut table = self.table.lock().unwrap();
        assert!(routes.version > table.version, "versions only grow: {} after {}", routes.version, table.version);
        let taken = self.taken.lock().unwrap();
        if let Some(route) = routes.routes.iter().find(|route| taken.contains(&route.listen)) {
            return Err(TrafficError::PortTaken { port: route.listen, holder: Some("`httpd` (pid 99)".to_owned()) });
        }
        *table = routes.clone();
        let backends = routes.routes.iter().flat_map(|route| &route.backends);
        self.serving.lock().unwrap().push(backends.filter(|backend| !backend.draining).count());
        let bound = |route: &kiln_control::Route| Bound {
            group: route.group.clone(),
            published: route.published,
            bound: if route.listen == 0 { 40_000 + route.published.port % 10_000 } else { route.listen },
        };
        Ok(routes.routes.iter().map(bound).collect())
    }
    async fn drain(&self, server: &ServerId, limit: Duration) -> Result<Drained, TrafficError> {
        if *self.away.lock().unwrap() {
            return Err(TrafficError::Unavailable("the gateway is away".into()));
        }
        let draining = self.backends().iter().filter(|b| b.server == *server).all(|b| b.draining);
        assert!(draining, "{server} is drained before the table says so");
        let waited = (*self.drain.lock().unwrap()).min(limit);
        tokio::time::sleep(waited).await;
        self.drained.lock().unwrap().push(server.clone());
        Ok(Drained { cut: 0, waited })
    }
    async fn load(&self) -> Result<TrafficLoad, TrafficError> {
        if *self.away.lock().unwrap() {
            return Err(TrafficError::Unavailable("the gateway is away".into()));
        }
        let now = std::time::Instant::now();
        let backends: Vec<Backend> = self.backends().into_iter().filter(|backend| !backend.draining).collect();
        let (until, served) = &mut *self.served.lock().unwrap();
        let passed = until.replace(now).map_or(Duration::ZERO, |until| now - until);
        let each = *self.rate.lock().unwrap() * passed.as_secs_f64() / backends.len().max(1) as f64;
        let carried = backends.into_iter().map(|backend| {
            let total = served.entry(backend.server.clone()).or_default();
            *total += each;
            Carried { server: backend.server, served: *total as u64, in_flight: 0 }
        });
        let waiting = *self.waiting.lock().unwrap();
        let waiting = BTreeMap::from([(web(), waiting)]).into_iter().filter(|(_, count)| *count > 0).collect();
        Ok(TrafficLoad { carried: carried.collect(), waiting })
    }
    async fn asked(&self, after: u64) -> Result<Asked, TrafficError> {
        self.rings.notified().await;
        Ok(Asked { number: after + 1, groups: vec![web()] })
    }
    async fn failures(&self) -> Result<Failures, TrafficError> {
        if *self.away.lock().unwrap() {
            return Err(TrafficError::Unavailable("the gateway is away".into()));
        }
        let failed = BTreeMap::from([(web(), *self.failed.lock().unwrap())]);
        Ok(Failures { gateway: 1, failed, open: BTreeMap::new() })
    }
}

/// A group of three with one published port.
pub fn group(count: u32) -> Group {
    Group {
        count,
        publish: vec![Publish { listen: 8080, port: 80, protocol: Protocol::Http, slot: None }],
        rollout: RolloutPolicy {
            strategy: Strategy::Rolling { max_surge: 1, max_unavailable: 0 },
            ..RolloutPolicy::default()
        },
        ..Group::new("hello@dev".parse().unwrap())
    }
}

/// A group of servers with a volume each.
pub fn stateful(count: u32) -> Group {
    let volumes = BTreeMap::from([("data".parse().unwrap(), VolumePolicy::new(kiln_model::ByteSize::mib(64)))]);
    Group { volumes, ..group(count) }
}

pub fn web() -> GroupName {
    "web".parse().unwrap()
}

/// A fleet of one group on image `n`.
pub fn wanted(n: u8, group: Group) -> Wanted {
    let fleet = Fleet {
        groups: BTreeMap::from([(web(), group)]),
        evidence: EvidencePolicy::default(),
        config: BTreeMap::new(),
    };
    let configs = BTreeMap::from([(web(), FrozenConfig::default())]);
    Wanted { fleet, images: BTreeMap::from([(web(), image(n))]), configs, origins: BTreeMap::new() }
}

/// Everything that outlives a daemon.
pub struct World {
    pub engine: FakeEngine,
    pub shelf: Arc<Shelf>,
    pub gate: Arc<Gate>,
    pub directory: tempfile::TempDir,
    pub clock: Arc<Mutex<Option<Timestamp>>>,
}

impl World {
    /// With passing reports of images 1 to 5.
    pub fn new(manners: Manners) -> Self {
        let shelf = Shelf::default();
        (1..=5).for_each(|n| shelf.report(n, Verdict::Passed, Timestamp::now()));
        Self {
            engine: FakeEngine::new(manners),
            shelf: Arc::new(shelf),
            gate: Arc::default(),
            directory: tempfile::tempdir().unwrap(),
            clock: Arc::default(),
        }
    }
    pub fn options(&self) -> ControlOptions {
        let clock = self.clock.clone();
        let mut options = ControlOptions::new(self.directory.path());
        options.clock = Arc::new(move || clock.lock().unwrap().unwrap_or_else(Timestamp::now));
        options
    }
    /// A daemon.
    pub async fn open(&self) -> Control {
        self.open_with(self.options()).await
    }
    pub async fn open_dying(&self, fail_point: Arc<dyn FailPoint>) -> Control {
        self.open_with(ControlOptions { fail_point, ..self.options() }).await
    }
    pub async fn open_with(&self, options: ControlOptions) -> Control {
        // They were the earlier daemon's.
        self.engine.lose_staged();
        Control::open(options, Arc::new(self.engine.clone()), self.shelf.clone(), self.gate.clone()).await.unwrap()
    }
}

/// A daemon dies at the place reached after so many others.
pub struct Countdown {
    left: AtomicI64,
    place: Mutex<Option<String>>,
}

impl Countdown {
    pub fn new(places: i64) -> Arc<Self> {
        Arc::new(Self { left: AtomicI64::new(places), place: Mutex::default() })
    }
    /// Where it died, once it has.
    pub fn place(&self) -> Option<String> {
        self.place.lock().unwrap().clone()
    }
}

impl FailPoint for Countdown {
    fn dies_at(&self, place: &str) -> bool {
        let dies = self.left.fetch_sub(1, Ordering::SeqCst) == 0;
        if dies {
            *self.place.lock().unwrap() = Some(place.to_owned());
        }
        dies
    }
}

/// Applies and waits for the end.
pub async fn up(control: &Control, wanted: Wanted) -> Settled {
    control.apply(wanted).await.unwrap();
    settle(control).await
}

pub async fn settle(control: &Control) -> Settled {
    let settled = tokio::time::timeout(Duration::from_secs(20), control.settle(&[web()])).await;
    settled.expect("it must come to an end").unwrap().remove(0)
}

/// Waits until something holds.
pub async fn until(what: &str, good: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !good().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How many servers of a release run.
pub fn running(engine: &FakeEngine, release: ReleaseId) -> usize {
    engine.running().iter().filter(|seen| seen.release == release).count()
}
