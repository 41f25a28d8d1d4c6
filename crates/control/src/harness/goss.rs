//! `goss` tests: every check of a goss file on one server.
//!
//! What a check needs to know is seen from outside through the server's own view of its files, its network and its kernel, as far
//! as that goes; `command` runs inside as root. Each resource is tried again on its own until it is as expected or the test's time
//! is over, a few at a time. The comparing itself is [`kiln_model::goss`].

mod accounts;
mod dns;
mod files;
mod host;
mod http;
mod network;
mod packages;
mod services;
mod tls;

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, join_all};
use kiln_api::error::chain;
use kiln_engine::{Engine, EngineError, Facts, Inside, Observed};
use kiln_model::{
    ServerId,
    evidence::{TestOutcome, Verdict},
    goss::{Judged, Resource, Sources, Subject, Value, judge},
};
use tokio::sync::Semaphore;

use super::{expect::Expect, outcome};
use crate::retry::{self, Miss};

/// So many resources are looked at at once on one server.
const AT_ONCE: usize = 8;
/// So much of a file or an output is looked at.
const MAX_BYTES: usize = 4 << 20;

/// What was seen of one resource: each property's value, or why it has none.
type Seen = BTreeMap<&'static str, Result<Value, String>>;

/// Looks at one server.
#[derive(Clone, Copy)]
struct Eyes<'a> {
    inside: &'a dyn Inside,
    facts: &'a dyn Facts,
    server: &'a ServerId,
}

/// Runs a goss test on a ready server.
pub(super) async fn run(
    engine: &dyn Engine,
    (server, expect): (&Observed, Expect<'_>),
    (name, within): (&str, Duration),
    sources: &Sources,
) -> Vec<TestOutcome> {
    let failed = |message: String| vec![outcome(name, Duration::ZERO, Some(message))];
    let resources = match sources.read() {
        Ok(resources) => resources,
        Err(problems) => return failed(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    };
    let (Some(inside), Some(facts)) = (engine.inside(), engine.facts()) else {
        return failed(format!("engine {} cannot see what goss files look at", engine.name()));
    };
    let eyes = Eyes { inside, facts, server: &server.server };
    let turns = Semaphore::new(AT_ONCE);
    let tried = resources.iter().map(|resource| tried(eyes, expect, &turns, (name, within), resource));
    join_all(tried).await.concat()
}

/// One resource, tried until it is as expected.
async fn tried(
    eyes: Eyes<'_>,
    expect: Expect<'_>,
    turns: &Semaphore,
    (name, within): (&str, Duration),
    resource: &Resource,
) -> Vec<TestOutcome> {
    let shown = |text: &str| expect.plain(text);
    let start = Instant::now();
    let last = Mutex::new(Vec::new());
    let keep = |judged| *last.lock().unwrap_or_else(PoisonError::into_inner) = judged;
    let tried = retry::until(within, |left| async move {
        let _turn = turns.acquire().await;
        let mut seen = if resource.skip { Seen::new() } else { see(eyes, resource, left).await };
        let judged = judge(resource, |property| answer(&mut seen, property), shown);
        let good = judged.iter().all(|judged| judged.passed != Some(false));
        keep(judged);
        match (good, &resource.subject) {
            (true, _) => Ok(()),
            (false, Subject::Matching(_)) => Err(Miss::Final(String::new())),
            (false, _) => Err(Miss::Again(String::new())),
        }
    })
    .await;
    let mut judged = last.into_inner().unwrap_or_else(PoisonError::into_inner);
    if judged.is_empty() {
        let never = |_: &'static str| Err("looking at it did not end".to_owned());
        judged = judge(resource, never, shown);
    }
    let took = tried.took.min(start.elapsed());
    judged.into_iter().map(|judged| ended(name, took, judged)).collect()
}

fn answer(seen: &mut Seen, property: &'static str) -> Result<Value, String> {
    seen.remove(property).unwrap_or_else(|| Err(format!("nothing is known of `{property}`")))
}

fn ended(name: &str, took: Duration, judged: Judged) -> TestOutcome {
    let verdict = match judged.passed {
        Some(true) => Verdict::Passed,
        Some(false) => Verdict::Failed,
        None => Verdict::Skipped,
    };
    TestOutcome { name: super::cases::name(name, &judged.name), verdict, took, message: judged.message }
}

/// Looks at a resource. Boxed: the many kinds would make one very large future of every test.
fn see<'a>(eyes: Eyes<'a>, resource: &'a Resource, left: Duration) -> BoxFuture<'a, Seen> {
    Box::pin(async move { look(eyes, resource, left).await })
}

async fn look(eyes: Eyes<'_>, resource: &Resource, left: Duration) -> Seen {
    match &resource.subject {
        Subject::File(path) => {
            let wanted: Vec<&str> = resource.checks.iter().map(|check| check.property).collect();
            Box::pin(eyes.file(path, &wanted)).await
        }
        Subject::Package(name) => eyes.package(name).await,
        Subject::Address { network, address, local, timeout } => {
            let reachable = eyes.reachable(network, address, local.as_deref(), *timeout).await;
            Seen::from([("reachable", reachable.map(Value::Bool))])
        }
        Subject::Port { network, port } => eyes.port(network, port).await,
        Subject::Service(name) => eyes.service(name).await,
        Subject::User(name) => eyes.user(name).await,
        Subject::Group(name) => eyes.group(name).await,
        Subject::Command { exec, timeout } => eyes.command(exec, *timeout, left).await,
        Subject::Dns { kind, name, server, timeout } => {
            eyes.dns((kind.as_deref(), name), server.as_deref(), *timeout).await
        }
        Subject::Process(name) => eyes.process(name).await,
        Subject::KernelParameter(name) => eyes.kernel_parameter(name).await,
        Subject::Mount(path) => eyes.mount(path).await,
        Subject::Interface(name) => eyes.interface(name).await,
        Subject::Http(request) => Box::pin(eyes.http(request)).await,
        Subject::Matching(content) => Seen::from([("matches", Ok(content.clone()))]),
    }
}

/// The same for all properties, where nothing can be seen.
fn nothing(properties: &[&'static str], reason: &str) -> Seen {
    properties.iter().map(|property| (*property, Err(reason.to_owned()))).collect()
}

fn said(error: EngineError) -> String {
    chain(&error)
}

impl Eyes<'_> {
    /// The beginning of a file; none if absent.
    async fn read(self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, String> {
        self.inside.read(self.server, path, limit).await.map_err(said)
    }

    /// A file as a text; empty if absent.
    async fn text(self, path: &str) -> Result<String, String> {
        let bytes = self.read(path, MAX_BYTES).await?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn is_there(self, path: &str) -> bool {
        self.inside.stat(self.server, path).await.is_ok_and(|found| found.is_some())
    }

    /// Whether a program is where programs are.
    async fn has_program(self, name: &str) -> bool {
        for directory in ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"] {
            if self.is_there(&format!("{directory}/{name}")).await {
                return true;
            }
        }
        false
    }

    /// Runs a program as root.
    async fn run(self, command: &[&str], limit: Duration) -> Result<kiln_engine::ExecResult, EngineError> {
        let command: Vec<String> = command.iter().map(ToString::to_string).collect();
        self.inside.exec(self.server, &command, "root", limit, MAX_BYTES).await
    }

    /// Judged after its own `limit`. An attempt that the test's end cuts off says nothing, and what was seen before counts: here
    /// the command itself is ended, after what is `left`.
    async fn command(self, exec: &str, limit: Duration, left: Duration) -> Seen {
        let command = ["/bin/sh", "-c", exec];
        let ran = self.run(&command, limit.min(left) + AFTER_LIMIT);
        let ran = match tokio::time::timeout(limit, ran).await {
            Ok(Ok(ran)) => ran,
            Ok(Err(error)) => return nothing(&["exit-status", "stdout", "stderr"], &said(error)),
            Err(_) => {
                let limit = kiln_model::duration::format(limit);
                return nothing(
                    &["exit-status", "stdout", "stderr"],
                    &format!("the command did not end within {limit}"),
                );
            }
        };
        let text = |bytes: &[u8]| Ok(Value::Text(String::from_utf8_lossy(bytes).into_owned()));
        Seen::from([
            ("exit-status", Ok(Value::Int(ran.exit.into()))),
            ("stdout", text(&ran.stdout)),
            ("stderr", text(&ran.stderr)),
        ])
    }
}

/// A command is killed so long after its time is over.
const AFTER_LIMIT: Duration = Duration::from_millis(500);
