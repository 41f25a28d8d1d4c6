//! `kiln config show`: every key of the recipe, what a group gets for it, and where that comes from.

use std::path::Path;

use kiln_api::{Client, ClientError, config::LiveDetails};
use kiln_model::{
    GroupName,
    config::{ConfigKey, ConfigSource, Delivery, KeySpec},
    fleet::{FleetFiles, Origin},
};
use serde_json::{Value, json};

use super::{super::Context, one_line, ours};
use crate::{cli::ConfigShow, exit::Exit, failure::Failure, project, ui::table};

pub(super) async fn run(context: &Context<'_>, arguments: &ConfigShow) -> Result<Exit, Failure> {
    let name = &arguments.group;
    let (recipe, files) = project::both(&arguments.directory, arguments.env.as_ref())?;
    let group = ours(&recipe, &files, name, &arguments.directory)?;
    let schema = &recipe.manifest.config;
    let values = files.fleet.values_of(group, schema);
    let keys = schema.0.iter();
    let mut lines: Vec<_> = keys.map(|(key, spec)| Line::of(&files, name, (key, spec), values.get(key))).collect();
    if lines.iter().any(Line::is_live)
        && let Some(live) = live(context, name).await?
    {
        lines.iter_mut().for_each(|line| line.set_by(&live));
    }
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
    /// What somebody set in the running group.
    set: Option<Value>,
}

/// The live values of the group, if it runs.
async fn live(context: &Context<'_>, group: &GroupName) -> Result<Option<LiveDetails>, Failure> {
    match Client::new(&context.state).live(group).await {
        Ok(live) => Ok(Some(live)),
        Err(ClientError::NoDaemon { .. }) => Ok(None),
        Err(ClientError::Refused(error)) if error.code == kiln_api::ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
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
        Self { key, spec, source, from, set: None }
    }

    fn is_live(&self) -> bool {
        self.spec.delivery == Delivery::Live
    }

    /// What is set in the running group wins.
    fn set_by(&mut self, live: &LiveDetails) {
        let found = live.keys.iter().find(|known| known.key == self.key.as_str());
        if let Some((known, at)) = found.and_then(|known| Some((known, known.set_at.as_ref()?))) {
            self.set = Some(known.value.clone());
            self.from = Some(format!("set at {at}, version {}", live.version));
        }
    }

    fn is_secret(&self) -> bool {
        self.spec.delivery == Delivery::Secret
    }

    /// The value as it is shown; none where the key has none.
    fn value(&self) -> Option<Value> {
        if let Some(set) = &self.set {
            return Some(set.clone());
        }
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
