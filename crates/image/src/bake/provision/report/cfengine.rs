//! What CFEngine's agent says with `--verbose`: `BEGIN promise`, where it stands, its errors, and the outcome.

use super::{Record, Resource, State, in_recipe};

/// Promises inside an edit: the file's own promise, which they are part of, tells the outcome.
const INNER: [&str; 5] = ["delete_lines", "field_edits", "insert_lines", "replace_patterns", "classes"];
/// A longer text of the agent (bytes) is cut.
const LONGEST: usize = 2000;

/// The promise that the agent is at.
#[derive(Debug, Default)]
pub(super) struct Listener {
    promise: Option<Resource>,
    /// What has been said of a promise last: pass 2 and 3 of one that is settled say nothing new.
    errors: Vec<String>,
    /// Whether the agent is at a promise inside an edit.
    inner: bool,
}

impl Listener {
    /// Understands one line; a promise is told when its outcome is known.
    pub(super) fn line(&mut self, line: &[u8]) -> Option<Record> {
        let text = std::str::from_utf8(line).ok()?.trim();
        if let Some(error) = text.strip_prefix("error: ") {
            return self.error(error);
        }
        let text = text.strip_prefix("verbose: ")?;
        if let Some(rest) = text.strip_prefix("P: BEGIN promise '") {
            self.begin(rest);
        } else if let Some(what) = text.strip_prefix("P:    Promiser/affected object: ") {
            if let Some(promise) = self.promise.as_mut().filter(|_| !self.inner) {
                promise.what = cut(&format!("{} {what}", promise.what));
            }
        } else if let Some(rest) = text.strip_prefix("Additional promise info: ") {
            self.place(rest);
        } else if let Some(outcome) = text.strip_prefix("A: Promise ") {
            return self.outcome(outcome);
        }
        None
    }

    /// `promise_policy_cf_4' of type "files" (pass 1)`: a promise without a handle is called by its file and line.
    fn begin(&mut self, rest: &str) {
        let (handle, kind) = rest.split_once("' of type \"").unwrap_or((rest, ""));
        let kind_name = kind.split('"').next().unwrap_or_default();
        self.inner = INNER.contains(&kind_name);
        if self.inner {
            return;
        }
        let line = handle.strip_prefix("promise_").and_then(|name| name.rsplit_once('_'));
        let line = line.and_then(|(_, line)| line.parse().ok());
        self.errors.clear();
        self.promise = Some(Resource { state: State::Same, what: cut(kind_name), file: None, line, message: None });
    }

    /// `source path '/run/kiln/recipe/policy.cf' at line 4`, also of promises inside an edit, which are not told.
    fn place(&mut self, rest: &str) {
        let source = rest.split_once("source path '").and_then(|(_, rest)| rest.split_once("' at line "));
        let Some((promise, (file, line))) = self.promise.as_mut().zip(source) else { return };
        promise.file = Some(in_recipe(&cut(file)));
        promise.line = line.split(|c: char| !c.is_ascii_digit()).next().and_then(|line| line.parse().ok());
    }

    /// `/run/kiln/recipe/policy.cf:3:9: error: …` is one of the policy's text, before any promise.
    fn error(&mut self, error: &str) -> Option<Record> {
        if self.promise.is_some() {
            if self.errors.len() < 20 {
                self.errors.push(cut(error));
            }
            return None;
        }
        let mut parts = error.splitn(4, ':');
        let (file, line) = (parts.next()?, parts.next()?.parse().ok()?);
        let message = parts.nth(1).map(|text| cut(text.trim()));
        let (what, file) = ("the policy".to_owned(), Some(in_recipe(&cut(file))));
        Some(Record::Result(Resource { state: State::Failed, what, file, line: Some(line), message }))
    }

    fn outcome(&mut self, outcome: &str) -> Option<Record> {
        let promise = self.promise.take()?;
        let state = match outcome.trim_end_matches('!') {
            "REPAIRED" => State::Changed,
            "NOT KEPT" => State::Failed,
            _ => State::Same,
        };
        let message = (!self.errors.is_empty()).then(|| self.errors.join("\n"));
        Some(Record::Result(Resource { state, message, ..promise }))
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}
