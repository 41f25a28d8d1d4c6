//! The fake passes the suite that it lets others be tested with, with good manners and with bad ones.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kiln_engine::{Engine, Observed};
use kiln_model::{Digest, FrozenConfig, ImageDigest, ImageManifest, VerifiedRelease, trust};
use kiln_testkit::{
    FakeEngine, Manners,
    conformance::{self, Factory},
};

struct Fakes(Manners, std::sync::Mutex<Option<FakeEngine>>);

impl Fakes {
    fn new(manners: Manners) -> Self {
        Self(manners, std::sync::Mutex::new(None))
    }
}

#[async_trait::async_trait]
impl Factory for Fakes {
    async fn engine(&self) -> Arc<dyn Engine> {
        let engine = FakeEngine::new(self.0.clone());
        *self.1.lock().unwrap() = Some(engine.clone());
        Arc::new(engine)
    }
    async fn reopened(&self, engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
        engine
    }
    fn release(&self) -> VerifiedRelease {
        trust::admit_for_test(ImageDigest(Digest::of(b"image")), FrozenConfig::default())
    }
    fn manifest(&self) -> Arc<ImageManifest> {
        let name = "fake".parse().unwrap();
        Arc::new(ImageManifest::new(name, BTreeMap::new()))
    }
    async fn kill(&self, _engine: &Arc<dyn Engine>, server: &Observed) {
        let engine = self.1.lock().unwrap().clone().unwrap();
        engine.kill(&server.server);
    }
}

#[tokio::test(start_paused = true)]
async fn engine_the_fake_passes_the_suite() {
    conformance::run(&Fakes::new(Manners::default())).await;
}

#[tokio::test(start_paused = true)]
async fn engine_a_slow_and_eventually_consistent_fake_passes_the_suite() {
    let slow = Duration::from_secs(2);
    let manners =
        Manners { launch: slow, stop: slow, destroy: slow, shows_after: slow, ready: slow, ..Manners::default() };
    conformance::run(&Fakes::new(manners)).await;
}
