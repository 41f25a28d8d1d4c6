//! The results of a test that has tests of its own, under names that fit a report.

use std::collections::BTreeMap;

use kiln_model::evidence::TestOutcome;

/// A name is cut after so many characters.
const MAX_NAME: usize = 160;
/// A message is cut after so many characters.
const MAX_MESSAGE: usize = 1000;

/// `goss / File: /etc/passwd: mode`
pub(super) fn name(test: &str, own: &str) -> String {
    let own: String = own.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_NAME).collect();
    format!("{test} / {own}")
}

/// Makes names different that are the same, and cuts what is long.
pub(super) fn distinct(mut outcomes: Vec<TestOutcome>) -> Vec<TestOutcome> {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for outcome in &mut outcomes {
        let count = seen.entry(outcome.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            outcome.name = format!("{} ({count})", outcome.name);
        }
        if let Some(message) = &mut outcome.message
            && let Some((cut, _)) = message.char_indices().nth(MAX_MESSAGE)
        {
            message.truncate(cut);
            message.push('…');
        }
    }
    outcomes
}
