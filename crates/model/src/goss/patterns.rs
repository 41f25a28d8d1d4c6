//! Patterns: what goss looks for in the lines of a text (goss, `matchers/have_patterns.go`).
//!
//! `foo` is in a line, `!foo` in none, `/re/` matches a line, `!/re/` none; `\!foo` and `\/foo` are looked for as they stand without
//! the backslash.

use regex::Regex;

/// One pattern, ready to be looked for.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    written: String,
    inverse: bool,
    search: Search,
}

#[derive(Debug, Clone)]
enum Search {
    Part(String),
    Regex(Regex),
}

impl Pattern {
    /// Reads a pattern; the error says what is wrong with its regular expression.
    pub(super) fn read(written: &str) -> Result<Self, String> {
        let inverse = written.starts_with('!');
        let expression = written.strip_prefix('!').unwrap_or(written);
        let search = if expression.starts_with('/') && expression.ends_with('/') {
            let inner = &expression[1..];
            Search::Regex(super::matcher::regex(inner.strip_suffix('/').unwrap_or(inner))?)
        } else {
            Search::Part(written.trim_start_matches(['\\', '/', '!']).to_owned())
        };
        Ok(Self { written: written.to_owned(), inverse, search })
    }

    fn is_in(&self, line: &str) -> bool {
        match &self.search {
            Search::Part(part) => line.contains(part.as_str()),
            Search::Regex(regex) => regex.is_match(line),
        }
    }

    /// Whether a text is as the pattern wants it. An empty pattern also matches a text without lines.
    fn holds(&self, text: &str) -> bool {
        let mut lines = text.lines();
        let found = lines.any(|line| self.is_in(line));
        if self.inverse { !found } else { found || self.written.is_empty() }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

/// The patterns that a text is not as they want it.
pub(super) fn missing<'p>(patterns: &'p [Pattern], text: &str) -> Vec<&'p str> {
    patterns.iter().filter(|pattern| !pattern.holds(text)).map(|pattern| pattern.written.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(pattern: &str, text: &str) -> bool {
        missing(&[Pattern::read(pattern).unwrap()], text).is_empty()
    }

    #[test]
    fn unit_patterns_are_read_as_goss_reads_them() {
        let text = "Hello goss\n!bang\n/usr/bin\r\nlast";
        for (pattern, wanted) in [
            ("goss", true),
            ("!goss", false),
            ("!other", true),
            ("\\!bang", true),
            ("/[Gg]oss/", true),
            ("!/[Gg]oss/", false),
            ("/^last$/", true),
            ("/bin$/", true),
            ("/usr/bin", true),
            ("", true),
            ("Hello.*last", false),
        ] {
            assert_eq!(holds(pattern, text), wanted, "{pattern}");
        }
        assert!(holds("", "") && !holds("x", "") && holds("!x", ""));
        assert!(Pattern::read("/(/").is_err());
    }
}
