//! Tests that are programs with tests of their own: TAP, JUnit XML, pytest-testinfra. Each is run once, and each of its cases is a result
//! under the test's name. What is wrong with the whole is a result under the test's name alone.

use std::time::{Duration, Instant};

use kiln_api::error::chain;
use kiln_engine::{Engine, Observed};
use kiln_model::{
    cases::{Case, Cases, junit, tap},
    duration,
    evidence::{TestOutcome, Verdict},
    suite::{Runner, Test, TestKind},
};

use super::{
    cases,
    expect::Expect,
    outcome,
    script::{How, Job, KEPT, MAX_PRINTED, Place},
    testinfra,
};

/// So much of a JUnit file is read, in bytes.
pub(super) const MAX_REPORT: u64 = 16 << 20;
/// What a program that ran has to show.
pub(super) struct Shown {
    /// How it ended where it did not end with 0, and the end of what it said.
    pub(super) ended: Option<String>,
    pub(super) printed: Vec<u8>,
    pub(super) report: Option<Vec<u8>>,
}

/// Runs such a test on a ready server.
pub(super) async fn run(engine: &dyn Engine, server: &Observed, expect: Expect<'_>, test: &Test) -> Vec<TestOutcome> {
    let start = Instant::now();
    let limit = test.within.mul_f64(KEPT);
    let ran = async {
        match &test.kind {
            TestKind::Tap { run } => carry_out(engine, (server, expect), (run, None), limit).await.map(as_tap),
            TestKind::Junit { run, report } => {
                carry_out(engine, (server, expect), (run, Some(report)), limit).await.map(as_junit)
            }
            kind => testinfra::run(engine, (server, expect), kind, limit).await.map(as_junit),
        }
    };
    let ran = tokio::time::timeout(test.within, ran).await;
    let cases = ran.unwrap_or_else(|_| Err(format!("it did not end within {}", duration::format(test.within))));
    let cases = cases.unwrap_or_else(|problem| Cases { cases: Vec::new(), problems: vec![problem] });
    results(&test.name, cases, start.elapsed(), expect)
}

fn results(name: &str, told: Cases, took: Duration, expect: Expect<'_>) -> Vec<TestOutcome> {
    let result = |case: Case| TestOutcome {
        name: cases::name(name, &expect.plain(&case.name)),
        verdict: case.verdict,
        took: case.took.unwrap_or_default().min(took),
        message: case.message.map(|message| expect.plain(&message)),
    };
    let mut outcomes: Vec<TestOutcome> = told.cases.into_iter().map(result).collect();
    if !told.problems.is_empty() {
        outcomes.push(outcome(name, took, Some(told.problems.join("\n"))));
    }
    outcomes
}

fn as_tap(shown: Shown) -> Cases {
    if shown.printed.len() as u64 > MAX_PRINTED {
        let problem = format!("it printed more than {MAX_PRINTED} bytes, which is as far as TAP is read");
        return Cases { cases: Vec::new(), problems: vec![problem] };
    }
    ended_well(tap::parse(&String::from_utf8_lossy(&shown.printed)), shown.ended)
}

fn as_junit(shown: Shown) -> Cases {
    let told = match &shown.report {
        None => Cases { cases: Vec::new(), problems: vec!["it wrote no JUnit file".to_owned()] },
        Some(report) if report.len() as u64 > MAX_REPORT => {
            let problem = format!("its JUnit file is longer than {MAX_REPORT} bytes");
            Cases { cases: Vec::new(), problems: vec![problem] }
        }
        Some(report) => junit::parse(report),
    };
    ended_well(told, shown.ended)
}

/// A program that failed and told of no test that did has something else to say.
fn ended_well(mut told: Cases, ended: Option<String>) -> Cases {
    let explained = told.cases.iter().any(|case| case.verdict == Verdict::Failed);
    told.problems.extend(ended.filter(|_| !explained || !told.problems.is_empty()));
    told
}

async fn carry_out(
    engine: &dyn Engine,
    (server, expect): (&Observed, Expect<'_>),
    (run, report): (&Runner, Option<&String>),
    limit: Duration,
) -> Result<Shown, String> {
    match run {
        Runner::Command { command, user } => inside(engine, (server, expect), (command, user, report), limit).await,
        Runner::Script { file, content, arguments, secrets } => {
            let mut job = Job::new(server, expect, (content, arguments, secrets), limit)?;
            job.apart = true;
            job.report = report.map(|path| (path.clone(), MAX_REPORT));
            outside(job, (file, limit), expect).await
        }
    }
}

async fn inside(
    engine: &dyn Engine,
    (server, expect): (&Observed, Expect<'_>),
    (command, user, report): (&[String], &str, Option<&String>),
    limit: Duration,
) -> Result<Shown, String> {
    let inside = engine.inside().ok_or_else(|| format!("engine {} cannot look inside a server", engine.name()))?;
    let most = MAX_PRINTED as usize + 1;
    let ran = inside.exec(&server.server, command, user, limit, most).await.map_err(|error| chain(&error))?;
    let seen = if ran.stderr.is_empty() { &ran.stdout } else { &ran.stderr };
    let seen = &seen[seen.len().saturating_sub(4096)..];
    let ended = || format!("it exited with {} and said {}", ran.exit, expect.shown(&String::from_utf8_lossy(seen)));
    let report = match report {
        Some(path) => {
            let read = inside.read(&server.server, path, MAX_REPORT as usize + 1).await;
            read.map_err(|error| chain(&error))?
        }
        None => None,
    };
    Ok(Shown { ended: (ran.exit != 0).then(ended), printed: ran.stdout, report })
}

/// Runs a program on the host, as a `script` test does.
async fn outside(job: Job, (file, limit): (&str, Duration), expect: Expect<'_>) -> Result<Shown, String> {
    let failed = |reason: String| format!("could not run {file}: {reason}");
    let place = Place::new().map_err(|e| failed(e.to_string()))?;
    let ran = job.carried_out(&place).await.map_err(failed)?;
    let said = expect.shown(ran.said.trim_end());
    let ended = match ran.how {
        How::Killed => {
            return Err(format!(
                "{file} did not end within {} and was killed; its output: {said}",
                duration::format(limit)
            ));
        }
        How::Exited(status) if status.success() => None,
        How::Exited(status) => Some(format!("{file} ended with {status}; its output: {said}")),
    };
    Ok(Shown { ended, printed: ran.printed, report: ran.report })
}
