//! A spinner for long work.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How work of unknown length is shown.
const PLAIN: &str = "{spinner:.cyan} {msg} {elapsed:.dim}";

/// Long work that is shown while it goes on. Gone when dropped.
pub(crate) struct Task(Option<ProgressBar>);

impl Task {
    pub(super) fn start(bars: Option<&MultiProgress>, message: &str) -> Self {
        let Some(bars) = bars else { return Self(None) };
        let bar = bars.add(ProgressBar::new_spinner().with_style(style(PLAIN)).with_message(message.to_owned()));
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(Some(bar))
    }

    /// Shows how far something is, in bytes.
    pub fn progress(&self, message: &str, done: u64, total: u64) {
        if let Some(bar) = &self.0 {
            bar.set_style(style("{spinner:.cyan} {msg} {bar:24.cyan/dim} {bytes}/{total_bytes} {elapsed:.dim}"));
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(message.to_owned());
        }
    }

    /// Changes what is said.
    pub fn say(&self, message: &str) {
        if let Some(bar) = &self.0 {
            bar.set_style(style(PLAIN));
            bar.set_message(message.to_owned());
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are valid")
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
