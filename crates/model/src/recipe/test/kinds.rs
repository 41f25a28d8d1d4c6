//! One reader for each kind of test.

use std::collections::{BTreeMap, BTreeSet};

use super::{Around, dialects, matches};
use crate::{
    config::{ConfigKey, ConfigSchema, Delivery},
    diagnostic::shown,
    manifest::{Port, Protocol},
    recipe::{FileKind, check, command, config, service, text::Context},
    suite::TestKind,
    text::{Entry, Table, Value},
};

/// A script longer than this (bytes) is refused.
const MAX_SCRIPT: u64 = 1 << 20;
const METHODS: [(&str, &str); 7] = [
    ("GET", "GET"),
    ("HEAD", "HEAD"),
    ("POST", "POST"),
    ("PUT", "PUT"),
    ("PATCH", "PATCH"),
    ("DELETE", "DELETE"),
    ("OPTIONS", "OPTIONS"),
];

type Schema<'a> = Option<&'a ConfigSchema>;

pub(super) fn read(table: &Table<'_>, choice: &Entry<'_>, around: &Around<'_, '_>) -> Option<TestKind> {
    let (value, schema) = (&choice.value, around.schema);
    match choice.key {
        "http" => http(table, value, around),
        "tcp" => tcp(table, value, schema),
        "command" => command(table, value, schema),
        "file" => file(table, value, schema),
        "process" => process(table, value),
        "package" => package(table, value),
        "script" => script(table, value, around),
        "goss" => dialects::goss(table, value, around),
        "tap" => dialects::tap(table, value, around),
        "junit" => dialects::junit(table, value, around),
        "testinfra" => dialects::testinfra(table, value, around),
        "port" => port(table, value),
        _ => user(table, value),
    }
}

fn http(table: &Table<'_>, path: &Value<'_>, around: &Around<'_, '_>) -> Option<TestKind> {
    let checked = path.checked("\"/\"", service::url_path);
    let port = match table.get("port") {
        Some(value) => service::port_number(&value, "80"),
        None => only_port(path, around),
    };
    let method = table.get("method").map_or(Some("GET"), |v| v.word(&METHODS));
    let request_headers = table.get("request_headers").map_or(Some(BTreeMap::new()), |v| request_headers(&v));
    let status = table.get("status").map_or(Some(200), |v| v.integer(100..=599, "200"));
    let headers = table.get("headers").map_or(Some(BTreeMap::new()), |v| matches::headers(&v, around.schema));
    let body = table.get("body").map_or(Some(vec![]), |v| matches::several(&v, around.schema));
    Some(TestKind::Http {
        port: port?,
        path: checked?,
        method: method?.to_owned(),
        request_headers: request_headers?,
        status: status?,
        headers: headers?,
        body: body?,
    })
}

/// The port of an `http` test that names none: the only one that speaks HTTP, or the only one.
fn only_port(path: &Value<'_>, around: &Around<'_, '_>) -> Option<u16> {
    let ports: Vec<Port> = around.services?.values().flat_map(|(service, _)| service.ports.iter().copied()).collect();
    let http: Vec<_> = ports.iter().filter(|port| port.protocol == Protocol::Http).collect();
    match (http.as_slice(), ports.as_slice()) {
        ([only], _) => Some(only.port),
        ([], [only]) => Some(only.port),
        _ => path.place.report(
            format!("it is not said which port is asked: the services have {} ports", ports.len()),
            "name it: `port = 80`",
        ),
    }
}

fn request_headers(value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    let table = value.map("{ accept = \"application/json\" }")?;
    let all: Vec<_> = table
        .entries()
        .map(|entry| {
            let name = matches::header_name(&entry);
            let text = entry.value.checked("\"…\"", |text| {
                let good = text.chars().all(|c| c == ' ' || c == '\t' || c.is_ascii_graphic());
                if good { Ok(()) } else { Err("a header's value has printable ASCII characters only".to_owned()) }
            });
            Some((name?, text?))
        })
        .collect();
    all.into_iter().collect()
}

fn tcp(table: &Table<'_>, value: &Value<'_>, schema: Schema<'_>) -> Option<TestKind> {
    let port = service::port_number(value, "6379");
    let send = table.get("send").map_or(Some(None), |v| v.text().map(|text| Some(text.to_owned())));
    let expect = table.get("expect").map_or(Some(None), |v| matches::one(&v, schema).map(Some));
    Some(TestKind::Tcp { port: port?, send: send?, expect: expect? })
}

fn command(table: &Table<'_>, value: &Value<'_>, schema: Schema<'_>) -> Option<TestKind> {
    let command = command::read(value, command::Text::Words);
    let user = table.get("user").map_or(Some("root".to_owned()), |v| v.checked("\"root\"", check::user));
    let exit = table.get("exit").map_or(Some(0), |v| v.integer(0..=255, "0"));
    let stdout = table.get("stdout").map_or(Some(vec![]), |v| matches::several(&v, schema));
    let stderr = table.get("stderr").map_or(Some(vec![]), |v| matches::several(&v, schema));
    Some(TestKind::Command { command: command?, user: user?, exit: exit?, stdout: stdout?, stderr: stderr? })
}

fn file(table: &Table<'_>, value: &Value<'_>, schema: Schema<'_>) -> Option<TestKind> {
    let path = value.checked("\"/etc/hostname\"", |text| check::image_path(text, false));
    let exists = table.get("exists").map_or(Some(true), |v| v.boolean());
    let mode = table.get("mode").map_or(Some(None), |v| command::mode(&v).map(Some));
    let owner = table.get("owner").map_or(Some(None), |v| v.checked("\"root\"", check::user).map(Some));
    let size = table.get("size").map_or(Some(None), |v| v.integer::<u64>(0..=1 << 50, "1024").map(Some));
    let content = table.get("content").map_or(Some(vec![]), |v| matches::several(&v, schema));
    if exists == Some(false) {
        absent_has_no_more(table);
    }
    Some(TestKind::File { path: path?, exists: exists?, mode: mode?, owner: owner?, size: size?, content: content? })
}

fn absent_has_no_more(table: &Table<'_>) {
    let Some(exists) = table.get("exists") else { return };
    for key in ["mode", "owner", "size", "content"] {
        if let Some(value) = table.get(key) {
            value.place.contradicts::<()>(
                exists.place,
                format!("a file that must not exist has no `{key}`"),
                "it must not exist",
                "remove one of the two",
            );
        }
    }
}

fn process(table: &Table<'_>, value: &Value<'_>) -> Option<TestKind> {
    let program = value.checked("\"nginx\"", |text| {
        let good = !text.is_empty() && text.len() <= 255 && !text.contains('/') && !text.chars().any(char::is_control);
        if good { Ok(()) } else { Err(format!("`{}` is not a program's file name", shown(text))) }
    });
    let user = table.get("user").map_or(Some(None), |v| v.checked("\"www-data\"", check::user).map(Some));
    let count = table.get("count").map_or(Some(1), |v| v.integer(1..=100_000, "1"));
    Some(TestKind::Process { program: program?, user: user?, count: count? })
}

fn package(table: &Table<'_>, value: &Value<'_>) -> Option<TestKind> {
    let name = value.checked("\"nginx\"", |text| {
        check::package(text)?;
        if text.contains('=') { Err("write the version as `version = \"…\"`".to_owned()) } else { Ok(()) }
    });
    let installed = table.get("installed").map_or(Some(true), |v| v.boolean());
    let version = table.get("version").map_or(Some(None), |v| v.checked("\"1.22.1-9\"", check::version_text).map(Some));
    if installed == Some(false)
        && let (Some(version), Some(installed)) = (table.get("version"), table.get("installed"))
    {
        version.place.contradicts::<()>(
            installed.place,
            "a package that must not be installed has no `version`",
            "it must not be installed",
            "remove one of the two",
        );
    }
    Some(TestKind::Package { name: name?, installed: installed?, version: version? })
}

fn port(table: &Table<'_>, value: &Value<'_>) -> Option<TestKind> {
    let port = service::port_number(value, "80");
    let listening = table.get("listening").map_or(Some(true), |v| v.boolean());
    Some(TestKind::Port { port: port?, listening: listening? })
}

fn user(table: &Table<'_>, value: &Value<'_>) -> Option<TestKind> {
    let name = value.checked("\"www-data\"", check::user);
    let uid = table.get("uid").map_or(Some(None), |v| v.integer::<u32>(0..=65_535, "33").map(Some));
    let path = |text: &str| check::image_path(text, true);
    let home = table.get("home").map_or(Some(None), |v| v.checked("\"/var/www\"", path).map(Some));
    let shell = table.get("shell").map_or(Some(None), |v| v.checked("\"/usr/sbin/nologin\"", path).map(Some));
    Some(TestKind::User { name: name?, uid: uid?, home: home?, shell: shell? })
}

fn script(table: &Table<'_>, value: &Value<'_>, around: &Around<'_, '_>) -> Option<TestKind> {
    let file = value.checked("\"tests/check.sh\"", check::recipe_path);
    let content = file.as_deref().and_then(|path| script_content(value, path, around.context));
    let (arguments, secrets) = (arguments(table), told(table, around));
    Some(TestKind::Script { file: file?, content: content?, arguments: arguments?, secrets: secrets? })
}

/// The arguments of a program of the recipe.
pub(super) fn arguments(table: &Table<'_>) -> Option<Vec<String>> {
    let Some(value) = table.get("arguments") else { return Some(Vec::new()) };
    let all: Vec<_> =
        value.list("[\"--fast\"]")?.iter().map(|item| item.checked("[\"--fast\"]", check::argument)).collect();
    all.into_iter().collect()
}

/// The secret keys that a program of the recipe is told.
pub(super) fn told(table: &Table<'_>, around: &Around<'_, '_>) -> Option<BTreeSet<ConfigKey>> {
    table.get("secrets").map_or(Some(BTreeSet::new()), |v| secrets(&v, around.schema))
}

/// Secret keys that a script is told.
fn secrets(value: &Value<'_>, schema: Schema<'_>) -> Option<BTreeSet<ConfigKey>> {
    let example = "[\"password\"]";
    let named = value.list(example)?;
    let keys: Vec<_> = named
        .iter()
        .map(|item| {
            let key = item.parsed::<ConfigKey>(example)?;
            let schema = schema?;
            config::must_exist(schema, &(key.clone(), item.place));
            if schema.0.get(&key)?.delivery != Delivery::Secret {
                let message = format!("`{key}` is not secret");
                return item.place.report(message, "remove it: scripts are told every key that is not secret anyway");
            }
            Some(key)
        })
        .collect();
    keys.into_iter().collect()
}

pub(super) fn script_content(value: &Value<'_>, path: &str, context: &Context<'_>) -> Option<String> {
    match context.files.kind(path) {
        Ok(Some(FileKind::File)) => {}
        Ok(None) => {
            return value.place.report(
                format!("there is no file `{path}` beside the recipe"),
                "paths are relative to the directory of the recipe",
            );
        }
        Ok(Some(_)) => return value.place.report(format!("`{path}` is not a file"), "name the script itself"),
        Err(problem) => {
            return value
                .place
                .report(format!("`{path}` cannot be used: {problem}"), "put the script into the recipe's directory");
        }
    }
    let help = "a script is a text file of at most 1 MiB whose first line is like `#!/bin/sh`";
    let bytes = match context.files.read(path, MAX_SCRIPT) {
        Ok(bytes) => bytes,
        Err(problem) => return value.place.report(format!("`{path}` cannot be used: {problem}"), help),
    };
    match String::from_utf8(bytes) {
        Ok(text) if text.starts_with("#!") => Some(text),
        Ok(_) => value.place.report(format!("`{path}` does not start with `#!`, so it is not said what runs it"), help),
        Err(_) => value.place.report(format!("`{path}` is not a text in UTF-8"), help),
    }
}
