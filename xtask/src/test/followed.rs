//! `kiln logs -f` of a group whose servers are replaced: every line of every server, also the last ones of those that are gone, by
//! time.

use std::{collections::BTreeSet, process::Command, time::Duration};

use serde_json::Value;

use crate::{Outcome, lines::Lines};

/// The first line of a service, of `examples/hello`, and PID 1's last one.
const FIRST: &str = "start worker process ";
const LAST: &str = "the server ends";
/// The next line is there after this.
const LIMIT: Duration = Duration::from_secs(20);

/// A running `kiln logs -f --json`.
pub struct Followed {
    lines: Lines,
    /// The time of the line before.
    last: String,
}

impl Followed {
    /// Starts it, and waits until the servers that are there were shown.
    pub fn start(logs: Command, there: &[String]) -> Outcome<Self> {
        let mut followed = Self { lines: Lines::of(logs)?, last: String::new() };
        followed.until_none_is(there.iter().map(|id| (FIRST, id.clone())).collect())?;
        Ok(followed)
    }

    /// Reads on until the servers that are gone have said their last, and the new ones their first.
    pub fn until_replaced(&mut self, gone: &[String], new: &[String]) -> Outcome {
        let mut missing: BTreeSet<_> = gone.iter().map(|id| (LAST, id.clone())).collect();
        missing.extend(new.iter().map(|id| (FIRST, id.clone())));
        self.until_none_is(missing)
    }

    fn until_none_is(&mut self, mut missing: BTreeSet<(&'static str, String)>) -> Outcome {
        while !missing.is_empty() {
            let line = self.lines.next(LIMIT).map_err(|error| format!("{error}; not shown yet: {missing:?}"))?;
            let line: Value = serde_json::from_str(&line)?;
            let [server, text, time] = ["server", "text", "time"].map(|key| line[key].as_str().unwrap_or_default());
            // Without its `Z` a time of fewer digits comes before a later one.
            let time = time.trim_end_matches('Z');
            if time < self.last.as_str() {
                return Err(format!("a line of {time} was shown after one of {}: {line}", self.last).into());
            }
            time.clone_into(&mut self.last);
            missing.retain(|(what, id)| id != server || !text.contains(what));
        }
        Ok(())
    }
}
