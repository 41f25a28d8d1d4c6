//! `[[test]]`: what must hold in the frozen, booted image.

mod dialects;
mod kinds;
mod matches;
pub(crate) mod matrix;

use std::{collections::BTreeMap, time::Duration};

use super::{
    command,
    text::{Context, Placed},
};
use crate::{
    config::ConfigSchema,
    id::{BindingName, ServiceName},
    manifest::{Binding, Service},
    suite::{Runner, Suite, Test, TestKind},
    text::{Entry, Keys, Table, Value},
};

#[cfg(test)]
pub(crate) use dialects::SCRIPT;

/// The keys of each kind; the first names the kind.
pub(crate) const KINDS: [Keys; 13] = [
    Keys {
        of: "an `http` test",
        valid: &["http", "port", "method", "request_headers", "status", "headers", "body", "name", "within", "matrix"],
    },
    Keys { of: "a `tcp` test", valid: &["tcp", "send", "expect", "name", "within", "matrix"] },
    Keys {
        of: "a `command` test",
        valid: &["command", "user", "exit", "stdout", "stderr", "name", "within", "matrix"],
    },
    Keys {
        of: "a `file` test",
        valid: &["file", "exists", "mode", "owner", "size", "content", "name", "within", "matrix"],
    },
    Keys { of: "a `process` test", valid: &["process", "user", "count", "name", "within", "matrix"] },
    Keys { of: "a `package` test", valid: &["package", "installed", "version", "name", "within", "matrix"] },
    Keys { of: "a `script` test", valid: &["script", "arguments", "secrets", "name", "within", "matrix"] },
    Keys { of: "a `goss` test", valid: &["goss", "vars", "environment", "name", "within", "matrix"] },
    Keys { of: "a `tap` test", valid: &["tap", "user", "arguments", "secrets", "name", "within", "matrix"] },
    Keys {
        of: "a `junit` test",
        valid: &["junit", "report", "user", "arguments", "secrets", "name", "within", "matrix"],
    },
    Keys {
        of: "a `testinfra` test",
        valid: &["testinfra", "files", "arguments", "secrets", "name", "within", "matrix"],
    },
    Keys { of: "a `port` test", valid: &["port", "listening", "name", "within", "matrix"] },
    Keys { of: "a `user` test", valid: &["user", "uid", "home", "shell", "name", "within", "matrix"] },
];
/// The keys of any test.
pub(crate) const ANY: Keys = Keys {
    of: "a test",
    valid: &[
        "name",
        "within",
        "matrix",
        "http",
        "tcp",
        "command",
        "file",
        "process",
        "package",
        "script",
        "goss",
        "tap",
        "junit",
        "testinfra",
        "port",
        "user",
        "method",
        "request_headers",
        "status",
        "headers",
        "body",
        "send",
        "expect",
        "exit",
        "stdout",
        "stderr",
        "exists",
        "mode",
        "owner",
        "size",
        "content",
        "count",
        "installed",
        "version",
        "arguments",
        "secrets",
        "vars",
        "environment",
        "report",
        "files",
        "listening",
        "uid",
        "home",
        "shell",
    ],
};

/// `port` and `user` are kinds only where none of these is there: an `http` test has a `port`, a `command` test a `user`.
const STRONG: [&str; 11] =
    ["http", "tcp", "command", "file", "process", "package", "script", "goss", "tap", "junit", "testinfra"];
/// Kinds whose program has tests of its own: it is run once, and may take longer.
const SUITES: [&str; 3] = ["tap", "junit", "testinfra"];
const MAX_TESTS: usize = 500;
const EXAMPLE: &str = "{ http = \"/\", body = { contains = \"Hello\" } }";

/// What a recipe says besides, as far as it could be read: what tests can refer to.
pub(super) struct Around<'a, 'd> {
    pub context: &'a Context<'a>,
    pub services: Option<&'a BTreeMap<ServiceName, Placed<'d, Service>>>,
    pub schema: Option<&'a ConfigSchema>,
    pub bindings: Option<&'a BTreeMap<BindingName, Binding>>,
}

pub(super) fn read_all(root: &Table<'_>, around: &Around<'_, '_>) -> Option<Suite> {
    let Some(value) = root.get("test") else { return Some(Suite::default()) };
    if value.is_table() {
        // `[[test.matrix]]` without any `[[test]]`.
        let matrix = value.table(matrix::ALONE, EXAMPLE)?.get("matrix");
        return Some(Suite { tests: Vec::new(), matrix: matrix::read_all(&matrix?, around)? });
    }
    let items = value.list(&format!("[{EXAMPLE}]"))?;
    if items.len() > MAX_TESTS {
        return value
            .place
            .report(format!("there are {} tests", items.len()), format!("at most {MAX_TESTS} are possible"));
    }
    let tests: Vec<_> = items.iter().map(|item| Some((read(item, around)?, name_place(item)))).collect();
    let matrix = matrix::of_tests(&items, around);
    let tests: Vec<_> = tests.into_iter().collect::<Option<_>>()?;
    names_are_distinct(&tests);
    Some(Suite { tests: tests.into_iter().map(|(test, _)| test).collect(), matrix: matrix? })
}

fn name_place<'d>(item: &Value<'d>) -> crate::text::Place<'d> {
    let table = item.map(EXAMPLE);
    table.and_then(|table| table.get("name")).map_or(item.place, |name| name.place)
}

fn names_are_distinct(tests: &[Placed<'_, Test>]) {
    for (index, (test, place)) in tests.iter().enumerate() {
        if let Some((_, first)) = tests[..index].iter().find(|(earlier, _)| earlier.name == test.name) {
            place.contradicts::<()>(
                *first,
                format!("two tests are called `{}`", test.name),
                "the first is here",
                "give each test a `name` of its own: the report tells them apart by it",
            );
        }
    }
}

fn read(value: &Value<'_>, around: &Around<'_, '_>) -> Option<Test> {
    let table = value.table(ANY, EXAMPLE)?;
    let strong = STRONG.iter().any(|kind| table.has(kind));
    let kinds: &[&'static str] = if strong {
        &STRONG
    } else {
        &[
            "http",
            "tcp",
            "command",
            "file",
            "process",
            "package",
            "script",
            "goss",
            "tap",
            "junit",
            "testinfra",
            "port",
            "user",
        ]
    };
    let choice = table.one_of(kinds, "http = \"/\"")?;
    belongs(&table, &choice);
    let limits = Duration::from_millis(100)..=Duration::from_secs(3600);
    let usual = Duration::from_secs(if SUITES.contains(&choice.key) { 300 } else { 10 });
    let within = table.get("within").map_or(Some(usual), |v| v.duration(limits, "\"10s\""));
    let kind = kinds::read(&table, &choice, around)?;
    let name = table.get("name").map_or_else(|| Some(describe(&kind)), |v| name(&v));
    Some(Test { name: name?, within: within?, kind })
}

fn name(value: &Value<'_>) -> Option<String> {
    let name = command::label(value)?;
    if name.starts_with("kiln/") {
        return value
            .place
            .report("names that start with `kiln/` are those of the conformance tests", "choose another name");
    }
    Some(name)
}

/// Reports the keys that belong to another kind of test.
fn belongs(table: &Table<'_>, kind: &Entry<'_>) {
    let keys = KINDS.into_iter().find(|keys| keys.valid[0] == kind.key).expect("every kind has its keys");
    for entry in table.entries().filter(|e| ANY.valid.contains(&e.key) && !keys.valid.contains(&e.key)) {
        let owners = KINDS.iter().filter(|other| other.valid.contains(&entry.key)).map(|other| other.of);
        entry.place.contradicts::<()>(
            kind.place,
            format!("`{}` belongs to {}, and this is {}", entry.key, owners.collect::<Vec<_>>().join(" or "), keys.of),
            format!("`{}` makes it one", kind.key),
            "remove it, or write a test of its own",
        );
    }
}

fn describe(kind: &TestKind) -> String {
    let text = match kind {
        TestKind::Http { port, path, method, .. } => format!("http {method} :{port}{path}"),
        TestKind::Tcp { port, .. } => format!("tcp {port}"),
        TestKind::Command { command, .. } => format!("command {}", command.join(" ").replace(char::is_control, " ")),
        TestKind::File { path, .. } => format!("file {path}"),
        TestKind::Process { program, .. } => format!("process {program}"),
        TestKind::Port { port, .. } => format!("port {port}"),
        TestKind::User { name, .. } => format!("user {name}"),
        TestKind::Package { name, .. } => format!("package {name}"),
        TestKind::Script { file, arguments, .. } => format!("script {file} {}", arguments.join(" ")).trim().to_owned(),
        TestKind::Goss(_) => "goss".to_owned(),
        TestKind::Tap { run } => format!("tap {}", program(run)),
        TestKind::Junit { run, .. } => format!("junit {}", program(run)),
        TestKind::Testinfra { .. } => "testinfra".to_owned(),
    };
    text.chars().take(100).collect()
}

fn program(run: &Runner) -> String {
    match run {
        Runner::Command { command, .. } => command.join(" ").replace(char::is_control, " "),
        Runner::Script { file, arguments, .. } => format!("{file} {}", arguments.join(" ")).trim().to_owned(),
    }
}
