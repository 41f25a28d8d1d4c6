//! `kiln config`: what a group is configured with.

use std::path::Path;

use kiln_model::{
    GroupName,
    config::{ConfigKey, ConfigSource, Delivery, KeySpec},
    fleet::{FleetFiles, Origin},
};
use serde_json::{Value, json};

use super::Context;
use crate::{
    cli::{Config, ConfigShow, ConfigVerb},
    exit::Exit,
    failure::Failure,
    project,
    ui::table,
};

pub(super) fn run(context: &Context<'_>, arguments: &Config) -> Result<Exit, Failure> {
    match &arguments.verb {
        ConfigVerb::Show(arguments) => show(context, arguments),
    }
}

fn show(context: &Context<'_>, arguments: &ConfigShow) -> Result<Exit, Failure> {
    let name = &arguments.group;
    let (recipe, files) = project::both(&arguments.directory, arguments.env.as_ref())?;
    let unknown = || Failure::Unknown { kind: "group", name: name.to_string() };
    let group = files.fleet.groups.get(name).ok_or_else(unknown)?;
    if group.image.name != recipe.name {
        let (group, image) = (name.clone(), group.image.name.clone());
        return Err(Failure::OtherImage { group, image, directory: arguments.directory.clone() });
    }
    let schema = &recipe.manifest.config;
    let values = files.fleet.values_of(group, schema);
    let keys = schema.0.iter();
    let lines: Vec<_> = keys.map(|(key, spec)| Line::of(&files, name, (key, spec), values.get(key))).collect();
    let found = json!({
        "group": name,
        "environment": arguments.env,
        "keys": lines.iter().map(Line::to_json).collect::<Vec<_>>(),
    });
    context.ui.result(&found, || text(&lines));
    Ok(Exit::Ok)
}

/// A key and what the group gets for it.
struct Line<'a> {
    key: &'a ConfigKey,
    spec: &'a KeySpec,
    source: Option<&'a ConfigSource>,
    from: Option<String>,
}

impl<'a> Line<'a> {
    fn of(
        files: &FleetFiles,
        group: &GroupName,
        (key, spec): (&'a ConfigKey, &'a KeySpec),
        source: Option<&'a ConfigSource>,
    ) -> Self {
        let given = files.origin(group, key).map(|origin| place(files, group, origin));
        let from = given.or_else(|| spec.default.as_ref().map(|_| "recipe default".to_owned()));
        Self { key, spec, source, from }
    }

    fn is_secret(&self) -> bool {
        self.spec.delivery == Delivery::Secret
    }

    /// The value as it is shown; none where the key has none.
    fn value(&self) -> Option<Value> {
        let value = match (self.source, &self.spec.default) {
            (Some(ConfigSource::Literal(value)), _) => json!(value),
            (Some(source), _) => json!(described(source)),
            (None, Some(default)) => json!(default),
            (None, None) => return None,
        };
        Some(if self.is_secret() { json!("secret") } else { value })
    }

    fn to_json(&self) -> Value {
        json!({
            "key": self.key,
            "type": self.spec.kind.word(),
            "value": self.value(),
            "source": self.source.filter(|_| !self.is_secret()).and_then(kind),
            "from": self.from,
            "required": self.spec.is_required(),
            "secret": self.is_secret(),
            "live": self.spec.delivery == Delivery::Live,
            "description": self.spec.description,
        })
    }

    fn cells(&self) -> Vec<String> {
        let none = if self.spec.is_required() { "missing" } else { "none" };
        let value = self.value().map_or_else(|| none.to_owned(), |value| one_line(&value));
        let live = if self.spec.delivery == Delivery::Live { "yes" } else { "" };
        vec![self.key.to_string(), value, self.from.clone().unwrap_or_default(), live.to_owned()]
    }
}

fn text(lines: &[Line<'_>]) -> String {
    if lines.is_empty() {
        return "the image has no configuration keys".to_owned();
    }
    let cells: Vec<_> = lines.iter().map(Line::cells).collect();
    table::render(&["KEY", "VALUE", "FROM", "LIVE"], &cells).trim_end().to_owned()
}

/// A value in one line of at most 60 characters; control characters cannot get to the terminal.
fn one_line(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.chars().flat_map(visible).collect(),
        other => other.to_string(),
    };
    let cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { cut }
}

fn visible(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}

fn place(files: &FleetFiles, group: &GroupName, origin: Origin) -> String {
    let path = Path::new(&files.file(origin).file);
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    match origin.own {
        true => format!("{file} [group.{group}.config]"),
        false => format!("{file} [config]"),
    }
}

fn kind(source: &ConfigSource) -> Option<&'static str> {
    match source {
        ConfigSource::Literal(_) => None,
        ConfigSource::Env(_) => Some("env"),
        ConfigSource::File(_) => Some("file"),
        ConfigSource::Command(_) => Some("command"),
        ConfigSource::Zookeeper(_) => Some("zookeeper"),
        ConfigSource::Etcd(_) => Some("etcd"),
    }
}

/// Where a value that is not asked here comes from.
fn described(source: &ConfigSource) -> String {
    match source {
        ConfigSource::Literal(value) => value.to_text(),
        ConfigSource::Env(name) => format!("the variable {name}"),
        ConfigSource::File(path) => format!("the file {path}"),
        ConfigSource::Command(words) => format!("the command {}", words.join(" ")),
        ConfigSource::Zookeeper(registry) => format!("zookeeper {}", registry.address),
        ConfigSource::Etcd(registry) => format!("etcd {}", registry.address),
    }
}
