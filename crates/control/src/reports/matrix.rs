//! What was seen with the further configurations of a suite is used again for every release of the image.
//!
//! They belong to image and suite. So a run with them is put into the report of whichever release was being tested, and into
//! the reports of other releases as it is, with its own time: a report is as old as the oldest of what it says. A run is not
//! used again when [`KEPT`] of the life of a report is over, so that renewing comes before expiry.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use kiln_api::request::Fresh;
use kiln_model::{
    ImageDigest, Suite, SuiteDigest,
    evidence::{self, MatrixReport},
    fleet::EvidencePolicy,
    suite::MatrixEntry,
};

use super::{Library, ProveError, Prover, blocking};
use crate::{
    config::ConfigError,
    harness::{self, Events, Subject},
    keys::this_host,
    releases::{ImageInfo, ReleasesError},
};

/// The part of a report's life for which a run is used again: as long as reports are not renewed.
pub(crate) const KEPT: f64 = 0.8;

type Runs = Vec<MatrixReport>;
/// The newest runs of each image and suite. Held while they are made, so that each is made once.
pub(super) type Matrices = Mutex<HashMap<(ImageDigest, SuiteDigest), Arc<tokio::sync::Mutex<Runs>>>>;

/// Which runs may be used again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Again {
    /// When the tests were asked for. What ended later is used by whoever waited for it.
    pub asked: Timestamp,
    /// How much is to be run in any case.
    pub fresh: Fresh,
    /// How old a report may be.
    pub policy: EvidencePolicy,
}

impl Again {
    fn holds(&self, run: &MatrixReport) -> bool {
        let age = Duration::try_from(Timestamp::now().duration_since(run.finished_at)).unwrap_or_default();
        let young = age < self.policy.max_age.mul_f64(KEPT);
        run.finished_at >= self.asked || (run.passed() && young && self.fresh != Fresh::Always)
    }
}

impl Prover {
    /// The runs with the further configurations of a suite, in its order: earlier ones that hold, and new ones.
    pub(super) async fn matrix(
        &self,
        image: &ImageInfo,
        subject: &Subject,
        suite: &Suite,
        again: Again,
        events: Events<'_>,
    ) -> Result<Runs, ProveError> {
        if suite.matrix.is_empty() {
            return Ok(Vec::new());
        }
        let key = (image.digest, image.suite);
        let runs = self.matrices.lock().expect("no holder panics").entry(key).or_default().clone();
        let mut runs = runs.lock().await;
        if runs.is_empty() {
            *runs = self.earlier(image, again.policy).await?;
        }
        runs.retain(|run| again.holds(run));
        runs.iter().for_each(|run| events(harness::matrix_finished(subject, run)));
        let missing = suite.matrix.iter().filter(|entry| !runs.iter().any(|run| run.name == entry.name));
        let missing: Vec<_> = missing.map(|entry| self.frozen(image, entry)).collect::<Result<_, _>>()?;
        runs.extend(
            harness::run_matrix(self.engine.as_ref(), subject, missing, suite, self.throwaways.as_ref(), events)
                .await?,
        );
        let of = |entry: &MatrixEntry| runs.iter().find(|run| run.name == entry.name).cloned();
        Ok(suite.matrix.iter().filter_map(of).collect())
    }

    fn frozen(
        &self,
        image: &ImageInfo,
        entry: &MatrixEntry,
    ) -> Result<(kiln_model::MatrixName, kiln_model::config::Froze), ProveError> {
        let froze = entry.freeze(&image.manifest, self.secrets.hash_key());
        let wrong = |problems| {
            let source = ConfigError::Problems(problems);
            ProveError::Matrix { matrix: entry.name.clone(), source }
        };
        Ok((entry.name.clone(), froze.map_err(wrong)?))
    }

    /// The newest run with each configuration that a report of this host speaks of. What others saw they vouch for themselves.
    async fn earlier(&self, image: &ImageInfo, policy: EvidencePolicy) -> Result<Runs, ReleasesError> {
        let (library, image) = (self.library.clone(), image.clone());
        blocking(move || newest(library.as_ref(), &image, policy)).await
    }
}

fn newest(library: &dyn Library, image: &ImageInfo, policy: EvidencePolicy) -> Result<Runs, ReleasesError> {
    let keys = library.policy(policy)?.keys;
    let reports = library.reports(&image.digest)?;
    let opened = reports.iter().filter_map(|envelope| evidence::open(envelope, &keys).ok());
    let own = opened.filter(|opened| opened.signers.contains(&this_host())).map(|opened| opened.report);
    let ours = own.filter(|report| report.image == image.digest && report.suite == image.suite);
    let mut runs: Vec<_> = ours.flat_map(|report| report.matrix).collect();
    runs.sort_by(|a, b| (&a.name, b.finished_at).cmp(&(&b.name, a.finished_at)));
    runs.dedup_by(|later, first| later.name == first.name);
    Ok(runs)
}
