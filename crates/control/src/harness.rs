//! Boots a frozen image and runs its suite on it.
//!
//! [`run_suite`] launches two test servers of the release at once through the engine's one launch path, waits until every
//! service of each is ready, runs the recipe's tests on both, all at the same time, each tried again until it passes or its
//! time is over, then stops and destroys them. The second server exists to see that a second boot gives the same answers;
//! it costs no wall time. Facts of the image's files that cannot differ between servers are read from the image itself
//! ([`tree`]). What was seen becomes a [`Report`]; signing and keeping it is not done here.
//!
//! The further configurations of a suite ([`run_matrix`]) are booted once each, apart from that, a few at a time.
//!
//! The conformance tests, whose names start with `kiln/`, are run for every image and cannot be switched off.

mod cases;
mod conformance;
mod expect;
mod goss;
mod inside;
mod junit;
mod lent;
mod matrix;
mod network;
mod output;
mod proposals;
mod readiness;
mod script;
mod server;
mod suites;
mod test;
mod testinfra;
pub mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_api::{Event, report::TestResult};
use kiln_engine::{Engine, EngineError};
use kiln_model::{
    FrozenConfig, ImageDigest, ImageManifest, ImageName, MatrixName, Suite, VolumeName,
    config::{ConfigKey, ConfigValue, Secrets},
    evidence::{MatrixReport, Report, TestOutcome, Verdict},
    shared, trust,
    volume::{self, SnapshotId},
};

use crate::live::Live;
use crate::throwaway::{ThrowawayError, Throwaways};

pub use self::{junit::junit, matrix::run_matrix, output::human, tree::ImageTree};

/// What is tested.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The image's name.
    pub name: ImageName,
    /// The image.
    pub image: ImageDigest,
    /// Its services and writable paths.
    pub manifest: Arc<ImageManifest>,
    /// The secrets of the configuration it is tested with. They appear in no message.
    pub secrets: Arc<Secrets>,
    /// Which of the suite's further configurations it is tested with, if one of them.
    pub matrix: Option<MatrixName>,
    /// What its servers are told of live keys.
    pub live: LiveOfTests,
    /// What the volumes of its servers begin with; those that are not named begin empty.
    pub volumes: BTreeMap<VolumeName, SnapshotId>,
}

/// What test servers are told of live keys.
#[derive(Clone, Default)]
pub struct LiveOfTests {
    /// Who tells them; nobody where there is no metadata.
    pub live: Option<Arc<Live>>,
    /// The values.
    pub values: BTreeMap<ConfigKey, ConfigValue>,
}

impl std::fmt::Debug for LiveOfTests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveOfTests").field("values", &self.values).finish_non_exhaustive()
    }
}

impl Subject {
    /// What is told of a test that ended.
    fn tested(&self, outcome: &TestOutcome) -> Event {
        let (image, matrix) = (self.image.to_string(), self.matrix.as_ref().map(MatrixName::to_string));
        Event::Test { image, matrix, result: TestResult::from(outcome) }
    }
}

/// A report and how long things took.
#[derive(Debug, Clone)]
pub struct SuiteRun {
    /// What was seen.
    pub report: Report,
    /// From the start until every service of the first server was ready; none if that did not happen.
    pub ready: Option<Duration>,
    /// From the start until both servers were destroyed.
    pub took: Duration,
}

/// The suite could not be run, so there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// The engine could not start a test server.
    #[error("could not launch a test server of {name} ({})", image.short())]
    Launch {
        /// The image's name.
        name: ImageName,
        /// The image.
        image: ImageDigest,
        /// Why.
        #[source]
        source: EngineError,
    },
    /// A test server could not be removed afterwards.
    #[error("could not destroy a test server of {name} ({})", image.short())]
    Destroy {
        /// The image's name.
        name: ImageName,
        /// The image.
        image: ImageDigest,
        /// Why.
        #[source]
        source: EngineError,
    },
    /// A service that takes the place of an external one could not be started.
    #[error("could not start a service in place of `{binding}`")]
    Throwaway {
        /// The binding.
        binding: kiln_model::BindingName,
        /// Why.
        #[source]
        source: ThrowawayError,
    },
    /// The image's files could not be read.
    #[error("could not look through the files of {name} ({})", image.short())]
    Tree {
        /// The image's name.
        name: ImageName,
        /// The image.
        image: ImageDigest,
        /// Why.
        #[source]
        source: tree::TreeError,
    },
}

/// Receives events as they happen.
pub type Events<'a> = &'a (dyn Fn(Event) + Send + Sync);

/// Runs a suite on a release. Throwaway services that its recipe wants are started by `throwaways`. They and both test servers are gone when this returns, whatever happened.
pub async fn run_suite(
    engine: &dyn Engine,
    tree: Arc<dyn ImageTree>,
    subject: &Subject,
    config: &FrozenConfig,
    suite: &Suite,
    throwaways: Option<&Arc<Throwaways>>,
    events: Events<'_>,
) -> Result<SuiteRun, HarnessError> {
    let start = Instant::now();
    events(started(subject, config, suite));
    let launch = |source| HarnessError::Launch { name: subject.name.clone(), image: subject.image, source };
    engine.prepare(subject.image).await.map_err(launch)?;
    let quiet = |_: Event| ();
    let (first, second) = (
        boot(engine, subject, config, suite, throwaways, events),
        boot(engine, subject, config, suite, throwaways, &quiet),
    );
    let (first, second, facts) = tokio::join!(first, second, conformance::tree(tree, subject));
    let (first, second, facts) = (first?, second?, facts?);
    let ready = first.ready;
    let same = conformance::second_boot(&first, &second);
    let mut tests = first.tests;
    for outcome in facts.into_iter().chain([same]) {
        events(subject.tested(&outcome));
        tests.push(outcome);
    }
    first.proposals.into_iter().for_each(events);
    let report = report(subject, config, suite, tests);
    Ok(SuiteRun { report, ready, took: start.elapsed() })
}

/// Boots one test server whose volumes begin with what the subject says, and runs the recipe's tests on it.
pub async fn run_once(
    engine: &dyn Engine,
    subject: &Subject,
    config: &FrozenConfig,
    suite: &Suite,
    throwaways: Option<&Arc<Throwaways>>,
    events: Events<'_>,
) -> Result<Vec<TestOutcome>, HarnessError> {
    let launch = |source| HarnessError::Launch { name: subject.name.clone(), image: subject.image, source };
    engine.prepare(subject.image).await.map_err(launch)?;
    Ok(boot(engine, subject, config, suite, throwaways, events).await?.tests)
}

/// One boot of the frozen image, with throwaway services of its own where its recipe wants some.
async fn boot(
    engine: &dyn Engine,
    subject: &Subject,
    config: &FrozenConfig,
    suite: &Suite,
    throwaways: Option<&Arc<Throwaways>>,
    events: Events<'_>,
) -> Result<server::Boot, HarnessError> {
    let lent = lent::lend(throwaways, subject, config).await?;
    let release = trust::admit_for_test(subject.image, lent.config.clone());
    let boot = server::run(engine, &release, &lent.subject, suite, events).await;
    lent.give_back().await;
    boot
}

fn started(subject: &Subject, config: &FrozenConfig, suite: &Suite) -> Event {
    Event::SuiteStarted {
        name: subject.name.to_string(),
        image: subject.image.to_string(),
        config: config.digest().to_string(),
        tests: (suite.tests.len() + conformance::NAMES.len()) as u32,
    }
}

fn report(subject: &Subject, config: &FrozenConfig, suite: &Suite, tests: Vec<TestOutcome>) -> Report {
    let passed = tests.iter().all(|test| test.verdict != Verdict::Failed);
    Report {
        name: subject.name.to_string(),
        image: subject.image,
        config: config.digest(),
        suite: suite.digest(),
        verdict: if passed { Verdict::Passed } else { Verdict::Failed },
        finished_at: jiff::Timestamp::now(),
        parameters: PARAMETERS
            .map(str::to_owned)
            .into_iter()
            .chain(lent::parameters(&subject.manifest))
            .chain(own_volumes(&subject.manifest))
            .chain(own_shared(&subject.manifest))
            .collect(),
        tests,
        matrix: Vec::new(),
        reads: BTreeSet::new(),
    }
}

/// What is told of an earlier run that stands for one with a further configuration.
pub(crate) fn matrix_finished(subject: &Subject, run: &MatrixReport) -> Event {
    matrix::finished(subject, run, None)
}

/// How a test server differs from a server in service.
const PARAMETERS: [&str; 3] = [
    "on an isolated network",
    "not behind the gateway",
    "without the group's limits of memory, processor and processes",
];

fn own_volumes(manifest: &ImageManifest) -> Option<String> {
    volume::needed(manifest).next().map(|_| "with volumes of its own, which are gone with it".to_owned())
}

fn own_shared(manifest: &ImageManifest) -> Option<String> {
    shared::needed(manifest)
        .next()
        .map(|_| "with empty shared directories of its own, which are gone with it".to_owned())
}

fn outcome(name: &str, took: Duration, failure: Option<String>) -> TestOutcome {
    TestOutcome {
        name: name.to_owned(),
        verdict: if failure.is_none() { Verdict::Passed } else { Verdict::Failed },
        took,
        message: failure,
    }
}
