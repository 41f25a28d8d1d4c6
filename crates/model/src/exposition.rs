//! One number out of Prometheus' text format, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats), or out of a
//! bare number.
//!
//! The samples that a [`Selector`] names are added up. Every one of them must be a number that a load can be, and none may be
//! old or from the future: a sum of which a part is wrong is not given. Lines about anything else are not looked at. What is
//! missing, not a number, below zero, old or unreadable is an error with words for people, never a 0.

mod line;
mod selector;

use std::time::Duration;

use jiff::Timestamp;

pub use self::selector::{InvalidSelector, Selector};

/// A sample that says when it was taken is believed for so long, also if its clock is ahead by so much.
pub const MAX_AGE: Duration = Duration::from_secs(60);
/// So much of a text that is wrong is shown.
const SHOWN: usize = 40;

/// Why there is no number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoNumber {
    /// No sample has the name and the labels.
    #[error("the answer has no sample of `{0}`")]
    Missing(Selector),
    /// A line with the name is not in the format.
    #[error("line {0} of the answer is not in Prometheus' text format")]
    Malformed(usize),
    /// The answer is not a bare number.
    #[error("the answer is not a number: `{0}`")]
    NotBare(String),
    /// `NaN`.
    #[error("the value is not a number (NaN)")]
    NotANumber,
    /// `+Inf`, or a sum that is too large.
    #[error("the value is infinite")]
    Infinite,
    /// Below zero.
    #[error("the value is negative")]
    Negative,
    /// Older than [`MAX_AGE`].
    #[error("the value is {0} s old")]
    Stale(i64),
    /// Further ahead than [`MAX_AGE`].
    #[error("the value is from {0} s in the future")]
    Ahead(i64),
}

/// The sum of the samples that the selector names.
pub fn sum(text: &str, selector: &Selector, now: Timestamp) -> Result<f64, NoNumber> {
    let mut total = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_matches([' ', '\t', '\r']);
        if !selector.is_named_by(line) {
            continue;
        }
        let sample = line::sample(line).ok_or(NoNumber::Malformed(index + 1))?;
        if selector.holds(&sample.labels) {
            is_fresh(sample.at_ms, now)?;
            *total.get_or_insert(0.0) += load(sample.value)?;
        }
    }
    load(total.ok_or_else(|| NoNumber::Missing(selector.clone()))?)
}

/// A text that is nothing but a number.
pub fn bare(text: &str) -> Result<f64, NoNumber> {
    let text = text.trim();
    let shown = || NoNumber::NotBare(text.chars().filter(|c| !c.is_control()).take(SHOWN).collect());
    load(line::number(text).ok_or_else(shown)?)
}

fn load(value: f64) -> Result<f64, NoNumber> {
    match value {
        _ if value.is_nan() => Err(NoNumber::NotANumber),
        _ if value < 0.0 => Err(NoNumber::Negative),
        _ if value.is_infinite() => Err(NoNumber::Infinite),
        // Also where it was -0.
        _ => Ok(value + 0.0),
    }
}

fn is_fresh(at_ms: Option<i64>, now: Timestamp) -> Result<(), NoNumber> {
    let Some(at_ms) = at_ms else { return Ok(()) };
    let age = now.as_millisecond().saturating_sub(at_ms) / 1000;
    match u64::try_from(age.saturating_abs()) {
        Ok(apart) if apart <= MAX_AGE.as_secs() => Ok(()),
        _ if age > 0 => Err(NoNumber::Stale(age)),
        _ => Err(NoNumber::Ahead(age.saturating_neg())),
    }
}

/// Whatever the text is: an answer or an error, and what a selector shows is read as the same one.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    if let Ok(selector) = first.parse::<Selector>() {
        assert_eq!(selector.to_string().parse::<Selector>().as_ref(), Ok(&selector));
        let total = sum(rest, &selector, Timestamp::UNIX_EPOCH);
        assert!(total.is_err() || total.is_ok_and(|total| total.is_finite() && total >= 0.0));
    }
    assert!(bare(&text).is_err() || bare(&text).is_ok_and(|number| number.is_finite() && number >= 0.0));
}

#[cfg(test)]
mod tests;
