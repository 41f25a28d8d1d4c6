//! A report as JUnit XML, in the form that CI systems read
//! (<https://github.com/testmoapp/junitxml>: `testsuites` / `testsuite` / `testcase` / `failure`).

use std::fmt::Write as _;

use kiln_api::report::{TestReport, TestResult};

/// The reports as one document.
pub fn junit(reports: &[TestReport]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    reports.iter().for_each(|report| suite(&mut xml, report));
    xml + "</testsuites>\n"
}

/// One suite for the release, and one for each further configuration.
fn suite(xml: &mut String, report: &TestReport) {
    let own = Ran { name: report.name.clone(), at: &report.finished_at, config: &report.config, tests: &report.tests };
    own.write(xml, report);
    for run in &report.matrix {
        let name = format!("{} [{}]", report.name, run.name);
        Ran { name, at: &run.finished_at, config: &run.config, tests: &run.tests }.write(xml, report);
    }
}

/// The tests with one configuration.
struct Ran<'a> {
    name: String,
    at: &'a str,
    config: &'a str,
    tests: &'a [TestResult],
}

impl Ran<'_> {
    fn write(&self, xml: &mut String, report: &TestReport) {
        let failures = self.tests.iter().filter(|test| !test.passed).count();
        let skipped = self.tests.iter().filter(|test| test.skipped).count();
        let millis: u64 = self.tests.iter().map(|test| test.took_ms).sum();
        line(
            xml,
            format_args!(
                "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\" time=\"{}\" timestamp=\"{}\">",
                escaped(&self.name),
                self.tests.len(),
                seconds(millis),
                escaped(self.at),
            ),
        );
        line(xml, format_args!("    <properties>"));
        for (name, value) in [("image", &*report.image), ("config", self.config), ("suite", &*report.suite)] {
            line(xml, format_args!("      <property name=\"{name}\" value=\"{}\"/>", escaped(value)));
        }
        line(xml, format_args!("    </properties>"));
        self.tests.iter().for_each(|test| case(xml, &self.name, test));
        line(xml, format_args!("  </testsuite>"));
    }
}

fn case(xml: &mut String, class: &str, test: &TestResult) {
    let (name, class, time) = (escaped(&test.name), escaped(class), seconds(test.took_ms));
    let head = format!("    <testcase name=\"{name}\" classname=\"{class}\" time=\"{time}\"");
    if test.skipped {
        let message = escaped(test.message.as_deref().unwrap_or_default());
        return line(xml, format_args!("{head}>\n      <skipped message=\"{message}\"/>\n    </testcase>"));
    }
    if test.passed {
        return line(xml, format_args!("{head}/>"));
    }
    let message = escaped(test.message.as_deref().unwrap_or("failed"));
    line(xml, format_args!("{head}>\n      <failure message=\"{message}\"/>\n    </testcase>"));
}

fn line(xml: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(xml, "{text}").expect("a String takes everything");
}

fn seconds(millis: u64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

/// Text for an attribute value (XML 1.0, section 2.2 and 2.4): the five special characters and line ends as references, and
/// `U+FFFD` in place of characters that XML cannot hold at all.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\t' | '\n' | '\r' => write!(out, "&#{};", character as u32).expect("a String takes everything"),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use kiln_api::report::MatrixResult;

    use super::*;

    fn report() -> TestReport {
        let test = |name: &str, message: Option<&str>| TestResult {
            name: name.to_owned(),
            passed: message.is_none(),
            skipped: false,
            took_ms: 1_005,
            message: message.map(str::to_owned),
        };
        TestReport {
            name: "hello".to_owned(),
            image: "sha256:11".to_owned(),
            config: "sha256:22".to_owned(),
            suite: "sha256:33".to_owned(),
            passed: false,
            finished_at: "2026-01-02T03:04:05Z".to_owned(),
            parameters: Vec::new(),
            tests: vec![test("page <\"1\"> & 'all'", None), test("b", Some("saw \"\u{1b}[0m\"\nand more ]]>"))],
            matrix: vec![MatrixResult {
                name: "minimal".to_owned(),
                config: "sha256:44".to_owned(),
                passed: false,
                finished_at: "2026-01-01T00:00:00Z".to_owned(),
                tests: vec![test("page", None), test("b", Some("saw nothing"))],
            }],
            reads: Vec::new(),
        }
    }

    #[test]
    fn unit_every_special_character_is_escaped() {
        insta::assert_snapshot!(junit(&[report()]));
    }

    #[test]
    fn unit_people_see_what_failed_and_why() {
        insta::assert_snapshot!(super::super::human(&report(), 2_010));
    }
}
