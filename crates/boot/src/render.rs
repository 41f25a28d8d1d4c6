//! Files that PID 1 has rendered from templates, once, before any service starts.
//!
//! Templates and values come in a memory file ([`Rendering`] as JSON) that PID 1 itself never reads: a child of it does,
//! within the limits below, and ends. So neither the template language nor the values take memory of PID 1, and a template
//! that loops or grows without end takes nothing but a launch.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A rendered file is at most this many bytes.
pub const MAX_OUTPUT: usize = 1 << 20;
/// Address space of the child that renders, in bytes.
pub const MAX_MEMORY: u64 = 64 << 20;
/// Instructions of the template engine for one file.
pub const MAX_STEPS: u64 = 1_000_000;
/// All files of a server are rendered within this time.
pub const MAX_TIME: Duration = Duration::from_secs(2);
/// The memory file is at most this many bytes.
pub const MAX_RENDERING: u64 = 8 << 20;

/// The files, as PID 1 makes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Index of the memory file in the packet's descriptors.
    pub source: usize,
    /// What is made, in the order of [`Rendering::templates`].
    pub files: Vec<Target>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Absolute path; directories that are missing on the way are made.
    pub path: String,
    /// Name or number of a user of the image.
    pub user: String,
    /// Permission bits.
    pub mode: u32,
}

/// What the child reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rendering {
    /// What templates can name.
    pub context: serde_json::Value,
    /// The templates.
    pub templates: Vec<Source>,
}

/// One template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The file's name in the recipe.
    pub name: String,
    /// Its text.
    pub content: String,
}

/// Why a template could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateFailure {
    /// Which template, by number.
    pub template: usize,
    /// The line, where it is known.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}
