//! A report as people read it.

use std::fmt::Write as _;

use kiln_api::report::TestReport;

/// One line for each test and a summary. Without colours: callers add them by line.
pub fn human(report: &TestReport, took_ms: u64) -> String {
    let width = report.tests.iter().map(|test| test.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for test in &report.tests {
        let verdict = if test.passed { "ok    " } else { "FAILED" };
        writeln!(text, "{verdict} {:width$} {:>6} ms", test.name, test.took_ms).expect("a String takes everything");
        for line in test.message.iter().flat_map(|message| message.lines()) {
            writeln!(text, "       {}", visible(line)).expect("a String takes everything");
        }
    }
    text + &summary(report, took_ms)
}

/// What a server said, without the means to command a terminal.
fn visible(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn summary(report: &TestReport, took_ms: u64) -> String {
    let (name, total) = (&report.name, report.tests.len());
    let failed = report.tests.iter().filter(|test| !test.passed).count();
    match failed {
        0 => format!("{name}: all {total} tests passed in {took_ms} ms\n"),
        failed => format!("{name}: FAILED, {failed} of {total} tests, in {took_ms} ms\n"),
    }
}
