//! `.dockerignore` and `.containerignore`: which files of a context no instruction sees.
//!
//! Patterns are Go's, with `**` for any number of directories; a pattern that means a directory means all below it; `!` takes
//! back; the last pattern that fits decides (moby `patternmatcher`).

use super::glob;

/// A file longer than this (bytes) is refused.
pub const MAX_BYTES: u64 = 1 << 20;
/// It has at most so many patterns.
const MAX_PATTERNS: usize = 5000;

/// What is not seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    parts: Vec<String>,
    takes_back: bool,
}

/// There are too many patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it has more than {MAX_PATTERNS} patterns")]
pub struct TooMany;

impl Ignore {
    /// Reads a file.
    pub fn parse(text: &str) -> Result<Self, TooMany> {
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let patterns: Vec<_> = lines.filter_map(Pattern::parse).take(MAX_PATTERNS + 1).collect();
        if patterns.len() > MAX_PATTERNS { Err(TooMany) } else { Ok(Self { patterns }) }
    }

    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether the file or directory at this path is left out. Relative to the context, without `.` and `..`.
    pub fn hides(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let fits = |pattern: &Pattern| (1..=parts.len()).any(|end| fits(&pattern.parts, &parts[..end]));
        let last = self.patterns.iter().rev().find(|pattern| fits(pattern));
        last.is_some_and(|pattern| !pattern.takes_back)
    }

    /// Whether something below a directory that is left out may be seen all the same.
    pub fn may_show_below(&self, _directory: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.takes_back)
    }
}

impl Pattern {
    fn parse(line: &str) -> Option<Self> {
        let (line, takes_back) = line.strip_prefix('!').map_or((line, false), |rest| (rest.trim(), true));
        let mut parts: Vec<String> = Vec::new();
        for part in line.split('/').filter(|part| !part.is_empty() && *part != ".") {
            match part {
                ".." => drop(parts.pop()),
                part => parts.push(part.to_owned()),
            }
        }
        (!parts.is_empty()).then_some(Self { parts, takes_back })
    }
}

/// In at most as many steps as there are pairs of parts.
fn fits(pattern: &[String], path: &[&str]) -> bool {
    let mut reach = vec![false; path.len() + 1];
    reach[0] = true;
    for part in pattern {
        let mut next = vec![false; path.len() + 1];
        for at in 0..=path.len() {
            match part.as_str() {
                "**" => next[at] = reach[at] || (at > 0 && next[at - 1]),
                part => next[at] = at > 0 && reach[at - 1] && glob::name(part, path[at - 1]),
            }
        }
        reach = next;
    }
    reach[path.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_what_is_ignored_is_not_seen() {
        let ignore =
            Ignore::parse("# comment\n\n*.log\n/build/\n**/node_modules\n!keep.log\ndocs/**/*.md\n!docs/README.md\n")
                .expect("read");
        for (path, hidden) in [
            ("a.log", true),
            ("keep.log", false),
            ("sub/a.log", false),
            ("build", true),
            ("build/x/y", true),
            ("a/node_modules/b", true),
            ("node_modules", true),
            ("docs/a/b.md", true),
            ("docs/c.md", true),
            ("docs/README.md", false),
            ("src", false),
        ] {
            assert_eq!(ignore.hides(path), hidden, "{path}");
        }
        assert!(Ignore::parse("*\n!src\n").expect("read").hides("other"));
        assert_eq!(Ignore::parse(&"a\n".repeat(MAX_PATTERNS + 1)), Err(TooMany));
    }
}
