//! Why somebody did something, in their own words: kept in the audit log and shown to others later.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// At most so many characters.
const LONGEST: usize = 500;

/// A reason on one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reason(String);

/// A text that is no reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReason {
    /// Nothing was said.
    #[error("a reason has at least one word")]
    Empty,
    /// Too much was said.
    #[error("a reason has at most {LONGEST} characters")]
    Long,
    /// It has line feeds or other control characters.
    #[error("a reason is one line without control characters")]
    Control,
}

impl Reason {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Reason {
    type Err = InvalidReason;

    fn from_str(text: &str) -> Result<Self, InvalidReason> {
        let text = text.trim();
        match text {
            "" => Err(InvalidReason::Empty),
            _ if text.chars().count() > LONGEST => Err(InvalidReason::Long),
            _ if text.chars().any(char::is_control) => Err(InvalidReason::Control),
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl TryFrom<String> for Reason {
    type Error = InvalidReason;
    fn try_from(text: String) -> Result<Self, InvalidReason> {
        text.parse()
    }
}
impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_a_reason_is_one_line_of_bounded_length() {
        assert_eq!("  a hole ".parse::<Reason>().unwrap().as_str(), "a hole");
        assert_eq!(" ".parse::<Reason>(), Err(InvalidReason::Empty));
        assert_eq!("a\nb".parse::<Reason>(), Err(InvalidReason::Control));
        assert_eq!("x".repeat(501).parse::<Reason>(), Err(InvalidReason::Long));
    }
}
