//! A report as people read it.

use std::fmt::Write as _;

use kiln_api::report::{TestReport, TestResult};

/// One line for each test and a summary. Without colours: callers add them by line.
pub fn human(report: &TestReport, took_ms: u64) -> String {
    let name = |(matrix, test): (Option<&str>, &TestResult)| {
        matrix.map_or_else(|| test.name.clone(), |matrix| format!("{matrix}: {}", test.name))
    };
    let width = report.all().map(|test| name(test).chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (matrix, test) in report.all() {
        let verdict = match (test.passed, test.skipped) {
            (_, true) => "skip  ",
            (true, _) => "ok    ",
            (false, _) => "FAILED",
        };
        let name = name((matrix, test));
        writeln!(text, "{verdict} {name:width$} {:>6} ms", test.took_ms).expect("a String takes everything");
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
    let (name, total) = (&report.name, report.all().count());
    let failed = report.all().filter(|(_, test)| !test.passed).count();
    match failed {
        0 => format!("{name}: all {total} tests passed in {took_ms} ms\n"),
        failed => format!("{name}: FAILED, {failed} of {total} tests, in {took_ms} ms\n"),
    }
}
