//! What is wrong with a file somebody wrote: where, what stands there, and what to write instead.
//!
//! A [`Diagnostic`] is plain data, so it can be printed for people (submodule `render`) and for programs (its `Serialize`
//! form). [`Diagnostics`] is everything found in one file in one go: a person who mistyped three keys is told of three keys.

mod render;

use std::{fmt, ops::Range};

use serde::Serialize;

/// A text shown in a diagnostic is cut after this many characters.
const SHOWN: usize = 80;

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file, as the person named it.
    pub file: String,
    /// Line of the first offending character, from 1.
    pub line: usize,
    /// Column of the first offending character, from 1, in characters.
    pub column: usize,
    /// Bytes of the file that offend.
    pub span: Range<usize>,
    /// The offending text: the first line of it, at most 80 characters.
    pub text: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
    /// The other half of a contradiction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<Related>,
}

/// The other half of a contradiction, in the same file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Related {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// Bytes of the file.
    pub span: Range<usize>,
    /// What stands there.
    pub message: String,
}

/// Everything that is wrong with a file, in the order of the file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostics {
    /// The file, as the person named it.
    pub file: String,
    /// What was found.
    pub diagnostics: Vec<Diagnostic>,
    #[serde(skip)]
    source: String,
}

impl Diagnostic {
    /// A diagnostic about `span` of `source`, which is cut to the source's characters.
    pub fn new(file: &str, source: &str, span: Range<usize>, message: String, help: String) -> Self {
        let span = within(source, span);
        let (line, column) = position(source, span.start);
        let text = source[span.clone()].lines().next().unwrap_or_default().chars().take(SHOWN).collect();
        Self { file: file.to_owned(), line, column, span, text, message, help, related: None }
    }

    /// Adds the other half of a contradiction.
    pub fn with_related(mut self, source: &str, span: Range<usize>, message: String) -> Self {
        let span = within(source, span);
        let (line, column) = position(source, span.start);
        self.related = Some(Related { line, column, span, message });
        self
    }
}

impl Diagnostics {
    /// Puts what was found into the order of the file; none if nothing was found.
    pub fn new(file: &str, source: &str, mut diagnostics: Vec<Diagnostic>) -> Option<Self> {
        diagnostics.sort_by_key(|d| (d.span.start, d.span.end));
        diagnostics.dedup();
        (!diagnostics.is_empty()).then(|| Self { file: file.to_owned(), source: source.to_owned(), diagnostics })
    }

    /// The whole text of the file.
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// One line each, as compilers write them: `image.toml:3:1: message`.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, d) in self.diagnostics.iter().enumerate() {
            let end = if index + 1 == self.diagnostics.len() { "" } else { "\n" };
            write!(f, "{}:{}:{}: {}{end}", d.file, d.line, d.column, d.message)?;
        }
        Ok(())
    }
}
impl std::error::Error for Diagnostics {}

/// A quotation of somebody's text for a message: cut, and control characters made visible.
pub(crate) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN).flat_map(escape).collect();
    if text.chars().nth(SHOWN).is_some() { format!("{cut}…") } else { cut }
}

fn escape(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}

fn within(source: &str, span: Range<usize>) -> Range<usize> {
    let start = floor(source, span.start);
    start..floor(source, span.end).max(start)
}

fn floor(source: &str, index: usize) -> usize {
    let index = index.min(source.len());
    (0..=index).rev().find(|i| source.is_char_boundary(*i)).unwrap_or(0)
}

fn position(source: &str, index: usize) -> (usize, usize) {
    let before = &source[..index];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
