//! `[service.NAME]`: the programs that PID 1 supervises.

use std::{collections::BTreeMap, time::Duration};

use super::{check, command, config, text::Placed};
use crate::{
    config::{ConfigKey, ConfigSchema},
    diagnostic::shown,
    id::ServiceName,
    manifest::{Liveness, Port, Protocol, Readiness, Restart, Service, ServiceCheck, Stop},
    plan::SPARE_AGE,
    text::{Entry, Keys, Place, Table, Value},
};

/// The keys of a service.
pub(crate) const KEYS: Keys = Keys {
    of: "a service",
    valid: &[
        "command",
        "user",
        "environment",
        "working_directory",
        "ports",
        "readiness",
        "liveness",
        "stop",
        "restart",
        "hold_ready",
    ],
};
/// The keys of an entry of `ports`.
pub(crate) const PORT: Keys = Keys { of: "a port", valid: &["port", "protocol"] };
/// The keys of `readiness`.
pub(crate) const READINESS: Keys = Keys { of: "`readiness`", valid: &["http", "tcp", "command", "port", "within"] };
/// The keys of `liveness`.
pub(crate) const LIVENESS: Keys =
    Keys { of: "`liveness`", valid: &["http", "tcp", "command", "port", "interval", "timeout", "failures"] };
/// The keys of `stop`.
pub(crate) const STOP: Keys = Keys { of: "`stop`", valid: &["signal", "grace"] };

/// The keys of a variable that is configured.
pub(crate) const CONFIGURED: Keys = Keys { of: "a variable", valid: &["config"] };

/// The words for what is spoken on a port.
pub(crate) const PROTOCOLS: [(&str, Protocol); 2] = [("http", Protocol::Http), ("tcp", Protocol::Tcp)];
const RESTARTS: [(&str, Restart); 3] =
    [("never", Restart::Never), ("on-failure", Restart::OnFailure), ("once", Restart::Once)];
/// Signals that ask a program to end; SIGKILL is what comes after the grace.
pub(crate) const SIGNALS: [(&str, &str); 9] = [
    ("SIGTERM", "SIGTERM"),
    ("SIGQUIT", "SIGQUIT"),
    ("SIGINT", "SIGINT"),
    ("SIGHUP", "SIGHUP"),
    ("SIGUSR1", "SIGUSR1"),
    ("SIGUSR2", "SIGUSR2"),
    ("SIGWINCH", "SIGWINCH"),
    ("SIGABRT", "SIGABRT"),
    ("SIGALRM", "SIGALRM"),
];
const MAX_SERVICES: usize = 50;
const HOUR: Duration = Duration::from_secs(3600);

/// A port and where it stands.
type PlacedPort<'d> = Placed<'d, Port>;

pub(super) fn read_all<'d>(
    root: &Table<'d>,
    schema: Option<&ConfigSchema>,
) -> Option<BTreeMap<ServiceName, Placed<'d, Service>>> {
    let Some(value) = root.get("service") else { return Some(BTreeMap::new()) };
    let table = value.map("{ web = { command = \"nginx -g 'daemon off;'\" } }")?;
    let read: Vec<_> = table.entries().map(|entry| read(&entry, schema)).collect();
    if read.len() > MAX_SERVICES {
        return value
            .place
            .report(format!("there are {} services", read.len()), format!("at most {MAX_SERVICES} are possible"));
    }
    ports_are_distinct(read.iter().flatten().map(|(_, _, ports)| ports));
    read.into_iter().map(|found| found.map(|(name, service, _)| (name, service))).collect()
}

fn ports_are_distinct<'a, 'd: 'a>(services: impl Iterator<Item = &'a Vec<PlacedPort<'d>>>) {
    let mut seen: BTreeMap<u16, Place<'_>> = BTreeMap::new();
    for (port, place) in services.flatten() {
        if let Some(first) = seen.get(&port.port) {
            place.contradicts::<()>(
                *first,
                format!("two entries declare port {}", port.port),
                "it is declared here already",
                "only one program can listen on a port: remove one of them",
            );
        } else {
            seen.insert(port.port, *place);
        }
    }
}

type Read<'d> = (ServiceName, Placed<'d, Service>, Vec<PlacedPort<'d>>);

fn read<'d>(entry: &Entry<'d>, schema: Option<&ConfigSchema>) -> Option<Read<'d>> {
    let name = entry.key.parse::<ServiceName>().map_err(|error| {
        entry.place.report::<()>(error.to_string(), "for example: `[service.web]`");
    });
    let table = entry.value.table(KEYS, "{ command = \"nginx -g 'daemon off;'\" }")?;
    let command = table
        .required("command", "command = \"nginx -g 'daemon off;'\"")
        .and_then(|value| command::read(&value, command::Text::Words));
    let user = table.get("user").map_or(Some("root".to_owned()), |v| v.checked("\"www-data\"", check::user));
    let variables = table.get("environment").map_or(Some(Default::default()), |v| variables(&v, schema));
    let working_directory = table.get("working_directory").map_or(Some("/".to_owned()), |v| command::directory(&v));
    let ports = table.get("ports").map_or(Some(vec![]), |v| ports(&v));
    let readiness = table.get("readiness").map_or(Some(None), |v| readiness(&v, ports.as_deref()?).map(Some));
    let liveness = table.get("liveness").map_or(Some(None), |v| liveness(&v, ports.as_deref()?).map(Some));
    let stop = table.get("stop").map_or(Some(default_stop()), |v| stop(&v));
    let restart = table.get("restart").map_or(Some(Restart::Never), |v| v.word(&RESTARTS));
    let limits = Duration::from_secs(1)..=SPARE_AGE;
    let hold_ready = table.get("hold_ready").map_or(Some(None), |v| v.duration(limits, "\"1h\"").map(Some));
    if restart == Some(Restart::Once) {
        a_task_serves_nothing(&table);
    }
    let (ports, (environment, configured)) = (ports?, variables?);
    let service = Service {
        command: command?,
        user: user?,
        environment,
        configured,
        working_directory: working_directory?,
        ports: ports.iter().map(|(port, _)| *port).collect(),
        readiness: readiness?,
        liveness: liveness?,
        stop: stop?,
        restart: restart?,
        hold_ready: hold_ready?,
    };
    Some((name.ok()?, (service, entry.place), ports))
}

/// Variables with texts, and variables with the values of configuration keys.
fn variables(
    value: &Value<'_>,
    schema: Option<&ConfigSchema>,
) -> Option<(BTreeMap<String, String>, BTreeMap<String, ConfigKey>)> {
    let entries: Vec<_> = value.map("{ LANG = \"C.UTF-8\" }")?.entries().collect();
    let (keys, texts): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.value.is_table());
    let texts: Vec<_> = texts.iter().map(command::variable).collect();
    let keys: Vec<_> = keys.iter().map(|entry| configured(entry, schema)).collect();
    Some((texts.into_iter().collect::<Option<_>>()?, keys.into_iter().collect::<Option<_>>()?))
}

fn configured(entry: &Entry<'_>, schema: Option<&ConfigSchema>) -> Option<(String, ConfigKey)> {
    let name = command::variable_name(entry);
    let value = entry.value.table(CONFIGURED, "{ config = \"greeting\" }")?.required("config", "config = \"greeting\"");
    let value = value?;
    let key = value.parsed::<ConfigKey>("\"greeting\"")?;
    config::must_be_frozen(schema?, &(key.clone(), value.place));
    Some((name?, key))
}

fn a_task_serves_nothing(table: &Table<'_>) {
    let Some(restart) = table.get("restart") else { return };
    for key in ["ports", "readiness", "liveness"] {
        if let Some(value) = table.get(key) {
            value.place.contradicts::<()>(
                restart.place,
                format!("a service that runs once has no `{key}`: it is done when it has exited with 0"),
                "it runs once",
                format!("remove `{key}`, or write `restart = \"never\"`"),
            );
        }
    }
}

fn ports<'d>(value: &Value<'d>) -> Option<Vec<PlacedPort<'d>>> {
    let items = value.list("[80]")?;
    let ports: Vec<_> = items.iter().map(|item| Some((port(item)?, item.place))).collect();
    ports.into_iter().collect()
}

fn port(value: &Value<'_>) -> Option<Port> {
    if !value.is_table() {
        return port_number(value, "[80]").map(|port| Port { port, protocol: Protocol::Tcp });
    }
    let table = value.table(PORT, "[{ port = 80, protocol = \"http\" }]")?;
    let port = table.required("port", "port = 80").and_then(|v| port_number(&v, "80"));
    let protocol = table.get("protocol").map_or(Some(Protocol::Tcp), |v| v.word(&PROTOCOLS));
    Some(Port { port: port?, protocol: protocol? })
}

/// A port inside a server.
pub(super) fn port_number(value: &Value<'_>, example: &str) -> Option<u16> {
    value.integer(1..=65_535, example)
}

/// A path of a URL.
pub(super) fn url_path(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(format!("`{}` is not a path: it must start with `/`", shown(text)));
    }
    if text.len() > 2048 || text.chars().any(|c| !c.is_ascii_graphic() || c == '#') {
        return Err(format!("`{}` is not a path: write other characters as `%20`", shown(text)));
    }
    Ok(())
}

fn readiness(value: &Value<'_>, ports: &[PlacedPort<'_>]) -> Option<Readiness> {
    let table = value.table(READINESS, "{ http = \"/\", within = \"10s\" }")?;
    let limits = Duration::from_millis(100)..=HOUR;
    let within = table.get("within").map_or(Some(Duration::from_secs(10)), |v| v.duration(limits, "\"10s\""));
    Some(Readiness { check: service_check(&table, ports)?, within: within? })
}

fn liveness(value: &Value<'_>, ports: &[PlacedPort<'_>]) -> Option<Liveness> {
    let table = value.table(LIVENESS, "{ http = \"/healthz\", interval = \"10s\" }")?;
    let limits = Duration::from_millis(100)..=HOUR;
    let time = |key: &'static str, usual: Duration, example: &'static str| {
        table.get(key).map_or(Some(usual), |v| v.duration(limits.clone(), example))
    };
    let interval = time("interval", Duration::from_secs(10), "\"10s\"");
    let timeout = time("timeout", Duration::from_secs(2), "\"2s\"");
    let failures = table.get("failures").map_or(Some(3), |v| v.integer(1..=1000, "3"));
    let check = service_check(&table, ports);
    Some(Liveness { check: check?, interval: interval?, timeout: timeout?, failures: failures? })
}

/// Exactly one of `http`, `tcp`, `command`.
fn service_check(table: &Table<'_>, ports: &[PlacedPort<'_>]) -> Option<ServiceCheck> {
    let choice = table.one_of(&["http", "tcp", "command"], "tcp = 80")?;
    if choice.key != "http"
        && let Some(port) = table.get("port")
    {
        port.place.contradicts::<()>(
            choice.place,
            format!("`port` goes with `http`, and this check is `{}`", choice.key),
            "the check is here",
            "remove it; a `tcp` check names its port itself: `tcp = 6379`",
        );
    }
    match choice.key {
        "http" => http_check(table, &choice.value, ports),
        "tcp" => port_number(&choice.value, "6379")
            .and_then(|port| declared(&choice.value, port, ports))
            .map(|port| ServiceCheck::Tcp { port }),
        _ => command::read(&choice.value, command::Text::Words).map(|command| ServiceCheck::Command { command }),
    }
}

fn http_check(table: &Table<'_>, path: &Value<'_>, ports: &[PlacedPort<'_>]) -> Option<ServiceCheck> {
    let checked = path.checked("\"/\"", url_path);
    let port = match (table.get("port"), ports) {
        (Some(value), ports) => port_number(&value, "80").and_then(|port| declared(&value, port, ports)),
        (None, [(only, _)]) => Some(only.port),
        (None, _) => path.place.report(
            "it is not said which port answers",
            "name it: `{ http = \"/\", port = 80 }`, and list it in `ports`",
        ),
    };
    Some(ServiceCheck::Http { port: port?, path: checked? })
}

fn declared(value: &Value<'_>, port: u16, ports: &[PlacedPort<'_>]) -> Option<u16> {
    if ports.iter().any(|(declared, _)| declared.port == port) {
        return Some(port);
    }
    let message = format!("the check asks port {port}, which the service does not list in `ports`");
    match ports.first() {
        None => value.place.report(message, format!("add `ports = [{port}]` to the service")),
        Some((first, there)) => value.place.contradicts(
            *there,
            message,
            format!("port {} is listed", first.port),
            format!("add {port} to `ports`, or ask port {}", first.port),
        ),
    }
}

fn default_stop() -> Stop {
    Stop { signal: "SIGTERM".to_owned(), grace: Duration::from_secs(10) }
}

fn stop(value: &Value<'_>) -> Option<Stop> {
    let table = value.table(STOP, "{ signal = \"SIGTERM\", grace = \"10s\" }")?;
    let default = default_stop();
    let signal = table.get("signal").map_or(Some(default.signal), |v| v.word(&SIGNALS).map(str::to_owned));
    let limits = Duration::ZERO..=HOUR;
    let grace = table.get("grace").map_or(Some(default.grace), |v| v.duration(limits, "\"10s\""));
    Some(Stop { signal: signal?, grace: grace? })
}
