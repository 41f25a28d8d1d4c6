//! Who may say of which images that they passed.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    digest::SuiteDigest,
    id::{ImageName, InvalidName, KeyName},
};

/// Who may say what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Rules {
    /// Every trusted key, alone, of every image.
    #[default]
    AnyKey,
    /// The first rule that an image's name fits decides; an image that fits none is not launched.
    Listed(Vec<TrustRule>),
}

/// What is wanted for images of some names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustRule {
    /// For which images.
    pub images: Vec<ImagePattern>,
    /// Whose reports count; empty: every trusted key's.
    pub keys: Vec<KeyName>,
    /// So many of them must have seen the tests pass, each in a report of its own or in one that they signed together.
    pub threshold: u32,
    /// The suites that count; empty: whatever suite the keys' owners ran.
    pub suites: Vec<SuiteDigest>,
    /// A report older than this has expired, also where a fleet would take it.
    pub max_age: Option<Duration>,
}

impl Rules {
    /// The rule for an image's name.
    pub fn rule(&self, image: &ImageName) -> Option<TrustRule> {
        match self {
            Self::AnyKey => Some(TrustRule::any()),
            Self::Listed(rules) => rules.iter().find(|rule| rule.images.iter().any(|p| p.fits(image))).cloned(),
        }
    }
}

impl TrustRule {
    /// Every key, alone, of every image.
    fn any() -> Self {
        let images = vec![ImagePattern { prefix: String::new(), open: true }];
        Self { images, keys: Vec::new(), threshold: 1, suites: Vec::new(), max_age: None }
    }
    /// Whether a key's reports count.
    pub fn may_sign(&self, key: &KeyName) -> bool {
        self.keys.is_empty() || self.keys.contains(key)
    }
    /// Whether a suite counts.
    pub fn takes(&self, suite: &SuiteDigest) -> bool {
        self.suites.is_empty() || self.suites.contains(suite)
    }
}

/// Names of images: one name, or all that begin alike (`web-*`, `*`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImagePattern {
    prefix: String,
    open: bool,
}

/// A text that is no name of images.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no images: write a name, or how the names begin and `*`")]
pub struct InvalidPattern {
    text: String,
}

impl ImagePattern {
    /// Whether a name fits.
    pub fn fits(&self, image: &ImageName) -> bool {
        match self.open {
            true => image.as_str().starts_with(&self.prefix),
            false => image.as_str() == self.prefix,
        }
    }
    /// Whether every name that fits the other fits this one.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match self.open {
            true => other.prefix.starts_with(&self.prefix),
            false => self == other,
        }
    }
}

impl FromStr for ImagePattern {
    type Err = InvalidPattern;
    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = |_: InvalidName| InvalidPattern { text: crate::diagnostic::shown(text) };
        match text.strip_suffix('*') {
            Some("") => Ok(Self { prefix: String::new(), open: true }),
            // With a letter behind it, the beginning of a name is a name.
            Some(prefix) => {
                format!("{prefix}x").parse::<ImageName>().map_err(invalid)?;
                Ok(Self { prefix: prefix.to_owned(), open: true })
            }
            None => {
                text.parse::<ImageName>().map_err(invalid)?;
                Ok(Self { prefix: text.to_owned(), open: false })
            }
        }
    }
}

impl fmt::Display for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.prefix, if self.open { "*" } else { "" })
    }
}
impl TryFrom<String> for ImagePattern {
    type Error = InvalidPattern;
    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        text.parse()
    }
}
impl From<ImagePattern> for String {
    fn from(pattern: ImagePattern) -> Self {
        pattern.to_string()
    }
}
