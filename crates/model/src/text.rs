//! Reading a TOML file that a person wrote, so that everything wrong with it can be shown at once.
//!
//! A [`Document`] is the parsed tree with the place of every key and value. Sections read it through [`Table`] and
//! [`Value`]: a reader that meets something wrong records a diagnostic at its place and answers `None`, and reading goes
//! on with the next key. Only [`Document::finish`] decides between the result and the diagnostics, so a value made from
//! `None`s can never get out.

mod keys;
mod table;
mod value;

use std::{cell::RefCell, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue, Error},
};

pub(crate) use self::{
    keys::{Keys, listed, suggest},
    table::Table,
    value::{Entry, Value},
};
use crate::diagnostic::{Diagnostic, Diagnostics};

/// A text as TOML writes it, for files that are written and not read here.
pub fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A file longer than this (bytes) is refused.
const MAX_BYTES: usize = 1 << 20;

/// A file, its tree, and what was found wrong so far.
pub(crate) struct Document<'t> {
    file: &'t str,
    text: &'t str,
    root: Spanned<DeTable<'t>>,
    found: RefCell<Vec<Diagnostic>>,
}

/// A place in a document, to report at.
#[derive(Clone, Copy)]
pub(crate) struct Place<'d> {
    document: &'d Document<'d>,
    start: usize,
    end: usize,
}

impl<'t> Document<'t> {
    /// Parses the text; every syntax error is in the diagnostics.
    pub fn parse(file: &'t str, text: &'t str) -> Result<Self, Diagnostics> {
        if text.len() > MAX_BYTES {
            return Err(too_long(file, text));
        }
        let (root, errors) = DeTable::parse_recoverable(text);
        let errors = errors.iter().map(|error| syntax(file, text, error)).collect();
        match Diagnostics::new(file, text, errors) {
            Some(diagnostics) => Err(diagnostics),
            None => Ok(Self { file, text, root, found: RefCell::default() }),
        }
    }

    /// The whole file as a table with these keys.
    pub fn root<'d>(&'d self, keys: Keys) -> Table<'d> {
        let start = Place { document: self, start: 0, end: 0 };
        Table::new(start, keys.of.to_owned(), self.root.get_ref(), Some(keys))
    }

    /// The entry to which these keys lead, or the last one on the way that is there.
    pub fn find<'d>(&'d self, path: &[String]) -> Option<Entry<'d>> {
        let mut entries = self.root.get_ref();
        let mut last = None;
        for wanted in path {
            let Some((key, value)) = entries.iter().find(|(key, _)| key.get_ref() == wanted) else { break };
            last = Some(Entry::new(self, key, value));
            let DeValue::Table(inside) = value.get_ref() else { break };
            entries = inside;
        }
        last
    }

    /// The keys of the table to which these keys lead, with the places of their values; a table below a header has no place of
    /// its own, and its values count instead.
    pub fn children(&self, path: &[String]) -> impl Iterator<Item = (&str, Range<usize>)> {
        let mut entries = Some(self.root.get_ref());
        for wanted in path {
            let value = entries.and_then(|table| table.iter().find(|(key, _)| key.get_ref() == wanted));
            entries = value.and_then(|(_, value)| match value.get_ref() {
                DeValue::Table(inside) => Some(inside),
                _ => None,
            });
        }
        let all = entries.into_iter().flat_map(|table| table.iter());
        all.flat_map(|(key, value)| leaves(value).into_iter().map(|span| (&**key.get_ref(), span)))
    }

    /// Whether nothing was found wrong so far.
    pub fn is_sound(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// The result, if nothing was found wrong.
    pub fn finish<T>(&self, result: Option<T>) -> Result<T, Diagnostics> {
        match (Diagnostics::new(self.file, self.text, self.found.take()), result) {
            (None, Some(result)) => Ok(result),
            (Some(diagnostics), _) => Err(diagnostics),
            (None, None) => unreachable!("a reader answers None only after it recorded a diagnostic"),
        }
    }
}

impl<'d> Place<'d> {
    fn at(document: &'d Document<'d>, span: Range<usize>) -> Self {
        Self { document, start: span.start, end: span.end }
    }

    /// Its bytes of the file.
    pub fn span(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Records what is wrong here. Always `None`, so that a reader can end with it.
    pub fn report<T>(&self, message: impl Into<String>, help: impl Into<String>) -> Option<T> {
        self.document.found.borrow_mut().push(self.diagnostic(message.into(), help.into()));
        None
    }

    /// Records a contradiction between here and there.
    pub fn contradicts<T>(
        &self,
        there: Place<'_>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> Option<T> {
        let diagnostic = self.diagnostic(message.into(), help.into()).with_related(
            self.document.text,
            there.start..there.end,
            label.into(),
        );
        self.document.found.borrow_mut().push(diagnostic);
        None
    }

    fn diagnostic(&self, message: String, help: String) -> Diagnostic {
        Diagnostic::new(self.document.file, self.document.text, self.start..self.end, message, help)
    }
}

fn leaves(value: &Spanned<DeValue<'_>>) -> Vec<Range<usize>> {
    match value.get_ref() {
        DeValue::Table(inside) => inside.iter().flat_map(|(_, value)| leaves(value)).collect(),
        _ => vec![value.span()],
    }
}

fn too_long(file: &str, text: &str) -> Diagnostics {
    let message = format!("the file is {} bytes long", text.len());
    let help = format!("at most {MAX_BYTES} bytes are read: move long texts into files of their own");
    let diagnostic = Diagnostic::new(file, "", 0..0, message, help);
    Diagnostics::new(file, "", vec![diagnostic]).expect("one diagnostic")
}

fn syntax(file: &str, text: &str, error: &Error) -> Diagnostic {
    let message = format!("this is not TOML: {}", error.message());
    let help = if error.message().contains("duplicate key") {
        match error.span().and_then(|span| text.get(span)) {
            Some("test") => "keep one of the two; `[[test.matrix]]` stands behind the last `[[test]]`",
            _ => "keep one of the two",
        }
    } else {
        "write `key = value` lines below a `[section]`; texts stand in quotes, lists in `[ ]`, tables in `{ }`"
    };
    Diagnostic::new(file, text, error.span().unwrap_or(0..0), message, help.to_owned())
}
