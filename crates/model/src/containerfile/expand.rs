//! Words with quotes, escapes and variables, as BuildKit's `shell/lex.go` reads them.
//!
//! A word is taken apart once, when the file is read, so that what is wrong with it is told then. Filling it in is bounded: a
//! value longer than [`MAX_VALUE`] is refused while it grows, so `${a}${a}` again and again ends soon.

use super::glob;

/// Longest value (bytes): the kernel takes no longer argument or variable (`MAX_ARG_STRLEN`).
pub const MAX_VALUE: usize = 128 << 10;
/// Values to cut patterns from are at most so long (bytes).
const MAX_CUT: usize = 4096;
/// `${a:-${b:-…}}` at most so deep.
const MAX_DEPTH: usize = 10;

/// A word of an instruction, in which variables may stand for values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// As written.
    pub raw: String,
    /// Where it stands in the file.
    pub at: usize,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(String, Option<(How, Vec<Part>)>),
}

/// What happens to a variable's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// `:-` and `-`
    Or { also_empty: bool },
    /// `:+` and `+`
    If { also_empty: bool },
    /// `:?` and `?`
    Must { also_empty: bool },
    /// `#` and `##`
    Front { longest: bool },
    /// `%` and `%%`
    Back { longest: bool },
    /// `/` and `//`: the part holds what it becomes behind a zero byte.
    Replace { all: bool },
}

/// Why a word has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// It grew too long.
    #[error("the value is longer than {MAX_VALUE} bytes")]
    TooLong,
    /// `${x:?words}`
    #[error("`{name}` {}", if .words.is_empty() { "is not set" } else { .words })]
    NotSet {
        /// The variable.
        name: String,
        /// The file's words.
        words: String,
    },
    /// Patterns are looked for in short values only.
    #[error("the value of `{0}` is too long to look for a pattern in it: at most {MAX_CUT} bytes")]
    LongCut(String),
}

/// Finds the value of a variable.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Word {
    /// Takes a word apart. The error says what is wrong with it.
    pub(super) fn parse(raw: &str, at: usize, escape: char) -> Result<Self, String> {
        let mut reader = Reader { chars: raw.chars().peekable(), escape, quotes: Quotes::Mean };
        let parts = reader.parts(None, 0)?;
        Ok(Self { raw: raw.to_owned(), at, parts })
    }

    /// A heredoc's text, in which quotes mean nothing.
    pub fn heredoc(content: &str, at: usize) -> Result<Self, String> {
        let mut reader = Reader { chars: content.chars().peekable(), escape: '\\', quotes: Quotes::Text };
        let parts = reader.parts(None, 0)?;
        Ok(Self { raw: content.to_owned(), at, parts })
    }

    /// A word without variables, as it is.
    pub fn plain(text: &str, at: usize) -> Self {
        Self { raw: text.to_owned(), at, parts: vec![Part::Text(text.to_owned())] }
    }

    /// Its value.
    pub fn expand(&self, lookup: Lookup<'_>) -> Result<String, ExpandError> {
        let mut value = String::new();
        fill(&self.parts, lookup, &mut value)?;
        Ok(value)
    }

    /// Its value where no variable has one.
    pub fn literal(&self) -> String {
        self.expand(&|_| None).unwrap_or_default()
    }
}

fn fill(parts: &[Part], lookup: Lookup<'_>, value: &mut String) -> Result<(), ExpandError> {
    for part in parts {
        match part {
            Part::Text(text) => value.push_str(text),
            Part::Variable(name, how) => match (lookup(name), how) {
                (found, None) => value.push_str(&found.unwrap_or_default()),
                (found, Some((how, rest))) => changed(name, found, *how, rest, lookup, value)?,
            },
        }
        if value.len() > MAX_VALUE {
            return Err(ExpandError::TooLong);
        }
    }
    Ok(())
}

fn changed(
    name: &str,
    found: Option<String>,
    how: How,
    rest: &[Part],
    lookup: Lookup<'_>,
    value: &mut String,
) -> Result<(), ExpandError> {
    let usable = |also_empty: bool| found.clone().filter(|found| !also_empty || !found.is_empty());
    match how {
        How::Or { also_empty } => match usable(also_empty) {
            Some(found) => value.push_str(&found),
            None => fill(rest, lookup, value)?,
        },
        How::If { also_empty } => {
            if usable(also_empty).is_some() {
                fill(rest, lookup, value)?;
            }
        }
        How::Must { also_empty } => match usable(also_empty) {
            Some(found) => value.push_str(&found),
            None => {
                let mut words = String::new();
                fill(rest, lookup, &mut words)?;
                return Err(ExpandError::NotSet { name: name.to_owned(), words });
            }
        },
        How::Front { .. } | How::Back { .. } | How::Replace { .. } => {
            let found = found.unwrap_or_default();
            if found.len() > MAX_CUT {
                return Err(ExpandError::LongCut(name.to_owned()));
            }
            let mut pattern = String::new();
            fill(rest, lookup, &mut pattern)?;
            if pattern.len() > MAX_CUT {
                return Err(ExpandError::LongCut(name.to_owned()));
            }
            value.push_str(&cut(&found, how, &pattern));
        }
    }
    Ok(())
}

fn cut(value: &str, how: How, pattern: &str) -> String {
    let ends = || value.char_indices().map(|(at, _)| at).chain([value.len()]);
    let longest_last = |mut at: Vec<usize>, longest: bool| {
        if longest {
            at.reverse();
        }
        at
    };
    match how {
        How::Front { longest } => {
            let mut tried = longest_last(ends().collect(), longest).into_iter();
            tried.find(|at| glob::text(pattern, &value[..*at])).map_or(value, |at| &value[at..]).to_owned()
        }
        How::Back { longest } => {
            let mut tried = longest_last(ends().rev().collect(), longest).into_iter();
            tried.find(|at| glob::text(pattern, &value[*at..])).map_or(value, |at| &value[..at]).to_owned()
        }
        How::Replace { all } => {
            let (pattern, by) = pattern.split_once('\0').unwrap_or((pattern, ""));
            replaced(value, pattern, by, all)
        }
        How::Or { .. } | How::If { .. } | How::Must { .. } => value.to_owned(),
    }
}

/// The longest match at each place becomes `by`; only the first one unless `all`.
fn replaced(value: &str, pattern: &str, by: &str, all: bool) -> String {
    let (mut out, mut rest) = (String::new(), value);
    while let Some(c) = rest.chars().next() {
        let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8());
        // Without a star in it a pattern matches one length only.
        let found = ends.rev().find(|end| glob::text(pattern, &rest[..*end]));
        match found {
            Some(end) => {
                out.push_str(by);
                rest = &rest[end..];
                if !all {
                    break;
                }
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// Whether quotes are taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Mean,
    Text,
}

struct Reader<'t> {
    chars: std::iter::Peekable<std::str::Chars<'t>>,
    escape: char,
    quotes: Quotes,
}

impl Reader<'_> {
    /// Parts up to the end, or to one of these characters, which is left.
    fn parts(&mut self, until: Option<&[char]>, depth: usize) -> Result<Vec<Part>, String> {
        let mut parts = Parts::default();
        let mut double = false;
        while let Some(c) = self.chars.peek().copied() {
            if !double && until.is_some_and(|until| until.contains(&c)) {
                break;
            }
            self.chars.next();
            match c {
                '\'' if self.quotes == Quotes::Mean && !double => self.single(&mut parts)?,
                '"' if self.quotes == Quotes::Mean => double = !double,
                '$' => match self.variable(depth)? {
                    Some(variable) => parts.variable(variable),
                    None => parts.push('$'),
                },
                c if c == self.escape => self.escaped(&mut parts, double, until),
                c => parts.push(c),
            }
        }
        match double {
            true => Err("a `\"` has no end".to_owned()),
            false => Ok(parts.done()),
        }
    }

    fn single(&mut self, parts: &mut Parts) -> Result<(), String> {
        loop {
            match self.chars.next() {
                None => return Err("a `'` has no end".to_owned()),
                Some('\'') => return Ok(()),
                Some(c) => parts.push(c),
            }
        }
    }

    /// In double quotes and in heredocs an escape character stands for itself where it escapes nothing.
    fn escaped(&mut self, parts: &mut Parts, double: bool, until: Option<&[char]>) {
        let Some(next) = self.chars.peek().copied() else {
            parts.push(self.escape);
            return;
        };
        let special = next == '$' || next == self.escape || (self.quotes == Quotes::Mean && next == '"');
        let plain = !double && self.quotes == Quotes::Mean;
        if !(special || plain || until.is_some_and(|until| until.contains(&next))) {
            parts.push(self.escape);
        }
        parts.push(next);
        self.chars.next();
    }

    /// What stands behind a `$`; none if that is no variable.
    fn variable(&mut self, depth: usize) -> Result<Option<Part>, String> {
        match self.chars.peek().copied() {
            Some('{') => {
                self.chars.next();
                self.braces(depth).map(Some)
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => Ok(Some(Part::Variable(self.name(), None))),
            // `$1`, `$@` and the like are the shell's, and never set here.
            Some(c) if c.is_ascii_digit() || matches!(c, '@' | '*' | '#') => {
                self.chars.next();
                Ok(Some(Part::Variable(c.to_string(), None)))
            }
            _ => Ok(None),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
        name
    }

    fn braces(&mut self, depth: usize) -> Result<Part, String> {
        if depth >= MAX_DEPTH {
            return Err(format!("variables stand in each other more than {MAX_DEPTH} deep"));
        }
        let name = self.name();
        if name.is_empty() {
            return Err("`${` is not followed by a name".to_owned());
        }
        let how = match self.chars.next() {
            Some('}') => return Ok(Part::Variable(name, None)),
            Some(':') => {
                let how = match self.chars.next() {
                    Some('-') => How::Or { also_empty: true },
                    Some('+') => How::If { also_empty: true },
                    Some('?') => How::Must { also_empty: true },
                    other => return Err(unknown(&format!(":{}", other.unwrap_or(' ')))),
                };
                Ok(how)
            }
            Some('-') => Ok(How::Or { also_empty: false }),
            Some('+') => Ok(How::If { also_empty: false }),
            Some('?') => Ok(How::Must { also_empty: false }),
            Some('#') => Ok(How::Front { longest: self.chars.next_if_eq(&'#').is_some() }),
            Some('%') => Ok(How::Back { longest: self.chars.next_if_eq(&'%').is_some() }),
            Some('/') => return self.replace(name, depth),
            None => Err("`${` has no `}`".to_owned()),
            Some(c) => Err(unknown(&c.to_string())),
        }?;
        let rest = self.parts(Some(&['}']), depth + 1)?;
        self.end()?;
        Ok(Part::Variable(name, Some((how, rest))))
    }

    fn replace(&mut self, name: String, depth: usize) -> Result<Part, String> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let mut parts = self.parts(Some(&['/', '}']), depth + 1)?;
        parts.push(Part::Text("\0".to_owned()));
        if self.chars.next_if_eq(&'/').is_some() {
            parts.extend(self.parts(Some(&['}']), depth + 1)?);
        }
        self.end()?;
        Ok(Part::Variable(name, Some((How::Replace { all }, parts))))
    }

    fn end(&mut self) -> Result<(), String> {
        match self.chars.next() {
            Some('}') => Ok(()),
            _ => Err("`${` has no `}`".to_owned()),
        }
    }
}

fn unknown(what: &str) -> String {
    format!("`{}` after a variable's name means nothing", crate::diagnostic::shown(what))
}

/// Parts, with letters that follow each other as one text.
#[derive(Default)]
struct Parts {
    done: Vec<Part>,
    text: String,
}

impl Parts {
    fn push(&mut self, c: char) {
        self.text.push(c);
    }
    fn variable(&mut self, part: Part) {
        self.flush();
        self.done.push(part);
    }
    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.done.push(Part::Text(std::mem::take(&mut self.text)));
        }
    }
    fn done(mut self) -> Vec<Part> {
        self.flush();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(raw: &str) -> Result<String, ExpandError> {
        let lookup = |name: &str| match name {
            "x" => Some("val".to_owned()),
            "empty" => Some(String::new()),
            "path" => Some("a/b/c.tar.gz".to_owned()),
            _ => None,
        };
        Word::parse(raw, 0, '\\').expect("a word").expand(&lookup)
    }

    #[test]
    fn unit_variables_stand_for_values_as_the_reference_says() {
        for (raw, expected) in [
            ("$x", "val"),
            ("${x}y", "valy"),
            ("$xy", ""),
            (r"\$x", "$x"),
            ("'$x'", "$x"),
            ("\"$x\"", "val"),
            (r#""a\"b\c""#, r#"a"b\c"#),
            (r"a\bc", "abc"),
            ("a$", "a$"),
            ("$ x", "$ x"),
            ("${none:-or}", "or"),
            ("${empty:-or}", "or"),
            ("${empty-or}", ""),
            ("${none:-${x}}", "val"),
            ("${none:-\"a b\"}", "a b"),
            ("${x:+with}", "with"),
            ("${empty:+with}", ""),
            ("${empty+with}", "with"),
            ("${path#*/}", "b/c.tar.gz"),
            ("${path##*/}", "c.tar.gz"),
            ("${path%.*}", "a/b/c.tar"),
            ("${path%%.*}", "a/b/c"),
            ("${path/b/X}", "a/X/c.tar.gz"),
            ("${path//[ab]/X}", "X/X/c.tXr.gz"),
            ("${path//\\//-}", "a-b-c.tar.gz"),
            ("$1", ""),
        ] {
            assert_eq!(value(raw).as_deref(), Ok(expected), "{raw}");
        }
        assert_eq!(value("${none:?must be given}").expect_err("not set").to_string(), "`none` must be given");
    }

    #[test]
    fn unit_what_is_no_word_is_said() {
        let deep = format!("{}{}", "${a:-".repeat(12), "}".repeat(12));
        for raw in ["${x", "${}", "${x:=y}", "\"a", "'a", "${x!y}", "${x:-y", "${x/a", &deep] {
            assert!(Word::parse(raw, 0, '\\').is_err(), "{raw}");
        }
    }

    #[test]
    fn unit_a_value_that_doubles_ends_soon() {
        let word = Word::parse("${a}${a}", 0, '\\').expect("a word");
        let mut value = "x".to_owned();
        let mut rounds = 0;
        let refused = loop {
            match word.expand(&|_| Some(value.clone())) {
                Ok(longer) => value = longer,
                Err(refused) => break refused,
            }
            rounds += 1;
        };
        assert_eq!((refused, rounds), (ExpandError::TooLong, 17));
        let long = Word::parse("${a//x*y/z}", 0, '\\').expect("a word");
        assert_eq!(long.expand(&|_| Some("x".repeat(5000))), Err(ExpandError::LongCut("a".to_owned())));
    }

    proptest! {
        #[test]
        fn unit_any_word_is_read_or_refused(raw in "[ -~]{0,60}") {
            if let Ok(word) = Word::parse(&raw, 0, '\\') {
                drop(word.expand(&|name| Some(name.to_owned())));
            }
        }

        #[test]
        fn unit_a_text_in_single_quotes_is_itself(text in "[ -&(-~]{0,60}") {
            let word = Word::parse(&format!("'{text}'"), 0, '\\').expect("a word");
            prop_assert_eq!(word.expand(&|_| Some("!".to_owned())), Ok(text));
        }
    }
}
