//! One test of the recipe on one server: what each kind does, and trying it again until its time is over.

use std::time::Duration;

use kiln_engine::{Engine, Observed};
use kiln_model::{
    evidence::TestOutcome,
    suite::{Test, TestKind},
};

use super::{cases, expect::Expect, goss, inside::Look, network, outcome, script, suites};
use crate::retry::{self, Miss};

/// Runs a test on a ready server. One that has tests of its own has an outcome for each.
pub(super) async fn run(engine: &dyn Engine, server: &Observed, expect: Expect<'_>, test: &Test) -> Vec<TestOutcome> {
    let outcomes = match &test.kind {
        TestKind::Goss(sources) => goss::run(engine, (server, expect), (&test.name, test.within), sources).await,
        TestKind::Tap { .. } | TestKind::Junit { .. } | TestKind::Testinfra { .. } => {
            suites::run(engine, server, expect, test).await
        }
        _ => vec![single(engine, server, expect, test).await],
    };
    cases::distinct(outcomes)
}

async fn single(engine: &dyn Engine, server: &Observed, expect: Expect<'_>, test: &Test) -> TestOutcome {
    let tried = retry::until(test.within, |left| once(engine, (server, expect), &test.kind, left)).await;
    outcome(&test.name, tried.took, tried.failure)
}

async fn once(
    engine: &dyn Engine,
    (server, expect): (&Observed, Expect<'_>),
    kind: &TestKind,
    left: Duration,
) -> Result<(), Miss> {
    let look = || Look::new(engine, &server.server, expect);
    let seen = match kind {
        TestKind::Http { .. } => network::http(server, expect, kind).await,
        TestKind::Tcp { port, send, expect: wanted } => {
            network::tcp((server, expect), *port, send.as_deref(), wanted.as_ref()).await
        }
        TestKind::Command { command, user, exit, stdout, stderr } => {
            look()?.command(command, user, *exit, (stdout, stderr), left).await
        }
        TestKind::File { .. } => look()?.file(kind).await,
        TestKind::Process { program, user, count } => look()?.process(program, user.as_deref(), *count).await,
        TestKind::Port { port, listening } => look()?.port(*port, *listening).await,
        TestKind::User { name, uid, home, shell } => look()?.user(name, *uid, home.as_deref(), shell.as_deref()).await,
        TestKind::Package { name, installed, version } => look()?.package(name, *installed, version.as_deref()).await,
        TestKind::Goss(_) | TestKind::Tap { .. } | TestKind::Junit { .. } | TestKind::Testinfra { .. } => {
            Err("this test has tests of its own".to_owned())
        }
        TestKind::Script { .. } => return script::run(server, expect, kind, left).await,
    };
    Ok(seen?)
}
