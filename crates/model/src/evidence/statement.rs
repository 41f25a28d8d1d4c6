//! A report as an in-toto Statement v1 with predicate `test-result/v0.1`, and back.
//!
//! Sources: <https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md> and
//! `spec/predicates/test-result.md`. What the predicate has no field for (when the run ended, how the test server
//! differed, each test's time and message) is one extension field named by a URI, as the framework's parsing rules ask;
//! unknown fields are ignored when reading, by the same rules. The lists of passed and failed tests are checked
//! against the details, so that readers who know only the predicate see the same truth.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{MatrixReport, Report, STATEMENT, TEST_RESULT, TestOutcome, Verdict};
use crate::{
    config::ConfigKey,
    digest::{Digest, InvalidDigest},
};

/// Why a signed payload is not a report.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// Not the JSON of such a statement.
    #[error("it is not the JSON of a test-result statement")]
    Json(#[from] serde_json::Error),
    /// Another type of statement or predicate.
    #[error("its {field} is `{found}`")]
    WrongType {
        /// `_type` or `predicateType`.
        field: &'static str,
        /// What it says.
        found: String,
    },
    /// It names not exactly one image, configuration or suite.
    #[error("it names {count} times what must be named once: {what}")]
    NotOne {
        /// The thing.
        what: &'static str,
        /// How often it is named.
        count: usize,
    },
    /// A digest is missing or invalid.
    #[error("its {what} has no valid sha256 digest")]
    Digest {
        /// The thing.
        what: &'static str,
        /// What is wrong with the text.
        #[source]
        source: InvalidDigest,
    },
    /// The summary says something else than the tests.
    #[error("its result and its tests contradict each other")]
    Contradiction,
}

#[derive(Serialize, Deserialize)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Descriptor>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(PartialEq, Serialize, Deserialize)]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) name: String,
    digest: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Predicate {
    result: Verdict,
    configuration: Vec<Descriptor>,
    passed_tests: Vec<String>,
    failed_tests: Vec<String>,
    #[serde(rename = "https://github.com/kiln-servers/kiln/report/v1")]
    details: Details,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    finished_at: jiff::Timestamp,
    parameters: Vec<String>,
    tests: Vec<TestOutcome>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    matrix: Vec<MatrixReport>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    reads: BTreeSet<ConfigKey>,
}

const CONFIGURATION: &str = "configuration";
const SUITE: &str = "suite";

/// The statement's bytes: what is signed.
pub(super) fn render(report: &Report) -> Vec<u8> {
    let statement = Statement {
        kind: STATEMENT.to_owned(),
        subject: vec![Descriptor::new(&report.name, report.image.0)],
        predicate_type: TEST_RESULT.to_owned(),
        predicate: Predicate {
            result: report.verdict,
            configuration: configuration(report),
            passed_tests: report.names(Verdict::Passed),
            failed_tests: report.names(Verdict::Failed),
            details: Details {
                finished_at: report.finished_at,
                parameters: report.parameters.clone(),
                tests: report.tests.clone(),
                matrix: report.matrix.clone(),
                reads: report.reads.clone(),
            },
        },
    };
    serde_json::to_vec(&statement).expect("plain data always serialises")
}

/// The configuration and the suite, then the further configurations of the suite.
fn configuration(report: &Report) -> Vec<Descriptor> {
    let own = [Descriptor::new(CONFIGURATION, report.config.0), Descriptor::new(SUITE, report.suite.0)];
    let matrix = report.matrix.iter().map(|run| Descriptor::new(&format!("matrix/{}", run.name), run.config.0));
    own.into_iter().chain(matrix).collect()
}

/// Reads a statement whose signature was checked.
pub(super) fn parse(payload: &[u8]) -> Result<Report, StatementError> {
    let statement: Statement = serde_json::from_slice(payload)?;
    check_type("_type", &statement.kind, STATEMENT)?;
    check_type("predicateType", &statement.predicate_type, TEST_RESULT)?;
    let Predicate { result, configuration, passed_tests, failed_tests, details } = statement.predicate;
    let subject = only(statement.subject.iter(), "subject")?;
    let named = |name: &'static str| only(configuration.iter().filter(|d| d.name == name), name);
    let report = Report {
        name: subject.name.clone(),
        image: crate::ImageDigest(subject.sha256("subject")?),
        config: crate::ConfigDigest(named(CONFIGURATION)?.sha256(CONFIGURATION)?),
        suite: crate::SuiteDigest(named(SUITE)?.sha256(SUITE)?),
        verdict: result,
        finished_at: details.finished_at,
        parameters: details.parameters,
        tests: details.tests,
        matrix: details.matrix,
        reads: details.reads,
    };
    let consistent = passed_tests == report.names(Verdict::Passed)
        && failed_tests == report.names(Verdict::Failed)
        && self::configuration(&report) == configuration
        && (result == Verdict::Failed || failed_tests.is_empty());
    if consistent { Ok(report) } else { Err(StatementError::Contradiction) }
}

pub(super) fn check_type(field: &'static str, found: &str, wanted: &str) -> Result<(), StatementError> {
    if found == wanted {
        return Ok(());
    }
    Err(StatementError::WrongType { field, found: found.chars().take(120).collect() })
}

pub(super) fn only<'a>(
    mut found: impl Iterator<Item = &'a Descriptor>,
    what: &'static str,
) -> Result<&'a Descriptor, StatementError> {
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(StatementError::NotOne { what, count: 0 }),
        (Some(_), Some(_)) => Err(StatementError::NotOne { what, count: 2 + found.count() }),
    }
}

impl Descriptor {
    pub(super) fn new(name: &str, digest: Digest) -> Self {
        Self { name: name.to_owned(), digest: BTreeMap::from([("sha256".to_owned(), digest.hex())]) }
    }
    pub(super) fn sha256(&self, what: &'static str) -> Result<Digest, StatementError> {
        let hex = self.digest.get("sha256").map_or("", String::as_str);
        format!("sha256:{hex}").parse().map_err(|source| StatementError::Digest { what, source })
    }
}
