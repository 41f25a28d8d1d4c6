//! Lines of the file to instructions: parser directives, comments, lines that go on, and heredocs.
//!
//! An instruction's text is put together from pieces of the file; [`Logical::source`] leads back, so that a fault is shown
//! where it stands.

use std::ops::Range;

use super::{found::Found, words};

/// An instruction has at most so many heredocs.
const MAX_HEREDOCS: usize = 64;
/// The instructions that take heredocs.
const TAKES_HEREDOCS: [&str; 3] = ["add", "copy", "run"];

/// A text that stands between `<<NAME` and `NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// Its name.
    pub name: String,
    /// The word as written: `<<EOF`, `<<-"EOF"`.
    pub word: String,
    /// Whether variables stand for their values: the name has no quotes.
    pub expands: bool,
    /// Its lines, each with a line feed; without tabs in front where the word has a `-`.
    pub content: String,
    /// Where its lines begin in the file.
    pub at: usize,
}

/// An instruction as one text.
#[derive(Debug)]
pub(super) struct Logical {
    /// `RUN apt-get update`
    pub(super) text: String,
    /// Offset in the text, and in the file, of each piece.
    pieces: Vec<(usize, usize)>,
    /// Bytes of the file from the instruction's begin to its end, heredocs not counted.
    pub(super) span: Range<usize>,
    pub(super) heredocs: Vec<Heredoc>,
}

impl Logical {
    /// Where a part of the text stands in the file.
    pub(super) fn source(&self, part: Range<usize>) -> Range<usize> {
        let find = |at: usize| {
            let piece = self.pieces.iter().rev().find(|(start, _)| *start <= at).unwrap_or(&self.pieces[0]);
            piece.1 + (at - piece.0)
        };
        let start = find(part.start);
        start..find(part.end.max(part.start)).max(start)
    }
}

/// The physical lines of a text, without their ends.
struct Lines<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lines<'t> {
    fn peek(&self) -> Option<(usize, &'t str)> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let line = rest.split('\n').next().unwrap_or_default();
        Some((self.at, line.strip_suffix('\r').unwrap_or(line)))
    }

    fn next(&mut self) -> Option<(usize, &'t str)> {
        let found = self.peek()?;
        self.at += self.text[self.at..].find('\n').map_or(self.text.len() - self.at, |end| end + 1);
        Some(found)
    }
}

/// The instructions of a file, and its escape character.
pub(super) fn instructions(text: &str, found: &Found<'_>) -> (Vec<Logical>, char) {
    let mut lines = Lines { text, at: if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 } };
    let escape = directives(&mut lines, found);
    let mut all = Vec::new();
    while let Some((start, line)) = lines.next() {
        let trimmed = line.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if all.len() == super::MAX_INSTRUCTIONS {
            let message = format!("there are more than {} instructions", super::MAX_INSTRUCTIONS);
            found.report::<()>(start..start + line.len(), message, "split the file, or join instructions with `&&`");
            break;
        }
        let mut logical = one(&mut lines, start + line.len() - trimmed.len(), trimmed, escape);
        heredocs(&mut logical, &mut lines, escape, found);
        all.push(logical);
    }
    (all, escape)
}

fn one(lines: &mut Lines<'_>, start: usize, first: &str, escape: char) -> Logical {
    let mut logical = Logical { text: String::new(), pieces: Vec::new(), span: start..start, heredocs: Vec::new() };
    let (mut at, mut line) = (start, first);
    loop {
        let (content, goes_on) = continues(line, escape);
        logical.pieces.push((logical.text.len(), at));
        logical.text.push_str(content);
        logical.span.end = at + content.len();
        if !goes_on {
            return logical;
        }
        // Comments and empty lines between the lines of an instruction are passed over.
        loop {
            let Some((next_at, next)) = lines.next() else { return logical };
            let trimmed = next.trim();
            if !trimmed.is_empty() && !trimmed.starts_with('#') {
                (at, line) = (next_at, next);
                break;
            }
        }
    }
}

/// The line without an escape character at its end, and whether there is one. Two of them are none.
fn continues(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(content) if !content.ends_with(escape) => (content, true),
        _ => (line, false),
    }
}

/// `# syntax=…` and `# escape=…` in front of everything else.
fn directives(lines: &mut Lines<'_>, found: &Found<'_>) -> char {
    let (mut escape, mut seen) = ('\\', Vec::new());
    while let Some((at, line)) = lines.peek() {
        let Some((name, value)) = directive(line) else { break };
        lines.next();
        let span = at..at + line.len();
        if seen.contains(&name) {
            found.report::<()>(span, format!("the directive `{name}` stands here twice"), "keep one of the two");
            continue;
        }
        match name.as_str() {
            "escape" => match value {
                "\\" => {}
                "`" => escape = '`',
                _ => drop(found.report::<()>(
                    span,
                    "the escape character is neither `\\` nor a backtick",
                    "write `# escape=\\` or leave the line out",
                )),
            },
            "syntax" if !is_docker_syntax(value) => drop(found.report::<()>(
                span,
                format!("`{}` is another language than Kiln reads", crate::diagnostic::shown(value)),
                "Kiln reads what `docker/dockerfile:1` reads; write the file in that language",
            )),
            _ => {}
        }
        seen.push(name);
    }
    escape
}

/// A line `# name=value` of a known name; any other comment ends the directives.
fn directive(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
    let name = name.trim().to_ascii_lowercase();
    matches!(name.as_str(), "syntax" | "escape" | "check").then(|| (name, value.trim()))
}

fn is_docker_syntax(value: &str) -> bool {
    let name = value.strip_prefix("docker.io/").unwrap_or(value);
    let name = name.split(['@', ':']).next().unwrap_or_default();
    matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream")
}

/// Takes the texts that the instruction's `<<NAME` words announce from the lines after it.
fn heredocs(logical: &mut Logical, lines: &mut Lines<'_>, escape: char, found: &Found<'_>) {
    let keyword = logical.text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    if !TAKES_HEREDOCS.contains(&keyword.as_str()) {
        return;
    }
    let words: Vec<_> = words::quoted(&logical.text, escape).into_iter().collect();
    for (at, word) in words {
        let Some((name, chomp, expands)) = announced(&word) else { continue };
        let span = logical.source(at..at + word.len());
        if logical.heredocs.len() == MAX_HEREDOCS {
            let message = format!("the instruction has more than {MAX_HEREDOCS} heredocs");
            found.report::<()>(span, message, "put the texts into files beside the Containerfile");
            return;
        }
        let start = lines.at;
        match body(lines, &name, chomp) {
            Some(content) => {
                logical.heredocs.push(Heredoc { name, word, expands, content, at: start });
            }
            None => {
                let message = format!("the text of `{}` has no end", crate::diagnostic::shown(&word));
                let help = format!("end it with a line `{}`", crate::diagnostic::shown(&name));
                found.report::<()>(span, message, help);
                return;
            }
        }
    }
}

/// The name that a word announces a text with, whether tabs in front are left out, and whether variables are filled in.
pub(super) fn announced(word: &str) -> Option<(String, bool, bool)> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (rest, chomp) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let name: String = rest.chars().filter(|c| !matches!(c, '"' | '\'' | '\\')).collect();
    (!name.is_empty()).then(|| {
        let expands = name == rest;
        (name, chomp, expands)
    })
}

fn body(lines: &mut Lines<'_>, name: &str, chomp: bool) -> Option<String> {
    let mut content = String::new();
    loop {
        let (_, line) = lines.next()?;
        let line = if chomp { line.trim_start_matches('\t') } else { line };
        if line == name {
            return Some(content);
        }
        content.push_str(line);
        content.push('\n');
    }
}
