//! The further configurations of a suite, `[[test.matrix]]`: one boot of the frozen image with each.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use kiln_api::Event;
use kiln_engine::Engine;
use kiln_model::{MatrixName, Suite, config::Froze, evidence::MatrixReport};

use super::{Events, HarnessError, LiveOfTests, Subject};
use crate::throwaway::Throwaways;

/// So many of them are booted at a time.
const AT_ONCE: usize = 4;

/// Runs a suite with further configurations of it. All test servers are gone when this returns, whatever happened.
pub async fn run_matrix(
    engine: &dyn Engine,
    subject: &Subject,
    configurations: Vec<(MatrixName, Froze)>,
    suite: &Suite,
    throwaways: Option<&Arc<Throwaways>>,
    events: Events<'_>,
) -> Result<Vec<MatrixReport>, HarnessError> {
    let launch = |source| HarnessError::Launch { name: subject.name.clone(), image: subject.image, source };
    engine.prepare(subject.image).await.map_err(launch)?;
    let runs = configurations.into_iter().map(|(name, froze)| {
        let live = LiveOfTests { values: froze.live, ..subject.live.clone() };
        let secrets = Arc::new(froze.secrets);
        let subject = Subject { secrets, matrix: Some(name.clone()), live, ..subject.clone() };
        async move {
            let start = Instant::now();
            let boot = super::boot(engine, &subject, &froze.config, suite, throwaways, events).await?;
            let config = froze.config.digest();
            let run = MatrixReport { name, config, finished_at: jiff::Timestamp::now(), tests: boot.tests };
            events(finished(&subject, &run, Some(start.elapsed())));
            Ok(run)
        }
    });
    let runs: Vec<Result<MatrixReport, HarnessError>> = stream::iter(runs).buffered(AT_ONCE).collect().await;
    runs.into_iter().collect()
}

/// What is told of a configuration whose tests ended, or of an earlier run that stands for it.
pub(super) fn finished(subject: &Subject, run: &MatrixReport, took: Option<Duration>) -> Event {
    let failed = run.tests.iter().filter(|test| test.verdict == kiln_model::evidence::Verdict::Failed).count();
    Event::MatrixFinished {
        image: subject.image.to_string(),
        matrix: run.name.to_string(),
        config: run.config.to_string(),
        passed: run.passed(),
        failed: failed as u32,
        tests: run.tests.len() as u32,
        took_ms: took.unwrap_or_default().as_millis() as u64,
        reused: took.is_none(),
    }
}
