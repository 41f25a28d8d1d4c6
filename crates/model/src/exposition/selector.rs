//! Which samples are meant: `jobs_waiting`, `jobs{queue="mail"}`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::line;

const LONGEST: usize = 512;

/// A metric's name and labels that its samples must have; they may have others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    name: String,
    labels: Vec<(String, String)>,
}

/// A text that names no metric.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// Far too long.
    #[error("it is longer than {LONGEST} characters")]
    Long,
    /// Not a name with or without labels.
    #[error("a metric is a name, and labels where they matter: `jobs{{queue=\"mail\"}}`")]
    Form,
}

impl Selector {
    /// Whether a line is a sample with this name.
    pub(super) fn is_named_by(&self, line: &str) -> bool {
        line.get(..line::name_length(line)) == Some(self.name.as_str())
    }

    /// Whether a sample has the labels.
    pub(super) fn holds(&self, labels: &[(String, String)]) -> bool {
        self.labels.iter().all(|wanted| labels.contains(wanted))
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;
    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        if text.len() > LONGEST {
            return Err(InvalidSelector::Long);
        }
        let (name, rest) = text.split_at(line::name_length(text));
        match line::labels(rest) {
            Some((labels, "")) if !name.is_empty() => Ok(Self { name: name.to_owned(), labels }),
            _ => Err(InvalidSelector::Form),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (index, (label, value)) in self.labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(f, "{}{label}=\"{value}\"", if index == 0 { "{" } else { "," })?;
        }
        f.write_str(if self.labels.is_empty() { "" } else { "}" })
    }
}

impl TryFrom<String> for Selector {
    type Error = InvalidSelector;
    fn try_from(text: String) -> Result<Self, InvalidSelector> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}
