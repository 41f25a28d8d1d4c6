//! TAP, versions 13 and 14 (<https://testanything.org/tap-version-14-specification.html>).
//!
//! Lines that are not TAP are left alone, as the specification asks. What makes the whole fail: no plan, another number of test points
//! than planned, a number out of order, `Bail out!`.

use super::{Case, Cases, MAX_CASES};
use crate::evidence::Verdict;

/// Subtests inside of subtests … so deep.
const MAX_DEPTH: usize = 8;
/// A diagnostic is kept up to so many bytes.
const MAX_DIAGNOSTIC: usize = 2000;
/// So many problems are told.
const MAX_PROBLEMS: usize = 10;

/// The points of one depth that have no parent yet, and its plan.
#[derive(Default)]
struct Level {
    cases: Vec<Case>,
    points: u64,
    plan: Option<Plan>,
}

struct Plan {
    last: u64,
    skipped: Option<String>,
}

/// A test point.
struct Point<'t> {
    good: bool,
    number: Option<u64>,
    description: String,
    directive: Option<(Directive, &'t str)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Directive {
    Skip,
    Todo,
}

/// Reads what a program printed.
pub fn parse(text: &str) -> Cases {
    let mut reader = Reader { levels: vec![Level::default()], problems: Vec::new(), count: 0, diagnostic: None };
    for line in text.lines() {
        if !reader.line(line) {
            break;
        }
    }
    reader.end()
}

struct Reader {
    levels: Vec<Level>,
    problems: Vec<String>,
    count: usize,
    /// The depth whose last point has a YAML diagnostic that is being read.
    diagnostic: Option<usize>,
}

impl Reader {
    /// Reads a line; false ends the reading.
    fn line(&mut self, line: &str) -> bool {
        let spaces = line.len() - line.trim_start_matches(' ').len();
        if self.diagnostic(line, spaces) {
            return true;
        }
        let (depth, rest) = (spaces / 4, line.trim_end());
        if depth > MAX_DEPTH || !spaces.is_multiple_of(4) {
            return true;
        }
        let rest = &rest[spaces.min(rest.len())..];
        if let Some(reason) = rest.get(..9).filter(|word| word.eq_ignore_ascii_case("Bail out!")).map(|_| &rest[9..]) {
            self.problem(format!("it bailed out:{reason}"));
            return false;
        }
        if let Some(plan) = plan(rest) {
            self.deepen(depth);
            if self.levels[depth].plan.is_some() {
                self.problem("there are two plans".to_owned());
            }
            self.levels[depth].plan = Some(plan);
        } else if let Some(point) = point(rest) {
            self.count += 1;
            if self.count > MAX_CASES {
                self.problem(format!("there are more than {MAX_CASES} test points"));
                return false;
            }
            self.deepen(depth);
            self.point(depth, point);
        }
        true
    }

    fn deepen(&mut self, depth: usize) {
        while self.levels.len() <= depth {
            self.levels.push(Level::default());
        }
    }

    fn problem(&mut self, problem: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }

    /// YAML between `---` and `...`, two deeper than its point.
    fn diagnostic(&mut self, line: &str, spaces: usize) -> bool {
        let rest = line.trim();
        match self.diagnostic {
            None if rest == "---" && spaces >= 2 && spaces % 4 == 2 => {
                let depth = (spaces - 2) / 4;
                let there = self.levels.get(depth).is_some_and(|level| !level.cases.is_empty());
                self.diagnostic = there.then_some(depth);
                there
            }
            None => false,
            Some(_) if rest == "..." => {
                self.diagnostic = None;
                true
            }
            Some(depth) => {
                if let Some(case) = self.levels.get_mut(depth).and_then(|level| level.cases.last_mut()) {
                    let message = case.message.get_or_insert_default();
                    if message.len() < MAX_DIAGNOSTIC {
                        message.push_str(if message.is_empty() { "" } else { "\n" });
                        message.push_str(rest);
                    }
                }
                true
            }
        }
    }

    fn point(&mut self, depth: usize, point: Point<'_>) {
        let below = self.close(depth + 1);
        let level = &mut self.levels[depth];
        level.points += 1;
        let number = point.number.unwrap_or(level.points);
        let wrong =
            (number != level.points).then(|| format!("test point {number} stands where {} is due", level.points));
        let name =
            if point.description.is_empty() { number.to_string() } else { format!("{number} {}", point.description) };
        let verdict = match (point.directive, point.good) {
            (Some((Directive::Skip, _)), _) | (Some((Directive::Todo, _)), false) => Verdict::Skipped,
            (_, true) => Verdict::Passed,
            (_, false) => Verdict::Failed,
        };
        let message = point.directive.map(|(directive, reason)| {
            let word = if directive == Directive::Skip { "skipped" } else { "to do" };
            format!("{word}: {reason}").trim_end_matches(": ").to_owned()
        });
        let message = message.or_else(|| (verdict == Verdict::Failed).then(|| "not ok".to_owned()));
        level.cases.extend(below.into_iter().map(|case| Case { name: format!("{name} / {}", case.name), ..case }));
        level.cases.push(Case { name, verdict, message, took: None });
        if let Some(wrong) = wrong {
            self.problem(wrong);
        }
    }

    /// Ends the levels from this depth on: their cases, deepest under their own names.
    fn close(&mut self, depth: usize) -> Vec<Case> {
        let mut cases = Vec::new();
        while self.levels.len() > depth {
            let level = self.levels.pop().unwrap_or_default();
            self.planned(&level);
            let mut own = level.cases;
            own.append(&mut cases);
            cases = own;
        }
        cases
    }

    fn planned(&mut self, level: &Level) {
        match &level.plan {
            None if level.points == 0 => self.problem("there is neither a plan nor a test point".to_owned()),
            None => self.problem(format!("there is no plan, and {} test points", level.points)),
            Some(plan) if plan.last != level.points => {
                self.problem(format!("{} test points are planned, and {} are there", plan.last, level.points));
            }
            Some(_) => {}
        }
    }

    fn end(mut self) -> Cases {
        let all_skipped =
            self.levels[0].plan.as_ref().filter(|plan| plan.last == 0).and_then(|plan| plan.skipped.clone());
        let mut cases = self.close(0);
        match all_skipped {
            Some(reason) if cases.is_empty() => {
                let message = Some(format!("skipped: {reason}").trim_end_matches(": ").to_owned());
                cases.push(Case { name: "all".to_owned(), verdict: Verdict::Skipped, message, took: None });
            }
            _ if cases.is_empty() && self.problems.is_empty() => self.problem("no test point is planned".to_owned()),
            _ => {}
        }
        Cases { cases, problems: self.problems }
    }
}

fn plan(line: &str) -> Option<Plan> {
    let rest = line.strip_prefix("1..")?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let last = rest[..digits].parse().ok()?;
    let (text, directive) = split_directive(&rest[digits..]);
    if !text.trim().is_empty() {
        return None;
    }
    let skipped = directive.filter(|(directive, _)| *directive == Directive::Skip).map(|(_, reason)| reason.to_owned());
    Some(Plan { last, skipped })
}

fn point(line: &str) -> Option<Point<'_>> {
    let (good, rest) = match line.strip_prefix("not ok") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok")?),
    };
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let (text, directive) = split_directive(rest);
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let ends = text[digits..].is_empty() || text[digits..].starts_with(' ');
    let (number, text) = match text[..digits].parse().ok().filter(|_| ends) {
        Some(number) => (Some(number), text[digits..].trim_start()),
        None => (None, text),
    };
    let description = text.strip_prefix('-').unwrap_or(text).trim();
    // A block of subtests may begin behind its point.
    let description = description.strip_suffix('{').unwrap_or(description).trim_end();
    Some(Point { good, number, description: unescaped(description), directive })
}

/// Splits at a `#` that no backslash stands before, if a directive follows it.
fn split_directive(text: &str) -> (&str, Option<(Directive, &str)>) {
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '#' => {
                let rest = text[index + 1..].trim();
                let word = |word: &str| rest.get(..word.len()).is_some_and(|there| there.eq_ignore_ascii_case(word));
                let directive = match () {
                    () if word("skip") => Some(Directive::Skip),
                    () if word("todo") => Some(Directive::Todo),
                    () => None,
                };
                if let Some(directive) = directive {
                    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                    return (&text[..index], Some((directive, rest[end..].trim())));
                }
            }
            _ => {}
        }
    }
    (text, None)
}

fn unescaped(text: &str) -> String {
    text.replace("\\#", "#").replace("\\\\", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> (Vec<String>, Vec<String>) {
        let read = parse(text);
        let case = |case: &Case| {
            let mark = match case.verdict {
                Verdict::Passed => '+',
                Verdict::Failed => '-',
                Verdict::Skipped => '~',
            };
            let message = case.message.as_deref().map(|message| format!(" ({message})")).unwrap_or_default();
            format!("{mark}{}{message}", case.name)
        };
        (read.cases.iter().map(case).collect(), read.problems)
    }

    #[test]
    fn unit_points_become_results_with_their_own_names() {
        let text = "TAP version 14\n1..6\nok 1 - opens \\# here\nnot ok 2 - closes\n  ---\n  message: too late\n  at: x.t\n  ...\n\
                    ok 3 # SKIP no disk\nnot ok 4 - wish # TODO later\nok\nnoise\n# comment\nok 6 early # todo\n";
        let (cases, problems) = told(text);
        assert_eq!(
            cases,
            [
                "+1 opens # here",
                "-2 closes (not ok\nmessage: too late\nat: x.t)",
                "~3 (skipped: no disk)",
                "~4 wish (to do: later)",
                "+5",
                "+6 early (to do)",
            ]
        );
        assert_eq!(problems, [""; 0]);
    }

    #[test]
    fn unit_subtests_stand_under_their_parent() {
        let text = "# Subtest: outer\n    ok 1 - a\n        not ok 1 - deep\n        1..1\n    not ok 2 - b\n    1..2\nnot ok 1 - outer\n1..1\n";
        let (cases, problems) = told(text);
        assert_eq!(
            cases,
            ["+1 outer / 1 a", "-1 outer / 2 b / 1 deep (not ok)", "-1 outer / 2 b (not ok)", "-1 outer (not ok)"]
        );
        assert_eq!(problems, [""; 0]);
    }

    #[test]
    fn unit_what_is_wrong_with_the_whole_is_a_problem() {
        for (text, wanted) in [
            ("", "neither a plan nor a test point"),
            ("ok 1\n", "no plan, and 1 test points"),
            ("1..3\nok 1\nok 2\n", "3 test points are planned, and 2 are there"),
            ("1..1\nok 1\nok 2\n", "1 test points are planned, and 2 are there"),
            ("1..2\nok 1\nBail out! no database\nok 2\n", "it bailed out: no database"),
            ("1..2\nok 2\nok 1\n", "test point 2 stands where 1 is due"),
            ("1..1\nok 1\n1..1\n", "two plans"),
            ("1..0\n", "no test point is planned"),
            ("    ok 1\n    1..2\nok 1 - p\n1..1\n", "2 test points are planned, and 1 are there"),
        ] {
            let problems = told(text).1;
            assert!(problems.iter().any(|problem| problem.contains(wanted)), "{text:?}: {problems:?}");
        }
        assert_eq!(told("1..0 # SKIP wrong system\n"), (vec!["~all (skipped: wrong system)".to_owned()], vec![]));
        let many = "ok\n".repeat(5000) + "1..5000\n";
        assert!(parse(&many).cases.len() <= MAX_CASES && told(&many).1[0].contains("more than 2000"));
    }
}
