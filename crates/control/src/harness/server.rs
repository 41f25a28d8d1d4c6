//! One test server: launch, wait until ready, test, stop, destroy.

use std::time::{Duration, Instant};

use futures::{FutureExt as _, future::join_all};
use kiln_api::Event;
use kiln_engine::{Engine, EngineError, LaunchSpec, Observed, Times};
use kiln_model::{
    ByteSize, FrozenConfig, ServerId, SharedName, Suite, VerifiedRelease, VolumeName,
    evidence::TestOutcome,
    fleet::Limits,
    shared,
    volume::{self, Attachment, Filesystem, Source},
};
use kiln_runtime::values::{Values, masked_part};

use super::{Events, HarnessError, Subject, conformance, expect::Expect, outcome, proposals, readiness, test};

/// What one boot showed.
pub(super) struct Boot {
    /// Until every service was ready; none if that did not happen.
    pub(super) ready: Option<Duration>,
    /// The recipe's tests in order, then the conformance tests of a running server.
    pub(super) tests: Vec<TestOutcome>,
    /// What its recipe may want to declare.
    pub(super) proposals: Vec<Event>,
}

/// The size of a volume under test: only what is written of it takes room.
const VOLUME_OF_TESTS: ByteSize = ByteSize::mib(1024);
/// The generation of a test server: its id is never used twice.
const GENERATION: u64 = 1;

/// Boots a server of the release, runs everything on it and removes it again.
pub(super) async fn run(
    engine: &dyn Engine,
    release: &VerifiedRelease,
    subject: &Subject,
    suite: &Suite,
    events: Events<'_>,
) -> Result<Boot, HarnessError> {
    let start = Instant::now();
    let spec = LaunchSpec {
        server: new_id(subject),
        generation: GENERATION,
        group: None,
        slot: None,
        manifest: subject.manifest.clone(),
        limits: Limits::default(),
        secrets: subject.secrets.clone(),
        volumes: volumes(subject),
        shared: shared(subject),
        times: Times::default(),
    };
    let live = &subject.live;
    let _lent = live.live.as_ref().map(|all| all.lend(&spec.server, live.values.clone()));
    let launched = engine.launch(release, &spec).await;
    let boot = match &launched {
        Ok(server) => Some(Run { engine, server, subject, config: release.config(), events, start }.all(suite).await),
        Err(_) => None,
    };
    // A launch that failed may have left something behind as well.
    let destroyed = engine.destroy(&spec.server, GENERATION).await;
    let failed =
        |source: EngineError| HarnessError::Launch { name: subject.name.clone(), image: subject.image, source };
    launched.map_err(failed)?;
    destroyed.map_err(|source| HarnessError::Destroy { name: subject.name.clone(), image: subject.image, source })?;
    Ok(boot.expect("a server that was launched was tested"))
}

/// A test server's volumes are its own and gone with it. What they begin with, the subject says.
fn volumes(subject: &Subject) -> Vec<Attachment> {
    let throwaway = |name: &VolumeName| Source::Throwaway {
        from: subject.volumes.get(name).cloned(),
        size: VOLUME_OF_TESTS,
        filesystem: Filesystem::Ext4,
    };
    let needed = volume::needed(&subject.manifest);
    needed.map(|needed| Attachment { name: needed.name.clone(), source: throwaway(needed.name) }).collect()
}

/// So are its shared directories, which begin empty.
fn shared(subject: &Subject) -> Vec<shared::Attachment> {
    let throwaway = |name: &SharedName| shared::Attachment { name: name.clone(), source: shared::Source::Throwaway };
    shared::needed(&subject.manifest).map(throwaway).collect()
}

fn new_id(subject: &Subject) -> ServerId {
    let name: String = subject.name.as_str().chars().take(40).collect();
    let id = format!("test-{name}-{:08x}", rand::random::<u32>());
    id.parse().expect("a shortened name between `test-` and hex digits is a valid id")
}

struct Run<'a> {
    engine: &'a dyn Engine,
    server: &'a Observed,
    subject: &'a Subject,
    config: &'a FrozenConfig,
    events: Events<'a>,
    start: Instant,
}

impl Run<'_> {
    fn expect(&self) -> Expect<'_> {
        Expect(Values { config: self.config, secrets: &self.subject.secrets })
    }

    async fn all(&self, suite: &Suite) -> Boot {
        let waited = readiness::wait(self.engine, self.server, &self.subject.manifest).await;
        let took = self.start.elapsed();
        let ready = waited.is_ok().then_some(took);
        let mut tests = match &waited {
            Ok(()) => self.tests(suite).await,
            Err(reason) => self.not_run(suite, &reason.to_string()),
        };
        let message = waited.err().map(|reason| reason.to_string());
        tests.push(self.ended(outcome(conformance::SERVICES_READY, took, message)));
        let proposals = proposals::look(self.engine, self.server, self.subject).await;
        tests.push(self.ended(conformance::clean_stop(self.engine, self.server, &self.subject.manifest).await));
        Boot { ready, tests, proposals }
    }

    async fn tests(&self, suite: &Suite) -> Vec<TestOutcome> {
        let ready_ms = self.start.elapsed().as_millis() as u64;
        (self.events)(Event::TestServerReady { image: self.subject.image.to_string(), ready_ms });
        let gone = readiness::ended(self.engine, &self.server.server).shared();
        let recipe = suite.tests.iter().map(|test| {
            let gone = gone.clone();
            async move {
                let began = Instant::now();
                let outcomes = tokio::select! {
                    outcomes = test::run(self.engine, self.server, self.expect(), test) => outcomes,
                    reason = gone => {
                        let message = format!("the server ended: {reason}");
                        vec![outcome(&test.name, began.elapsed(), Some(message))]
                    }
                };
                outcomes.into_iter().map(|outcome| self.ended(outcome)).collect::<Vec<_>>()
            }
        });
        let root = conformance::read_only_root(self.engine, (self.server, self.expect()), &self.subject.manifest);
        let (tests, root) = tokio::join!(join_all(recipe), root);
        let mut tests = tests.concat();
        tests.push(self.ended(root));
        tests
    }

    fn not_run(&self, suite: &Suite, reason: &str) -> Vec<TestOutcome> {
        let names = suite.tests.iter().map(|test| test.name.as_str()).chain([conformance::READ_ONLY_ROOT]);
        names.map(|name| self.ended(outcome(name, Duration::ZERO, Some(format!("not run: {reason}"))))).collect()
    }

    /// The one place where what a test saw leaves the harness.
    fn ended(&self, mut outcome: TestOutcome) -> TestOutcome {
        outcome.message = outcome.message.map(|message| masked_part(&message, &self.subject.secrets));
        (self.events)(self.subject.tested(&outcome));
        outcome
    }
}
