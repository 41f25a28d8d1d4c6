//! What was found wrong with a file so far.

use std::{cell::RefCell, ops::Range};

use crate::{
    diagnostic::{Diagnostic, Diagnostics},
    text::suggest,
};

/// The word that was probably meant, large or small letters alike.
pub(super) fn nearest<'a>(written: &str, valid: &[&'a str]) -> Option<&'a str> {
    let lower: Vec<String> = valid.iter().map(|word| word.to_lowercase()).collect();
    let found = suggest(written, &lower.iter().map(String::as_str).collect::<Vec<_>>())?;
    lower.iter().position(|word| word == found).map(|at| valid[at])
}

/// So many faults of one file are told.
const MAX_FAULTS: usize = 200;

/// Collects the faults of a file.
pub(super) struct Found<'t> {
    file: &'t str,
    text: &'t str,
    faults: RefCell<Vec<Diagnostic>>,
}

impl<'t> Found<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, faults: RefCell::default() }
    }

    /// Records what is wrong. Always `None`, so that a reader can end with it.
    pub(super) fn report<T>(
        &self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Option<T> {
        let mut faults = self.faults.borrow_mut();
        if faults.len() < MAX_FAULTS {
            faults.push(Diagnostic::new(self.file, self.text, span, message.into(), help.into()));
        }
        None
    }

    /// The result, if nothing was found wrong.
    pub(super) fn finish<T>(self, result: T) -> Result<T, Diagnostics> {
        match Diagnostics::new(self.file, self.text, self.faults.into_inner()) {
            None => Ok(result),
            Some(faults) => Err(faults),
        }
    }
}
