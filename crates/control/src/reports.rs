//! Evidence for releases: a valid report is used again, else the suite is run and what was seen is signed and kept.

mod matrix;

pub(crate) use self::matrix::KEPT;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kiln_api::{Event, difference::Difference, request::Fresh};
use kiln_engine::Engine;
use kiln_model::{
    ChannelName, ConfigDigest, Digest, FrozenConfig, ImageDigest, ImageManifest, ImageName, MatrixName, Suite,
    SuiteDigest, VolumeName,
    config::{ConfigKey, ConfigValue, Delivery},
    evidence::{self, Envelope, MatrixReport, Report, TestOutcome, Verdict},
    fleet::EvidencePolicy,
    trust::{LaunchUse, Refusal, Request},
    volume::SnapshotId,
};

use crate::{
    config::{ConfigError, SecretStore, SecretsError},
    harness::{self, Events, HarnessError, ImageTree, LiveOfTests, Subject},
    keys::{Keys, KeysError, this_host},
    live::Live,
    reads::KeyReads,
    releases::{ImageInfo, ImageOrigin, NotAdmitted, Releases, ReleasesError},
    throwaway::Throwaways,
};

/// Images with all that belongs to them: what the daemon needs beyond [`Releases`].
pub trait Library: Releases + ImageTree {
    /// A suite by its digest.
    fn suite(&self, suite: &SuiteDigest) -> Result<Option<Suite>, ReleasesError>;
    /// Files a report under an image.
    fn add_report(&self, image: &ImageDigest, report: &Envelope) -> Result<Digest, ReleasesError>;
    /// The approvals of an image.
    fn approvals(&self, image: &ImageDigest) -> Result<Vec<Envelope>, ReleasesError>;
    /// Where the channels of a name point.
    fn channels(&self, name: &ImageName) -> Result<BTreeMap<ChannelName, ImageDigest>, ReleasesError>;
    /// Where a channel points.
    fn channel(&self, name: &ImageName, channel: &ChannelName) -> Result<Option<ImageDigest>, ReleasesError> {
        Ok(self.channels(name)?.get(channel).copied())
    }
    /// What differs between two images, with at most so many of their files.
    fn difference(&self, before: &ImageDigest, after: &ImageDigest, most: usize) -> Result<Difference, ReleasesError>;
    /// Points a channel at an image.
    fn set_channel(&self, name: &ImageName, channel: &ChannelName, image: &ImageDigest) -> Result<(), ReleasesError>;
}

/// A release has no valid report, and none could be made.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The image or its reports could not be read or written.
    #[error(transparent)]
    Releases(#[from] ReleasesError),
    /// The tests of the image are not in the store.
    #[error("the suite {} of image {} is not in the store: bake the recipe again", suite.short(), image.short())]
    NoSuite {
        /// The image.
        image: ImageDigest,
        /// The suite.
        suite: SuiteDigest,
    },
    /// The secrets of the configuration are not at hand.
    #[error("the secrets of the configuration cannot be read")]
    Secrets(#[from] SecretsError),
    /// A further configuration of the suite does not fit the image.
    #[error("the configuration `{matrix}` of the suite does not fit the image")]
    Matrix {
        /// Which one.
        matrix: MatrixName,
        /// Why not.
        #[source]
        source: ConfigError,
    },
    /// The suite could not be run.
    #[error(transparent)]
    Harness(#[from] HarnessError),
    /// There is no evidence that the policy accepts, and a test here would not give any.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The report could not be signed.
    #[error("the report could not be signed")]
    Keys(#[from] KeysError),
}

/// A release's newest report.
#[derive(Debug, Clone)]
pub struct Proof {
    /// What was seen.
    pub report: Report,
    /// Whether it was seen by an earlier run.
    pub reused: bool,
}

impl Proof {
    /// Whether every test passed.
    pub fn passed(&self) -> bool {
        self.report.verdict == Verdict::Passed
    }
}

type Key = (ImageDigest, ConfigDigest, SuiteDigest);

/// Makes evidence. One run at a time for each release and suite: whoever comes second uses the first one's report.
pub struct Prover {
    engine: Arc<dyn Engine>,
    library: Arc<dyn Library>,
    keys: Arc<Keys>,
    secrets: Arc<SecretStore>,
    reads: Arc<KeyReads>,
    throwaways: Option<Arc<Throwaways>>,
    live: Option<Arc<Live>>,
    running: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    matrices: matrix::Matrices,
}

impl Prover {
    /// Makes evidence on this engine, for images of this library, signed with the signing key.
    /// The secrets of configurations are in this store; what test servers read is noted here.
    pub fn new(
        engine: Arc<dyn Engine>,
        library: Arc<dyn Library>,
        keys: Arc<Keys>,
        secrets: Arc<SecretStore>,
        reads: Arc<KeyReads>,
    ) -> Self {
        Self {
            engine,
            library,
            keys,
            secrets,
            reads,
            throwaways: None,
            live: None,
            running: Mutex::default(),
            matrices: Default::default(),
        }
    }

    /// With throwaway services for the suites that want some.
    pub fn with_throwaways(self, throwaways: Option<Arc<Throwaways>>) -> Self {
        Self { throwaways, ..self }
    }

    /// With live keys for the test servers, too.
    pub fn with_live(self, live: Arc<Live>) -> Self {
        Self { live: Some(live), ..self }
    }

    /// The report on an image with a configuration. The one rule: evidence that the policy accepts is used, wherever it was
    /// made. Where there is none, what was baked here is tested here, if the policy lets this host vouch for it; anything
    /// else is refused. `Fresh::Always` is somebody's wish to test here whatever there is.
    pub async fn prove(
        &self,
        image: &ImageInfo,
        config: &FrozenConfig,
        policy: EvidencePolicy,
        fresh: Fresh,
        events: Events<'_>,
    ) -> Result<Proof, ProveError> {
        let key = (image.digest, config.digest(), image.suite);
        let (start, asked) = (Instant::now(), Timestamp::now());
        let lock = self.running.lock().expect("no holder panics").entry(key).or_default().clone();
        let _running = lock.lock().await;
        let found = match fresh {
            Fresh::Reuse => match self.valid(image, config, policy).await? {
                Ok(report) => Some(report),
                Err(_) if self.may_test(image).await? => None,
                Err(refusal) => return Err(refusal.into()),
            },
            Fresh::Renew | Fresh::Always => None,
        };
        let proof = match found {
            Some(report) => Proof { report, reused: true },
            None => {
                let again = matrix::Again { asked, fresh, policy };
                Proof { report: self.test(image, config, again, events).await?, reused: false }
            }
        };
        events(finished(&proof, start.elapsed()));
        Ok(proof)
    }

    /// Whether Kiln tests an image by itself to make evidence: it was baked here, and a report of this host counts.
    pub async fn may_test(&self, image: &ImageInfo) -> Result<bool, ReleasesError> {
        if image.origin == ImageOrigin::Fetched {
            return Ok(false);
        }
        let (library, name) = (self.library.clone(), image.name.clone());
        blocking(move || Ok(library.policy(EvidencePolicy::default())?.counts(&name, &this_host()))).await
    }

    /// The newest report of those that admit the release to a rollout now, or why none do.
    pub async fn valid(
        &self,
        image: &ImageInfo,
        config: &FrozenConfig,
        policy: EvidencePolicy,
    ) -> Result<Result<Report, Refusal>, ReleasesError> {
        let (library, image, config) = (self.library.clone(), image.clone(), config.clone());
        blocking(move || {
            let launch_use = LaunchUse::Rollout;
            let (name, suite) = (&image.name, image.suite);
            let request = Request { image: image.digest, name, config: &config, suite, launch_use };
            match library.admit(&request, policy, Timestamp::now()) {
                Ok(verified) => Ok(Ok(verified.report().expect("a release that serves has a report").clone())),
                Err(NotAdmitted::Refused(refusal)) => Ok(Err(refusal)),
                Err(NotAdmitted::Unreadable(error)) => Err(error),
            }
        })
        .await
    }

    async fn test(
        &self,
        image: &ImageInfo,
        config: &FrozenConfig,
        again: matrix::Again,
        events: Events<'_>,
    ) -> Result<Report, ProveError> {
        let (library, digest, subject) = (self.library.clone(), image.suite, image.digest);
        let looked = blocking(move || {
            let policy = library.policy(EvidencePolicy::default())?;
            Ok((library.suite(&digest)?, policy.revocation(subject)))
        });
        let (suite, revoked) = looked.await?;
        if let Some(refusal) = revoked {
            return Err(refusal.into());
        }
        let suite = suite.ok_or(ProveError::NoSuite { image: image.digest, suite: image.suite })?;
        let (store, named) = (self.secrets.clone(), config.clone());
        let secrets = tokio::task::spawn_blocking(move || store.of(&named)).await.expect("reading does not panic")?;
        let (name, manifest) = (image.name.clone(), image.manifest.clone());
        let live = LiveOfTests { live: self.live.clone(), values: live_defaults(&manifest) };
        let (secrets, volumes) = (Arc::new(secrets), BTreeMap::new());
        let subject = Subject { name, image: image.digest, manifest, secrets, matrix: None, live, volumes };
        let tree: Arc<dyn ImageTree> = self.library.clone();
        let run =
            harness::run_suite(self.engine.as_ref(), tree, &subject, config, &suite, self.throwaways.as_ref(), events);
        let matrix = self.matrix(image, &subject, &suite, again, events);
        let (run, matrix) = tokio::join!(run, matrix);
        let report = self.completed(run?.report, matrix?).await;
        let envelope = evidence::seal(&report, &self.keys.signing()?);
        let (library, image) = (self.library.clone(), image.digest);
        blocking(move || library.add_report(&image, &envelope)).await?;
        Ok(report)
    }

    /// Runs the recipe's tests once on a throwaway server whose volumes begin with these snapshots. Nothing is signed: what is
    /// proven is that the data can be had again, not the image.
    pub async fn drill(
        &self,
        image: &ImageInfo,
        config: &FrozenConfig,
        volumes: BTreeMap<VolumeName, SnapshotId>,
    ) -> Result<Vec<TestOutcome>, ProveError> {
        let (library, digest) = (self.library.clone(), image.suite);
        let suite = blocking(move || library.suite(&digest)).await?;
        let suite = suite.ok_or(ProveError::NoSuite { image: image.digest, suite: image.suite })?;
        let (store, named) = (self.secrets.clone(), config.clone());
        let secrets = tokio::task::spawn_blocking(move || store.of(&named)).await.expect("reading does not panic")?;
        let (name, manifest) = (image.name.clone(), image.manifest.clone());
        let live = LiveOfTests { live: self.live.clone(), values: live_defaults(&manifest) };
        let (secrets, digest) = (Arc::new(secrets), image.digest);
        let subject = Subject { name, image: digest, manifest, secrets, matrix: None, live, volumes };
        let quiet = |_: Event| ();
        let throwaways = self.throwaways.as_ref();
        Ok(harness::run_once(self.engine.as_ref(), &subject, config, &suite, throwaways, &quiet).await?)
    }

    /// The report with what was seen with the further configurations, and with the keys that were read.
    async fn completed(&self, mut report: Report, matrix: Vec<MatrixReport>) -> Report {
        if !matrix.iter().all(MatrixReport::passed) {
            report.verdict = Verdict::Failed;
        }
        report.matrix = matrix;
        let (reads, image) = (self.reads.clone(), report.image);
        let keys = tokio::task::spawn_blocking(move || reads.of_image(&image)).await.unwrap_or_default();
        report.reads = keys.iter().filter_map(|key| key.parse().ok()).collect();
        report
    }
}

/// What test servers of a release are told of live keys, which are no part of it.
fn live_defaults(manifest: &ImageManifest) -> BTreeMap<ConfigKey, ConfigValue> {
    let live = manifest.config.0.iter().filter(|(_, spec)| spec.delivery == Delivery::Live);
    live.filter_map(|(key, spec)| Some((key.clone(), spec.default.clone()?))).collect()
}

fn finished(proof: &Proof, took: Duration) -> Event {
    let report = &proof.report;
    Event::SuiteFinished {
        image: report.image.to_string(),
        config: report.config.to_string(),
        passed: proof.passed(),
        failed: report.names(Verdict::Failed).len() as u32,
        tests: report.count() as u32,
        took_ms: took.as_millis() as u64,
        reused: proof.reused,
    }
}

/// Runs store work on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReleasesError> + Send + 'static,
) -> Result<T, ReleasesError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|panic| Err(ReleasesError::Store(Box::new(panic))))
}
