//! For people: the offending line with the offending text marked, and what to write instead.

use std::fmt;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

use super::{Diagnostic, Diagnostics};

impl Diagnostics {
    /// The text for a terminal of this many columns, ending with a line feed.
    pub fn render(&self, colour: bool, columns: usize) -> String {
        let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(columns.max(40)).with_context_lines(1);
        let mut out = String::new();
        for diagnostic in &self.diagnostics {
            let shown = Shown { diagnostic, source: NamedSource::new(&self.file, self.source.clone()) };
            handler.render_report(&mut out, &shown).expect("writing to a String cannot fail");
            out.push('\n');
        }
        out
    }
}

/// A diagnostic beside its file, in the form that miette wants.
#[derive(Debug)]
struct Shown<'a> {
    diagnostic: &'a Diagnostic,
    source: NamedSource<String>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}
impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.diagnostic.help))
    }
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let here = LabeledSpan::new_with_span(Some("here".into()), self.diagnostic.span.clone());
        let there = self
            .diagnostic
            .related
            .iter()
            .map(|related| LabeledSpan::new_with_span(Some(related.message.clone()), related.span.clone()));
        Some(Box::new(std::iter::once(here).chain(there)))
    }
}
