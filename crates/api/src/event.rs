//! The lines of a stream: what happens, as it happens.
//!
//! Each line is an object whose `event` says which kind it is. Readers pass over kinds they do not know. The last line of
//! a test, an apply, a rollback, a rebuild or a down is `result`; `GET /v1/events` goes on until the reader leaves.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    difference::Difference,
    error::ApiError,
    recovery::Drill,
    report::{TestReport, TestResult},
};

/// One line of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A suite begins on a test server of this release.
    SuiteStarted {
        /// The image's name.
        name: String,
        /// Digest of the image.
        image: String,
        /// Digest of the configuration.
        config: String,
        /// How many tests will be run, conformance tests included.
        tests: u32,
    },
    /// All services of the test server are ready.
    TestServerReady {
        /// Digest of the image.
        image: String,
        /// Milliseconds since the suite began.
        ready_ms: u64,
    },
    /// One test ended.
    Test {
        /// Digest of the image.
        image: String,
        /// The further configuration of the suite it ran with, if it was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        matrix: Option<String>,
        /// Its outcome.
        #[serde(flatten)]
        result: TestResult,
    },
    /// A suite was run with one of its further configurations, or an earlier run of it stands for that.
    MatrixFinished {
        /// Digest of the image.
        image: String,
        /// The further configuration.
        matrix: String,
        /// Its digest.
        config: String,
        /// Whether every test passed.
        passed: bool,
        /// How many tests failed.
        failed: u32,
        /// How many tests there were.
        tests: u32,
        /// Milliseconds it took; 0 for an earlier run.
        took_ms: u64,
        /// Whether an earlier run was used.
        reused: bool,
    },
    /// What services wrote under test where it is lost with each server, or where they tried to write and could not: the recipe
    /// may want to declare it. No report has this, and no verdict depends on it.
    Proposal {
        /// Digest of the image.
        image: String,
        /// The directory.
        path: String,
        /// Files that were written there; 0 where nothing could be.
        files: u64,
        /// Their bytes.
        bytes: u64,
        /// All that in words, and what to declare.
        reason: String,
    },
    /// A suite ended and its report is signed and stored, or a report of an earlier run stands for it.
    SuiteFinished {
        /// Digest of the image.
        image: String,
        /// Digest of the configuration.
        config: String,
        /// Whether every test passed.
        passed: bool,
        /// How many tests failed.
        failed: u32,
        /// How many tests there were.
        tests: u32,
        /// Milliseconds it took.
        took_ms: u64,
        /// Whether a report of an earlier run was used.
        reused: bool,
    },
    /// A channel was moved.
    Channel {
        /// The image's name.
        name: String,
        /// The channel.
        channel: String,
        /// Digest of the image it points to now.
        image: String,
    },
    /// What is going to be done next to a group (or, with `plan_only`, would be), and why.
    Step {
        /// The group.
        group: String,
        /// The server it is done to, where there is one already.
        server: Option<String>,
        /// `launch`, `route`, `drain`, `stop`, `destroy`, `adopt`, …
        action: String,
        /// Why, in words.
        reason: String,
    },
    /// What differs between the image that a group has and the one it would get (`plan_only`).
    Difference {
        /// The group.
        group: String,
        /// What differs; of the files some.
        difference: Difference,
    },
    /// A server changed its state.
    Server {
        /// The group.
        group: String,
        /// The server.
        server: String,
        /// As in `status`.
        state: String,
        /// Id of its release.
        release: String,
        /// Its address, once it has one.
        address: Option<String>,
        /// Milliseconds from launch to ready, once ready.
        #[serde(default, rename = "ready_ms", with = "kiln_model::duration::millis")]
        #[schema(value_type = Option<f64>)]
        ready: Option<Duration>,
        /// Why, where there is more to say.
        reason: Option<String>,
        /// Whether a recovery drill destroyed it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        drill: bool,
        /// Whether it is a spare, which nobody has taken.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        spare: bool,
    },
    /// A slot's volumes went from one server to the next, which is ready.
    HandOver {
        /// The group.
        group: String,
        /// The server that has them now.
        server: String,
        /// The slot.
        slot: u32,
        /// Milliseconds from asking the server before to end until this one was ready.
        #[serde(default, rename = "handover_ms", with = "kiln_model::duration::millis")]
        #[schema(value_type = Option<f64>)]
        handover: Option<Duration>,
    },
    /// A recovery drill begins, or came to its end.
    Drill {
        /// What is known of it.
        #[serde(flatten)]
        drill: Box<Drill>,
    },
    /// A group's rollout moved on.
    Rollout {
        /// The group.
        group: String,
        /// `running`, `reverting`, `failed`, `done`.
        state: String,
        /// Release it comes from, if any.
        from: Option<String>,
        /// Release it goes to.
        to: String,
        /// Servers on the new release and ready.
        updated: u32,
        /// Servers wanted.
        desired: u32,
        /// Why, in words.
        reason: String,
    },
    /// A source of a group's configuration stands otherwise than before.
    Source {
        /// The group.
        group: String,
        /// The key whose value it gives.
        key: String,
        /// Where the value comes from.
        source: String,
        /// As in `status`.
        state: String,
        /// Why it is away or wrong.
        reason: Option<String>,
    },
    /// What became of a change of a group's sources.
    SourcesChanged {
        /// The group.
        group: String,
        /// As in `status`.
        state: String,
        /// Digest of the configuration proposed, where it is not the group's.
        config: Option<String>,
        /// Why, in words.
        reason: String,
    },
    /// The collector of a group's log lines is away, or answers again.
    Collector {
        /// The group.
        group: String,
        /// The collector.
        to: String,
        /// `away`, `connected`.
        state: String,
        /// Why it is away.
        reason: Option<String>,
    },
    /// Log lines of a server are gone without having arrived at their collector.
    LogsLost {
        /// The group.
        group: String,
        /// The server.
        server: String,
        /// How many.
        lines: u64,
        /// Why, in words.
        reason: String,
    },
    /// Something a person should know.
    Warning {
        /// What.
        message: String,
    },
    /// The last line.
    Result {
        /// Whether what was asked has been done.
        result: Outcome,
        /// Seconds it took.
        seconds: f64,
        /// Where the groups can be reached (apply).
        endpoints: Vec<String>,
        /// The reports made or used (test and apply), failed ones included.
        reports: Vec<TestReport>,
        /// Why it failed.
        error: Option<ApiError>,
    },
}

/// An event of `GET /v1/events`: what happened, with a number and a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Happened {
    /// Grows with every event, also over restarts of the daemon: ask for what came `after` it.
    pub id: u64,
    /// When, RFC 3339.
    pub at: String,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

impl Event {
    /// The name of its kind, as in `event`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SuiteStarted { .. } => "suite_started",
            Self::TestServerReady { .. } => "test_server_ready",
            Self::Test { .. } => "test",
            Self::SuiteFinished { .. } => "suite_finished",
            Self::MatrixFinished { .. } => "matrix_finished",
            Self::Proposal { .. } => "proposal",
            Self::Channel { .. } => "channel",
            Self::Step { .. } => "step",
            Self::Difference { .. } => "difference",
            Self::Server { .. } => "server",
            Self::HandOver { .. } => "hand_over",
            Self::Drill { .. } => "drill",
            Self::Rollout { .. } => "rollout",
            Self::Source { .. } => "source",
            Self::SourcesChanged { .. } => "sources_changed",
            Self::Collector { .. } => "collector",
            Self::LogsLost { .. } => "logs_lost",
            Self::Warning { .. } => "warning",
            Self::Result { .. } => "result",
        }
    }
}

/// `"ok"` or `"failed"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done.
    Ok,
    /// Not done; `error` says why.
    Failed,
}
