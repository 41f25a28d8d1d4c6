//! Values of a group's configuration and bindings: written down, or where they come from.

use std::collections::BTreeMap;

use crate::{
    config::{ConfigKey, ConfigSource, Login, Password, Registry, RegistryAddress, RegistryTls},
    diagnostic::shown,
    id::BindingName,
    recipe::read_variable,
    text::{Entry, Keys, Table, Value},
};

/// The keys of a source; exactly one of the first five decides which it is.
pub(crate) const SOURCE: Keys = Keys {
    of: "a source of a value",
    valid: &["env", "file", "command", "zookeeper", "etcd", "user", "password", "tls"],
};
/// The keys of a registry's `tls`.
pub(crate) const TLS: Keys = Keys { of: "`tls`", valid: &["ca", "certificate", "key"] };
/// The keys of a registry's `password` that is not written down.
pub(crate) const PASSWORD: Keys = Keys { of: "`password`", valid: &["env", "file"] };

const KINDS: [&str; 5] = ["env", "file", "command", "zookeeper", "etcd"];
const EXAMPLE: &str = "{ zookeeper = \"zk1:2181,zk2:2181/app/greeting\" }";

/// Values by their keys.
pub(super) fn read_all(value: &Value<'_>) -> Option<BTreeMap<ConfigKey, ConfigSource>> {
    let all: Vec<_> = value.map("{ greeting = \"hello\" }")?.entries().map(|entry| keyed(&entry)).collect();
    all.into_iter().collect()
}

fn keyed(entry: &Entry<'_>) -> Option<(ConfigKey, ConfigSource)> {
    let key = entry.key.parse::<ConfigKey>().map_err(|error| {
        entry.place.report::<()>(error.to_string(), "for example: `greeting = \"hello\"`");
    });
    let source = read(&entry.value);
    Some((key.ok()?, source?))
}

/// What the bindings of a group's image lead to.
pub(super) fn bindings(value: &Value<'_>) -> Option<BTreeMap<BindingName, BTreeMap<ConfigKey, ConfigSource>>> {
    let table = value.map("{ db = { host = \"db.example\" } }")?;
    let all: Vec<_> = table.entries().map(|entry| binding(&entry)).collect();
    all.into_iter().collect()
}

fn binding(entry: &Entry<'_>) -> Option<(BindingName, BTreeMap<ConfigKey, ConfigSource>)> {
    let name = entry.key.parse::<BindingName>().map_err(|error| {
        entry.place.report::<()>(error.to_string(), "for example: `[group.web.service_binding.db]`");
    });
    let fields = read_all(&entry.value);
    let host = entry.value.map("{ host = \"db.example\" }").and_then(|table| table.entries().find(|e| e.key == "host"));
    let reachable = host.is_none_or(|host| not_this_host(&host.value).is_some());
    Some((name.ok()?, fields.filter(|_| reachable)?))
}

/// A server's loopback is its own: what listens there on the host cannot be reached.
fn not_this_host(value: &Value<'_>) -> Option<()> {
    match value.as_text() {
        Some(text) if crate::manifest::is_loopback(text) => value.place.report(
            format!("`{}` is the server itself there: a server's loopback is its own, not the host's", shown(text)),
            "write an address that the service listens on and that is reached from outside; for a service on this very \
             host see docs/bindings.md",
        ),
        _ => Some(()),
    }
}

/// One value: as it is written, or a table that says where it comes from.
pub(crate) fn read(value: &Value<'_>) -> Option<ConfigSource> {
    if !value.is_table() {
        return value.plain(EXAMPLE).map(ConfigSource::Literal);
    }
    let table = value.table(SOURCE, EXAMPLE)?;
    let choice = table.one_of(&KINDS, "file = \"greeting.txt\"")?;
    let registry = matches!(choice.key, "zookeeper" | "etcd");
    if !registry && !only_for_registries(&table, &choice) {
        return None;
    }
    match choice.key {
        "env" => read_variable(&choice.value).map(ConfigSource::Env),
        "file" => path(&choice.value).map(ConfigSource::File),
        "command" => command(&choice.value).map(ConfigSource::Command),
        "zookeeper" => self::registry(&table, &choice.value).map(ConfigSource::Zookeeper),
        _ => self::registry(&table, &choice.value).map(ConfigSource::Etcd),
    }
}

fn only_for_registries(table: &Table<'_>, choice: &Entry<'_>) -> bool {
    let mut good = true;
    for key in ["user", "password", "tls"] {
        if let Some(value) = table.get(key) {
            let message = format!("`{key}` goes with `zookeeper` and `etcd`, and this source is `{}`", choice.key);
            value.place.contradicts::<()>(choice.place, message, "the source is here", "remove it");
            good = false;
        }
    }
    good
}

fn path(value: &Value<'_>) -> Option<String> {
    value.checked("\"greeting.txt\"", |text| {
        let good = !text.is_empty() && text.len() <= 4095 && !text.chars().any(char::is_control);
        if good { Ok(()) } else { Err(format!("`{}` cannot be a path", shown(text))) }
    })
}

fn command(value: &Value<'_>) -> Option<Vec<String>> {
    let example = "[\"/usr/bin/cat\", \"greeting.txt\"]";
    let items = value.list(example)?;
    let words: Vec<_> = items.iter().map(|item| item.checked(example, crate::recipe::argument)).collect();
    let words = words.into_iter().collect::<Option<Vec<_>>>()?;
    match words.first().is_some_and(|program| !program.is_empty()) {
        true => Some(words),
        false => value.place.report("this command is empty", format!("write a program and its arguments: `{example}`")),
    }
}

fn registry(table: &Table<'_>, address: &Value<'_>) -> Option<Registry> {
    let address = address.parsed::<RegistryAddress>("\"zk1:2181,zk2:2181/app/greeting\"");
    let login = login(table);
    let tls = table.get("tls").map_or(Some(None), |value| tls(&value).map(Some));
    Some(Registry { address: address?, login: login?, tls: tls? })
}

fn login(table: &Table<'_>) -> Option<Option<Login>> {
    let (user, password) = match (table.get("user"), table.get("password")) {
        (None, None) => return Some(None),
        (Some(user), Some(password)) => (user, password),
        (Some(only), None) => {
            return only.place.report("`user` needs a `password`", "add `password = { file = \"…\" }`");
        }
        (None, Some(only)) => return only.place.report("`password` needs a `user`", "add `user = \"kiln\"`"),
    };
    let user = user.checked("\"kiln\"", |text| {
        let good = (1..=255).contains(&text.len()) && !text.chars().any(|c| c.is_control() || c == ':');
        if good { Ok(()) } else { Err(format!("`{}` cannot be a user of a registry", shown(text))) }
    });
    let password = self::password(&password);
    Some(Some(Login { user: user?, password: password? }))
}

fn password(value: &Value<'_>) -> Option<Password> {
    if !value.is_table() {
        return value.checked("{ file = \"registry.password\" }", |_| Ok(())).map(Password::Text);
    }
    let table = value.table(PASSWORD, "{ file = \"registry.password\" }")?;
    let choice = table.one_of(&["env", "file"], "file = \"registry.password\"")?;
    match choice.key {
        "env" => read_variable(&choice.value).map(Password::Env),
        _ => path(&choice.value).map(Password::File),
    }
}

fn tls(value: &Value<'_>) -> Option<RegistryTls> {
    tls_files(&value.table(TLS, "{ ca = \"authority.pem\" }")?)
}

/// `ca`, `certificate` and `key` of a table.
pub(super) fn tls_files(table: &Table<'_>) -> Option<RegistryTls> {
    let file = |key| table.get(key).map_or(Some(None), |value| path(&value).map(Some));
    let (ca, certificate, key) = (file("ca"), file("certificate"), file("key"));
    let identity = match (certificate?, key?) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        _ => {
            let message = "`certificate` and `key` go together";
            return table.place.report(message, "name both, or neither");
        }
    };
    Some(RegistryTls { ca: ca?, identity })
}
