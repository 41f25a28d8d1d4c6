//! The lines of a stream of the daemon, as they are shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kiln_api::{
    ApiError, ErrorCode, Event,
    client::EventStream,
    event::Outcome,
    report::{TestReport, TestResult},
};

use super::{Task, Ui, bad, dim, good, seconds, short, strong};
use crate::{exit::Exit, failure::Failure};

/// The last line of a stream.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Why it failed, if it did.
    pub error: Option<ApiError>,
    /// Seconds it took.
    pub seconds: f64,
    /// Where the groups can be reached.
    pub endpoints: Vec<String>,
    /// The reports made or used.
    pub reports: Vec<TestReport>,
    raw: Event,
}

impl Ended {
    /// Prints how it ended: the last JSON line, or a sentence.
    pub fn finish(self, ui: &Ui) -> Result<Exit, Failure> {
        match self.error {
            Some(error) if ui.json() => {
                ui.line(&self.raw);
                Ok(Exit::from_code(error.code.exit_code()))
            }
            Some(error) => Err(Failure::Ended(error)),
            None => {
                ui.result(&self.raw, || format!("{} done in {}", good(), seconds(self.seconds)));
                Ok(Exit::Ok)
            }
        }
    }
}

/// Shows every event of a stream until its result, which is given back and not shown.
pub(crate) async fn follow(ui: &Ui, stream: EventStream) -> Result<Ended, Failure> {
    let mut shown = Shown::new(ui);
    Ok(stream.finish(|event| shown.event(event)).await?.into())
}

impl From<Event> for Ended {
    /// Takes the last event of a stream, which is a result.
    fn from(last: Event) -> Self {
        let Event::Result { result, seconds, endpoints, reports, error } = last.clone() else {
            unreachable!("a stream finishes with a result");
        };
        let silent = || ApiError::new(ErrorCode::Internal, "the daemon says that it failed, and not why");
        let error = error.or_else(|| (result == Outcome::Failed).then(silent));
        Self { error, seconds, endpoints, reports, raw: last }
    }
}

/// Shows events one by one.
struct Shown<'a> {
    ui: &'a Ui,
    task: Task,
    warned: BTreeSet<String>,
    rollouts: BTreeMap<String, String>,
}

impl<'a> Shown<'a> {
    fn new(ui: &'a Ui) -> Self {
        Self { ui, task: ui.task("waiting for the daemon"), warned: BTreeSet::new(), rollouts: BTreeMap::new() }
    }

    fn event(&mut self, event: &Event) {
        if self.ui.json() {
            if !matches!(event, Event::Result { .. }) {
                self.ui.line(event);
            }
            return;
        }
        match event {
            Event::SuiteStarted { name, image, tests, .. } => {
                self.task.say(&format!("testing {name}: {tests} tests"));
                self.ui.note(&format!("{} {} {}", strong("test"), name, dim(short(image))));
            }
            Event::TestServerReady { ready_ms, .. } => {
                self.ui.note(&format!("  {} the frozen image is up {}", good(), dim(&format!("{ready_ms} ms"))));
            }
            Event::Test { matrix, result, .. } => self.test(matrix.as_deref(), result),
            Event::MatrixFinished { matrix, failed, tests, took_ms, reused, .. } => {
                self.matrix(matrix, *failed, *tests, *took_ms, *reused);
            }
            Event::SuiteFinished { passed, failed, tests, took_ms, reused, .. } => {
                self.suite(*passed, *failed, *tests, *took_ms, *reused);
            }
            Event::Proposal { reason, .. } => self.ui.note(&format!("  {} {reason}", strong("note"))),
            Event::Channel { name, channel, image } => {
                self.ui.note(&format!("{} {name}@{channel} is {}", strong("channel"), short(image)));
            }
            Event::Step { group, server, action, reason } => {
                self.step(group, server.as_deref(), action, reason);
            }
            // Only plans have them, and these are shown as such.
            Event::Difference { .. } => {}
            Event::Server { server, state, ready, reason, .. } => {
                self.server(server, state, *ready, reason.as_deref());
            }
            Event::HandOver { group, server, slot, handover } => {
                let took = handover.map(|took| format!(" in {} ms", took.as_millis())).unwrap_or_default();
                self.ui.note(&format!("{} {group}: slot {slot} went to {server}{took}", strong("hand-over")));
            }
            Event::Drill { drill } if drill.state == "running" => {
                self.ui.note(&format!("{} of {} {}", strong("drill"), drill.target(), dim(&drill.servers.join(" "))));
            }
            Event::Drill { drill } => self.ui.note(&crate::verbs::drill_text(drill)),
            Event::Rollout { group, state, updated, desired, reason, .. } => {
                self.task.say(&format!("{group}: {updated} of {desired} on the new release"));
                self.rollout(group, state, reason);
            }
            Event::Source { state, .. } if state == "fresh" && !self.ui.verbose() => {}
            Event::Source { group, key, state, reason, .. } => {
                let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
                self.ui.note(&format!("{} {group}: {key} is {state}{}", strong("source"), dim(&reason)));
            }
            // The suite and the rollout that it leads to are shown.
            Event::SourcesChanged { .. } => {}
            Event::Collector { group, to, state, reason } => {
                let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
                self.ui.note(&format!("{} {group}: {to} is {state}{}", strong("logs"), dim(&reason)));
            }
            Event::LogsLost { server, lines, reason, .. } => {
                self.ui.warn(&format!("{lines} log lines of {server} are lost: {reason}"));
            }
            Event::Warning { message } => {
                if self.warned.insert(message.clone()) {
                    self.ui.warn(message);
                }
            }
            Event::Result { .. } => {}
        }
    }

    /// A line where a rollout begins, turns or ends; how far it is, the servers' lines say.
    fn rollout(&mut self, group: &str, state: &str, reason: &str) {
        let before = self.rollouts.insert(group.to_owned(), state.to_owned());
        if before.as_deref() != Some(state) {
            self.ui.note(&format!("{} {group} {state} {}", strong("rollout"), dim(reason)));
        }
    }

    /// Of a further configuration's tests only those that failed: it has one line of its own.
    fn test(&self, matrix: Option<&str>, result: &TestResult) {
        let mark = match (result.skipped, result.passed) {
            (true, _) => dim("-"),
            (false, true) => good(),
            (false, false) => bad(),
        };
        let took = dim(&seconds(result.took_ms as f64 / 1000.0));
        let quiet = matrix.is_some() || result.name.starts_with("kiln/");
        if !result.passed || self.ui.verbose() || !quiet {
            let matrix = matrix.map(|matrix| format!("{matrix}: ")).unwrap_or_default();
            self.ui.note(&format!("  {mark} {matrix}{} {took}", result.name));
        }
        if let Some(message) = result.message.as_deref().filter(|_| !result.passed) {
            message.lines().for_each(|line| self.ui.note(&format!("      {line}")));
        }
    }

    fn matrix(&self, name: &str, failed: u32, tests: u32, took_ms: u64, reused: bool) {
        let text = match (reused, failed) {
            (true, _) => format!("{} with {name}: tested before", good()),
            (false, 0) => format!("{} with {name}: all {tests} tests passed", good()),
            (false, _) => format!("{} with {name}: {failed} of {tests} tests failed", bad()),
        };
        self.ui.note(&format!("  {text} {}", dim(&seconds(took_ms as f64 / 1000.0))));
    }

    fn suite(&self, passed: bool, failed: u32, tests: u32, took_ms: u64, reused: bool) {
        let text = match (reused, passed) {
            (true, _) => format!("{} tested before, and the report is good", good()),
            (false, true) => format!("{} all {tests} tests passed, the report is signed", good()),
            (false, false) => format!("{} {failed} of {tests} tests failed", bad()),
        };
        self.ui.note(&format!("  {text} {}", dim(&seconds(took_ms as f64 / 1000.0))));
    }

    fn step(&self, group: &str, server: Option<&str>, action: &str, reason: &str) {
        if self.ui.verbose() {
            let what = server.unwrap_or(group);
            self.ui.note(&dim(&format!("  {action} {what}: {reason}")));
        }
    }

    fn server(&self, server: &str, state: &str, ready: Option<Duration>, reason: Option<&str>) {
        let took = ready.filter(|_| state == "ready").map(|after| format!(" in {}", seconds(after.as_secs_f64())));
        let took = took.unwrap_or_default();
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let mark = match state {
            "ready" => good(),
            "failed" => bad(),
            _ if self.ui.verbose() => "·".to_owned(),
            _ => return,
        };
        self.ui.note(&format!("  {mark} {server} {state}{took}{reason}"));
    }
}
