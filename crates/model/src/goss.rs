//! goss files (<https://github.com/goss-org/goss>, 0.4): YAML that says what a server must be like, run as it is.
//!
//! [`Sources`] are the files of a test as they were written; [`Sources::read`] makes [`Resource`]s of them: templates are filled
//! in, included files merged, every attribute and matcher checked. What goss has and Kiln does not know is an error with its
//! file and line, never left out. [`judge`] compares what was seen of one resource with what was expected of it. All of this is pure;
//! the test harness looks at servers.
//!
//! The behaviour is that of goss itself, read from its source at v0.4.9 and compared with it, result by result, in the tests.

mod attributes;
mod gjson;
mod include;
mod judge;
mod matcher;
mod patterns;
mod read;
mod resource;
mod semver;
mod template;
mod value;
mod yaml;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::{
    include::{sources, text},
    judge::{Judged, judge},
    matcher::Matcher,
    resource::{Check, Http, Resource, Subject},
    value::Value,
};

/// A file longer than this (bytes) is refused.
pub const MAX_FILE: u64 = 1 << 20;
/// So many files are read for one test.
pub const MAX_FILES: usize = 50;
/// So many resources are in one test.
pub const MAX_RESOURCES: usize = 1000;
/// So many checks are in one test: each is a result of the report.
pub const MAX_CHECKS: usize = 2000;

/// The files of a goss test, as they were written: they are part of the suite's digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sources {
    /// The file that the recipe names, relative to the recipe.
    pub file: String,
    /// It and the files that it includes, by their paths relative to the recipe.
    pub files: BTreeMap<String, String>,
    /// The text of the file of variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vars: Option<Vars>,
    /// What templates see as `.Env`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
}

/// A file of variables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vars {
    /// Relative to the recipe.
    pub file: String,
    /// YAML or JSON.
    pub text: String,
}

/// What is wrong with a goss file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct Problem {
    /// The file, relative to the recipe.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, in words that end a sentence.
    pub message: String,
}
