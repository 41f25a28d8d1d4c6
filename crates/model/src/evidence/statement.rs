//! A report as an in-toto Statement v1 with predicate `test-result/v0.1`, and back.
//!
//! Sources: <https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md> and
//! `spec/predicates/test-result.md`. What the predicate has no field for (when the run ended, how the test server
//! differed, each test's time and message) is one extension field named by a URI, as the framework's parsing rules ask;
//! unknown fields are ignored when reading, by the same rules. The lists of passed and failed tests are checked
//! against the details, so that readers who know only the predicate see the same truth.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    MatrixReport, Report, TEST_RESULT, TestOutcome, Verdict,
    in_toto::{Descriptor, Statement, StatementError, only},
};
use crate::config::ConfigKey;

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
        name: report.name.clone(),
        image: report.image,
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
    statement.render()
}

/// The configuration and the suite, then the further configurations of the suite.
fn configuration(report: &Report) -> Vec<Descriptor> {
    let own = [Descriptor::new(CONFIGURATION, report.config.0), Descriptor::new(SUITE, report.suite.0)];
    let matrix = report.matrix.iter().map(|run| Descriptor::new(&format!("matrix/{}", run.name), run.config.0));
    own.into_iter().chain(matrix).collect()
}

/// Reads a statement whose signature was checked.
pub(super) fn parse(payload: &[u8]) -> Result<Report, StatementError> {
    let statement = Statement::<Predicate>::parse_kind(payload, TEST_RESULT)?;
    let Predicate { result, configuration, passed_tests, failed_tests, details } = statement.predicate;
    let named = |name: &'static str| only(configuration.iter().filter(|d| d.name == name), name);
    let report = Report {
        name: statement.name,
        image: statement.image,
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
