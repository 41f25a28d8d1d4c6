//! Reports: what a suite saw, as an in-toto statement in a DSSE envelope.
//!
//! Formats: in-toto Statement v1, predicate `https://in-toto.io/attestation/test-result/v0.1`, DSSE v1 with payload
//! type `application/vnd.in-toto+json`. The statement's subject is the image (its manifest digest); the
//! predicate's `configuration` list names the configuration and the suite by digest.
//!
//! [`seal`] and [`open`] go from a [`Report`] to a signed [`Envelope`] and back. Nothing in an envelope is believed
//! before one of its signatures verifies with a trusted key; the key id in it is only a hint.

mod approval;
mod attestation;
mod envelope;
mod in_toto;
mod provenance;
mod statement;

use std::{collections::BTreeSet, time::Duration};

pub use approval::{APPROVAL, Approval, Intent, is_approval, open_approval, seal_approval};
pub use attestation::{Attestation, AttestationError, Attested};
pub use ed25519_dalek::{SigningKey, VerifyingKey};
pub use envelope::{MAX_ENVELOPE_BYTES, MAX_SIGNATURES, OpenError, key_id, open, pae, parse, peek, render, seal};
pub use in_toto::StatementError;
pub use provenance::{BUILD_TYPE, BUILDER, BakeInputs, Material, PROVENANCE, Provenance};

use serde::{Deserialize, Serialize};

use crate::{
    config::ConfigKey,
    digest::{ConfigDigest, ImageDigest, SuiteDigest},
    id::{KeyName, MatrixName},
};

/// `predicateType` of a report.
pub const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";
/// `_type` of a statement.
pub const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// DSSE payload type of a statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Whether a test or a suite passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// All was as expected.
    Passed,
    /// Something was not as expected.
    Failed,
    /// It was left out, as its own file or program says. A suite that has such tests can pass.
    Skipped,
}

/// The outcome of one test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestOutcome {
    /// The test's name; conformance tests start with `kiln/`.
    pub name: String,
    /// Whether it passed.
    pub verdict: Verdict,
    /// How long it took until it passed or was given up.
    #[serde(with = "crate::duration")]
    pub took: Duration,
    /// What was seen instead of what was expected.
    pub message: Option<String>,
}

/// What was seen when a suite was run on a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The image's name, for people.
    pub name: String,
    /// The image that was booted.
    pub image: ImageDigest,
    /// The configuration it was booted with.
    pub config: ConfigDigest,
    /// The tests that were run.
    pub suite: SuiteDigest,
    /// Passed only if no test failed, also with every configuration of the matrix.
    pub verdict: Verdict,
    /// When the run ended.
    pub finished_at: jiff::Timestamp,
    /// How the test server differed from a server in service, in words.
    pub parameters: Vec<String>,
    /// Every test.
    pub tests: Vec<TestOutcome>,
    /// What was seen with the further configurations of the suite, by this run or an earlier one.
    pub matrix: Vec<MatrixReport>,
    /// The configuration keys that test servers of the image have asked for, in any run so far.
    pub reads: BTreeSet<ConfigKey>,
}

/// What was seen when a suite was run with one of its further configurations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MatrixReport {
    /// Which configuration.
    pub name: MatrixName,
    /// Its digest on the host that ran it.
    pub config: ConfigDigest,
    /// When that run ended.
    pub finished_at: jiff::Timestamp,
    /// Every test.
    pub tests: Vec<TestOutcome>,
}

impl MatrixReport {
    /// Whether no test failed.
    pub fn passed(&self) -> bool {
        self.tests.iter().all(|test| test.verdict != Verdict::Failed)
    }
}

impl Report {
    /// When the oldest of what it says was seen: from then on it ages.
    pub fn seen_at(&self) -> jiff::Timestamp {
        self.matrix.iter().map(|run| run.finished_at).chain([self.finished_at]).min().unwrap_or(self.finished_at)
    }

    /// The names of the tests that ended like this; those of the matrix with their configuration before them.
    pub fn names(&self, verdict: Verdict) -> Vec<String> {
        let of = |tests: &[TestOutcome]| -> Vec<String> {
            tests.iter().filter(|test| test.verdict == verdict).map(|test| test.name.clone()).collect()
        };
        let matrix = self
            .matrix
            .iter()
            .flat_map(|run| of(&run.tests).into_iter().map(|test| format!("{}: {test}", run.name)).collect::<Vec<_>>());
        of(&self.tests).into_iter().chain(matrix).collect()
    }

    /// How many tests were run.
    pub fn count(&self) -> usize {
        self.tests.len() + self.matrix.iter().map(|run| run.tests.len()).sum::<usize>()
    }
}

/// A report that trusted keys signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What was seen.
    pub report: Report,
    /// The trusted keys that signed it, each once.
    pub signers: BTreeSet<KeyName>,
}

/// A DSSE envelope (<https://github.com/secure-systems-lab/dsse/blob/master/envelope.md>).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Type of the payload.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// Base64 of the payload.
    pub payload: String,
    /// One or more signatures over the pre-authentication encoding.
    pub signatures: Vec<Signature>,
}

/// A signature of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Key id: hex SHA-256 of the public key's 32 bytes. Not signed: a hint only.
    #[serde(default)]
    pub keyid: String,
    /// Base64 of the 64 signature bytes.
    pub sig: String,
}
