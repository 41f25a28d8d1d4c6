//! Where output goes. Results go to standard output, everything else to standard error; with `--json`, one JSON value a line
//! goes to standard output and nothing else does.
//!
//! Colours and progress bars appear only on a terminal (`NO_COLOR`, `CLICOLOR` and `TERM=dumb` are honoured); elsewhere the same
//! is said in plain lines.

pub(crate) mod difference;
pub(crate) mod events;
mod progress;
pub(crate) mod table;

use std::io::IsTerminal as _;

use anstream::{AutoStream, ColorChoice};
use indicatif::{MultiProgress, ProgressDrawTarget};
use owo_colors::OwoColorize as _;
use serde::Serialize;

pub(crate) use self::progress::Task;
use crate::cli::Global;

/// How this run prints.
pub(crate) struct Ui {
    json: bool,
    quiet: bool,
    verbose: u8,
    colour: bool,
    bars: Option<MultiProgress>,
}

impl Ui {
    /// Looks at the flags and at what standard error is.
    pub fn new(global: &Global) -> Self {
        let colour = AutoStream::choice(&std::io::stderr()) != ColorChoice::Never;
        let terminal = std::io::stderr().is_terminal() && !global.json && !global.quiet;
        let bars = terminal.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(12)));
        Self { json: global.json, quiet: global.quiet, verbose: global.verbose, colour, bars }
    }

    /// Whether output is for programs.
    pub fn json(&self) -> bool {
        self.json
    }
    /// Whether more is wanted.
    pub fn verbose(&self) -> bool {
        self.verbose > 0
    }
    /// Whether standard error takes colours.
    pub fn colour(&self) -> bool {
        self.colour
    }
    /// Width of the terminal, or 100.
    pub fn columns(&self) -> usize {
        rustix::termios::tcgetwinsize(std::io::stderr()).map_or(100, |size| usize::from(size.ws_col).clamp(40, 140))
    }

    /// One JSON value on one line.
    pub fn line(&self, value: &impl Serialize) {
        let text = serde_json::to_string(value).expect("output types always serialise");
        write_out(&format!("{text}\n"));
    }

    /// A result for people; a line feed is added.
    pub fn out(&self, text: &str) {
        write_out(&format!("{text}\n"));
    }

    /// The result: `value` for programs, else `text` for people.
    pub fn result(&self, value: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json { self.line(value) } else { self.out(text().trim_end()) }
    }

    /// What happens, for people.
    pub fn note(&self, text: &str) {
        if !self.json && !self.quiet {
            self.error_text(&format!("{text}\n"));
        }
    }

    /// Something a person should know, also with `--quiet`.
    pub fn warn(&self, text: &str) {
        if !self.json {
            self.error_text(&format!("{} {text}\n", "warning:".yellow().bold()));
        }
    }

    /// What went wrong, and what to try.
    pub fn error(&self, text: &str, help: Option<&str>) {
        self.error_text(&format!("{} {text}\n", "error:".red().bold()));
        if let Some(help) = help {
            self.error_text(&format!("  {} {help}\n", "try:".cyan().bold()));
        }
    }

    /// A text to standard error, above the bars.
    pub fn error_text(&self, text: &str) {
        let print = || write_to(&mut anstream::stderr(), text);
        match &self.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }

    /// Long work: a spinner on a terminal, nothing elsewhere.
    pub fn task(&self, message: &str) -> Task {
        Task::start(self.bars.as_ref(), message)
    }
}

fn write_out(text: &str) {
    write_to(&mut anstream::stdout(), text);
}

/// A reader that went away (`kiln images | head -1`) is no reason to complain: there is nobody left to tell.
fn write_to(stream: &mut dyn std::io::Write, text: &str) {
    if stream.write_all(text.as_bytes()).and_then(|()| stream.flush()).is_err() {
        std::process::exit(crate::exit::Exit::Host.code().into());
    }
}

/// A mark for something that went well.
pub(crate) fn good() -> String {
    "✓".green().to_string()
}
/// A mark for something that is not as good as it could be.
pub(crate) fn careful() -> String {
    "!".yellow().bold().to_string()
}
/// A mark for something that went wrong.
pub(crate) fn bad() -> String {
    "✗".red().bold().to_string()
}
/// A text that matters less.
pub(crate) fn dim(text: &str) -> String {
    text.dimmed().to_string()
}
/// A text that matters more.
pub(crate) fn strong(text: &str) -> String {
    text.bold().to_string()
}
/// A time for people: `850 ms`, `2.4 s`.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1000.0) } else { format!("{seconds:.1} s") }
}
/// The first digits of a digest, for people.
pub(crate) fn short(digest: &str) -> &str {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    digits.get(..12).unwrap_or(digits)
}
