//! A spinner for long work.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Long work that is shown while it goes on. Gone when dropped.
pub(crate) struct Task(Option<ProgressBar>);

impl Task {
    pub(super) fn start(bars: Option<&MultiProgress>, message: &str) -> Self {
        let Some(bars) = bars else { return Self(None) };
        let style =
            ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}").expect("the template is valid");
        let bar = bars.add(ProgressBar::new_spinner().with_style(style).with_message(message.to_owned()));
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(Some(bar))
    }

    /// Changes what is said.
    pub fn say(&self, message: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(message.to_owned());
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
