//! What a suite saw, as it is shown.

use kiln_model::evidence::{MatrixReport, Report, TestOutcome, Verdict};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A report, with the digest it is stored under and when it expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestReport {
    /// The image's name.
    pub name: String,
    /// Digest of the image that was booted.
    pub image: String,
    /// Digest of the configuration it was booted with.
    pub config: String,
    /// Digest of the suite.
    pub suite: String,
    /// Whether every test passed.
    pub passed: bool,
    /// When the run ended, RFC 3339.
    pub finished_at: String,
    /// How the test server differed from a server in service.
    pub parameters: Vec<String>,
    /// Every test, the recipe's first, in the recipe's order.
    pub tests: Vec<TestResult>,
    /// What was seen with the further configurations of the suite.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matrix: Vec<MatrixResult>,
    /// The configuration keys that test servers of the image asked the metadata service for, in any run so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<String>,
}

impl TestReport {
    /// Every test with the name of the further configuration it ran with, if it was one.
    pub fn all(&self) -> impl Iterator<Item = (Option<&str>, &TestResult)> {
        let matrix = self.matrix.iter().flat_map(|run| run.tests.iter().map(|test| (Some(run.name.as_str()), test)));
        self.tests.iter().map(|test| (None, test)).chain(matrix)
    }
}

/// What was seen with one of the further configurations of a suite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MatrixResult {
    /// Which one.
    pub name: String,
    /// Its digest.
    pub config: String,
    /// Whether every test passed.
    pub passed: bool,
    /// When the run ended, RFC 3339: an earlier run may stand for it.
    pub finished_at: String,
    /// Every test.
    pub tests: Vec<TestResult>,
}

/// The outcome of one test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestResult {
    /// The test's name; conformance tests start with `kiln/`.
    pub name: String,
    /// Whether it did not fail.
    pub passed: bool,
    /// Whether it was left out, as its own file or program says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// Milliseconds until it passed or was given up.
    pub took_ms: u64,
    /// What was expected and what was seen.
    pub message: Option<String>,
}

impl From<&Report> for TestReport {
    fn from(report: &Report) -> Self {
        Self {
            name: report.name.clone(),
            image: report.image.to_string(),
            config: report.config.to_string(),
            suite: report.suite.to_string(),
            passed: report.verdict == Verdict::Passed,
            finished_at: report.finished_at.to_string(),
            parameters: report.parameters.clone(),
            tests: report.tests.iter().map(TestResult::from).collect(),
            matrix: report.matrix.iter().map(MatrixResult::from).collect(),
            reads: report.reads.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<&MatrixReport> for MatrixResult {
    fn from(run: &MatrixReport) -> Self {
        Self {
            name: run.name.to_string(),
            config: run.config.to_string(),
            passed: run.passed(),
            finished_at: run.finished_at.to_string(),
            tests: run.tests.iter().map(TestResult::from).collect(),
        }
    }
}

impl From<&TestOutcome> for TestResult {
    fn from(test: &TestOutcome) -> Self {
        Self {
            name: test.name.clone(),
            passed: test.verdict != Verdict::Failed,
            skipped: test.verdict == Verdict::Skipped,
            took_ms: test.took.as_millis().try_into().unwrap_or(u64::MAX),
            message: test.message.clone(),
        }
    }
}
