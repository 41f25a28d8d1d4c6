//! What CFEngine's agent says with `--verbose`: `BEGIN promise`, where it stands, its errors, and the outcome.

use super::{Record, Resource, State, in_recipe};

/// Promises inside an edit: the file's own promise, which they are part of, tells the outcome.
const INNER: [&str; 5] = ["delete_lines", "field_edits", "insert_lines", "replace_patterns", "classes"];
/// A longer text of the agent (bytes) is cut.
const LONGEST: usize = 2000;

/// What begins a line that is not for people.
pub(super) const VERBOSE: &[u8] = b" verbose: ";

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
        let Some(text) = text.strip_prefix("verbose: ") else { return syntax(text) };
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

    /// One before any promise is of the policy as a whole.
    fn error(&mut self, error: &str) -> Option<Record> {
        if self.promise.is_none() {
            return Some(policy(None, None, error));
        }
        if self.errors.len() < 20 {
            self.errors.push(cut(error));
        }
        None
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

/// `/run/kiln/recipe/policy.cf:3:9: error: syntax error`.
fn syntax(text: &str) -> Option<Record> {
    let (place, error) = text.split_once(": error: ")?;
    let (place, _) = place.rsplit_once(':')?;
    let (file, line) = place.rsplit_once(':')?;
    Some(policy(Some(in_recipe(&cut(file))), line.parse().ok(), error))
}

fn policy(file: Option<String>, line: Option<u32>, error: &str) -> Record {
    let message = Some(cut(error.trim()));
    Record::Result(Resource { state: State::Failed, what: "the policy".to_owned(), file, line, message })
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}
