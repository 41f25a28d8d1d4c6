//! JUnit XML, in the form that its many writers share (<https://github.com/testmoapp/junitxml>).
//!
//! A document type is refused, and with it every entity but XML's own five: nothing is expanded, nothing is fetched.

use std::time::Duration;

use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};

use super::{Case, Cases, MAX_CASES};
use crate::evidence::Verdict;

/// A message is kept up to so many bytes.
const MAX_MESSAGE: usize = 2000;
/// Elements inside of elements … so deep.
const MAX_DEPTH: usize = 64;

/// Reads a file.
pub fn parse(bytes: &[u8]) -> Cases {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            return Cases::of_problem(format!("the JUnit file is not UTF-8 from byte {} on", error.valid_up_to()));
        }
    };
    let mut reading = Reading { cases: Vec::new(), current: None, inside: false, depth: 0 };
    let mut reader = Reader::from_str(text);
    loop {
        let at = reader.buffer_position();
        let read = reader.read_event().map_err(|error| error.to_string());
        match read.and_then(|event| reading.event(&event)) {
            Ok(true) => {}
            Ok(false) => break,
            Err(problem) => {
                let line = 1 + bytes[..(at as usize).min(bytes.len())].iter().filter(|byte| **byte == b'\n').count();
                return Cases { cases: Vec::new(), problems: vec![format!("the JUnit file, line {line}: {problem}")] };
            }
        }
    }
    match reading.cases.is_empty() {
        true => Cases::of_problem("the JUnit file has no test case"),
        false => Cases { cases: reading.cases, problems: Vec::new() },
    }
}

struct Reading {
    cases: Vec<Case>,
    current: Option<Case>,
    /// Whether text belongs to the message.
    inside: bool,
    depth: usize,
}

impl Reading {
    /// False at the end.
    fn event(&mut self, event: &Event<'_>) -> Result<bool, String> {
        match event {
            Event::DocType(_) => {
                return Err("it has a document type (DOCTYPE), which no writer of JUnit needs".to_owned());
            }
            Event::Eof if self.depth > 0 => return Err("it ends in the middle of an element".to_owned()),
            Event::Eof => return Ok(false),
            Event::Start(element) => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(format!("it is nested deeper than {MAX_DEPTH} elements"));
                }
                self.begin(element)?;
            }
            Event::Empty(element) => {
                self.begin(element)?;
                self.end(element.name().as_ref());
            }
            Event::End(element) => {
                self.depth = self.depth.saturating_sub(1);
                self.end(element.name().as_ref());
            }
            Event::Text(text) => self.add(text),
            Event::CData(text) => self.add(text),
            Event::GeneralRef(name) => {
                let written: &str = name;
                let meant = quick_xml::escape::unescape(&format!("&{written};"))
                    .map_err(|error| error.to_string())?
                    .into_owned();
                self.add(&meant);
            }
            _ => {}
        }
        Ok(true)
    }

    fn begin(&mut self, element: &BytesStart<'_>) -> Result<(), String> {
        match element.name().as_ref() {
            "testcase" => {
                if self.cases.len() >= MAX_CASES {
                    return Err(format!("there are more than {MAX_CASES} test cases"));
                }
                let class = attribute(element, "classname")?.filter(|class| !class.is_empty());
                let own = attribute(element, "name")?.unwrap_or_default();
                let name = class.map_or(own.clone(), |class| format!("{class}.{own}"));
                let seconds = attribute(element, "time")?.and_then(|time| time.replace(',', "").parse::<f64>().ok());
                let took = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                self.current = Some(Case { name, verdict: Verdict::Passed, message: None, took });
            }
            kind @ ("failure" | "error" | "skipped") => {
                let message = attribute(element, "message")?;
                if let Some(case) = &mut self.current {
                    case.verdict = match (kind, case.verdict) {
                        ("skipped", Verdict::Passed) => Verdict::Skipped,
                        ("skipped", verdict) => verdict,
                        _ => Verdict::Failed,
                    };
                    self.inside = true;
                    self.add(&message.unwrap_or_default());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, name: &str) {
        match name {
            "testcase" => self.cases.extend(self.current.take().map(|mut case| {
                let word = if case.verdict == Verdict::Failed { "failed" } else { "skipped" };
                let said =
                    case.message.take().map(|message| message.trim().to_owned()).filter(|message| !message.is_empty());
                case.message = (case.verdict != Verdict::Passed).then(|| said.unwrap_or_else(|| word.to_owned()));
                case
            })),
            "failure" | "error" | "skipped" => self.inside = false,
            _ => {}
        }
    }

    fn add(&mut self, text: &str) {
        let Some(case) = self.current.as_mut().filter(|_| self.inside) else { return };
        let message = case.message.get_or_insert_default();
        if message.len() < MAX_MESSAGE && !text.trim().is_empty() {
            message.push_str(if message.is_empty() { "" } else { "\n" });
            message.extend(text.chars().take(MAX_MESSAGE));
        }
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>, String> {
    let found = element.try_get_attribute(name).map_err(|error| error.to_string())?;
    let value =
        found.map(|attribute| attribute.normalized_value(XmlVersion::Implicit1_0).map(|value| value.into_owned()));
    value.transpose().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_cases_become_results() {
        let text = "<?xml version=\"1.0\"?>\n<testsuites><testsuite name=\"s\">\
                    <testcase classname=\"tests.web\" name=\"page &amp; more\" time=\"0.250\"/>\
                    <testcase name=\"b\"><failure message=\"expected 1\">saw <![CDATA[<2>]]> &lt;x</failure></testcase>\
                    <testcase name=\"c\"><skipped/><system-out>noise</system-out></testcase>\
                    <testcase name=\"d\"><error>broke</error></testcase></testsuite></testsuites>";
        let read = parse(text.as_bytes());
        assert_eq!(read.problems, [""; 0]);
        let told: Vec<_> =
            read.cases.iter().map(|case| (case.name.as_str(), case.verdict, case.message.as_deref())).collect();
        assert_eq!(told[0], ("tests.web.page & more", Verdict::Passed, None));
        assert_eq!(read.cases[0].took, Some(Duration::from_millis(250)));
        let (name, verdict, message) = told[1];
        assert_eq!((name, verdict), ("b", Verdict::Failed));
        assert!(message.unwrap().starts_with("expected 1\nsaw") && message.unwrap().contains("<2>"), "{message:?}");
        assert_eq!(told[2], ("c", Verdict::Skipped, Some("skipped")));
        assert_eq!(told[3], ("d", Verdict::Failed, Some("broke")));
    }

    #[test]
    fn unit_entities_and_other_bad_input_are_refused() {
        let bomb = "<?xml version=\"1.0\"?><!DOCTYPE l [<!ENTITY a \"lol\"><!ENTITY b \"&a;&a;&a;\">]><testsuite><testcase name=\"&b;\"/></testsuite>";
        let outside = "<!DOCTYPE x [<!ENTITY f SYSTEM \"file:///etc/passwd\">]><testsuite><testcase name=\"a\"><failure>&f;</failure></testcase></testsuite>";
        let deep = "<a>".repeat(100_000);
        for (text, wanted) in [
            (bomb.as_bytes(), "document type"),
            (outside.as_bytes(), "document type"),
            (b"<testsuite><testcase name=\"&b;\"/></testsuite>", "line 1"),
            (b"<testsuite><testcase name=\"a\"><failure>&b;</failure></testcase></testsuite>", "line 1"),
            (b"<testsuite>\n<testcase name=\"a\">", "middle of an element"),
            (b"<testsuite></testsuite>", "no test case"),
            (b"", "no test case"),
            (b"\xff\xfe", "not UTF-8"),
            (b"<a></b>", "line 1"),
            (deep.as_bytes(), "nested deeper"),
        ] {
            let read = parse(text);
            assert!(read.cases.is_empty() && read.problems[0].contains(wanted), "{wanted}: {:?}", read.problems);
        }
        let many = format!("<t>{}</t>", "<testcase name='a'/>".repeat(3000));
        assert!(parse(many.as_bytes()).problems[0].contains("more than 2000"));
    }
}
