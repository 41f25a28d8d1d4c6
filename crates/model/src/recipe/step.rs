//! `[[step]]`: one layer of the image each, in the order written.

use std::{collections::BTreeMap, time::Duration};

use super::{
    FileKind, Step, StepKind, check, command, packages,
    provision::text as provision,
    text::{Context, Placed},
};
use crate::{
    diagnostic::shown,
    text::{Entry, Keys, Table, Value},
};

/// The keys of a `copy` step.
pub(crate) const COPY: Keys = Keys { of: "a `copy` step", valid: &["name", "copy", "to", "owner", "mode"] };
/// The keys of a `run` step.
pub(crate) const RUN: Keys =
    Keys { of: "a `run` step", valid: &["name", "run", "environment", "working_directory", "network", "time_limit"] };
/// The keys of a `packages` step.
pub(crate) const PACKAGES: Keys = Keys { of: "a `packages` step", valid: &["name", "packages", "time_limit"] };
/// The keys of a `remove` step.
pub(crate) const REMOVE: Keys = Keys { of: "a `remove` step", valid: &["name", "remove"] };
/// The keys of any step.
pub(crate) const ANY: Keys = Keys {
    of: "a step",
    valid: &[
        "name",
        "copy",
        "run",
        "packages",
        "remove",
        "to",
        "owner",
        "mode",
        "environment",
        "working_directory",
        "network",
        "time_limit",
        "tool",
        "idempotent",
        "ansible",
        "roles",
        "collections",
        "variables",
        "host",
        "groups",
        "tags",
        "skip_tags",
        "puppet",
        "modules",
        "hiera",
        "facts",
        "cfengine",
        "bundles",
        "classes",
        "chef",
        "cookbooks",
        "data_bags",
        "attributes",
        "cloud-init",
    ],
};

const VERBS: [&str; 9] = ["copy", "run", "packages", "remove", "ansible", "puppet", "cfengine", "chef", "cloud-init"];
const KINDS: [Keys; 9] = [
    COPY,
    RUN,
    PACKAGES,
    REMOVE,
    provision::ANSIBLE,
    provision::PUPPET,
    provision::CFENGINE,
    provision::CHEF,
    provision::CLOUD_INIT,
];
const MAX_STEPS: usize = 100;
const TIME_LIMIT: Duration = Duration::from_secs(30 * 60);

pub(super) fn read_all<'d>(root: &Table<'d>, context: &Context<'_>) -> Option<Vec<Placed<'d, Step>>> {
    let Some(value) = root.get("step") else { return Some(vec![]) };
    let items = value.list("[{ copy = \"page/\", to = \"/var/www/html/\" }]")?;
    if items.len() > MAX_STEPS {
        return value.place.report(
            format!("there are {} steps", items.len()),
            format!("at most {MAX_STEPS} are possible: join some"),
        );
    }
    let steps: Vec<_> = items.iter().map(|item| Some((read(item, context)?, item.place))).collect();
    steps.into_iter().collect()
}

fn read(value: &Value<'_>, context: &Context<'_>) -> Option<Step> {
    let table = value.table(ANY, "{ copy = \"page/\", to = \"/var/www/html/\" }")?;
    let verb = table.one_of(&VERBS, "run = \"useradd app\"")?;
    let (keys, kind) = match verb.key {
        "copy" => (COPY, copy(&table, &verb.value, context)),
        "run" => (RUN, command::read(&verb.value, command::Text::Shell).map(|command| StepKind::Run { command })),
        "packages" => (PACKAGES, installed(&verb.value, context)),
        "remove" => (REMOVE, remove(&verb.value)),
        tool => provision::read(tool, &table, &verb.value, context),
    };
    belongs(&table, &verb, keys);
    let environment = table.get("environment").map_or(Some(BTreeMap::new()), |v| command::environment(&v));
    let working_directory = table.get("working_directory").map_or(Some("/".to_owned()), |v| command::directory(&v));
    let network = table.get("network").map_or(Some(false), |v| v.word(&[("off", false), ("on", true)]));
    let limits = Duration::from_secs(1)..=Duration::from_secs(86_400);
    let time_limit = table.get("time_limit").map_or(Some(TIME_LIMIT), |v| v.duration(limits, "\"30m\""));
    let kind = kind?;
    let name = table.get("name").map_or_else(|| Some(describe(&kind)), |v| command::label(&v));
    Some(Step {
        name: name?,
        kind,
        environment: environment?,
        working_directory: working_directory?,
        network: network?,
        time_limit: time_limit?,
    })
}

/// Reports the keys that belong to steps with another verb.
fn belongs(table: &Table<'_>, verb: &Entry<'_>, keys: Keys) {
    for entry in table.entries().filter(|e| ANY.valid.contains(&e.key) && !keys.valid.contains(&e.key)) {
        let owner = KINDS.into_iter().find(|other| other.valid.contains(&entry.key));
        let owner = owner.map_or("another step", |keys| keys.of);
        entry.place.contradicts::<()>(
            verb.place,
            format!("`{}` belongs to {owner}, and this is {}", entry.key, keys.of),
            format!("`{}` makes it one", verb.key),
            format!("remove it, or move it to {owner}"),
        );
    }
}

fn copy(table: &Table<'_>, from: &Value<'_>, context: &Context<'_>) -> Option<StepKind> {
    let source = from.checked("\"page/\"", check::recipe_path).and_then(|path| present(from, path, context));
    let to = table.required("to", "to = \"/var/www/html/\"").and_then(|value| {
        let path = value.checked("\"/var/www/html/\"", |text| check::image_path(text, true))?;
        match check::hidden(&path) {
            None => Some(path),
            Some(place) => value.place.report(
                format!(
                    "what is copied to `{}` is never seen: `{place}` is empty or the kernel's own in every server",
                    shown(&path)
                ),
                "copy to another place of the image, for example below `/srv` or `/usr/local`",
            ),
        }
    });
    let owner = table.get("owner").map_or(Some("root".to_owned()), |v| v.checked("\"app:app\"", check::owner));
    let mode = table.get("mode").map_or(Some(None), |v| command::mode(&v).map(Some));
    let (from, kind) = source?;
    let to = into_directory(&from, kind, to?);
    Some(StepKind::Copy { from, to, owner: owner?, mode: mode? })
}

/// A directory's content always goes to the place itself; only for a file does a trailing `/` mean "into".
fn into_directory(_from: &str, kind: FileKind, to: String) -> String {
    if kind == FileKind::Directory && to != "/" { to.trim_end_matches('/').to_owned() } else { to }
}

fn present(value: &Value<'_>, path: String, context: &Context<'_>) -> Option<(String, FileKind)> {
    let help = "paths are relative to the directory of the recipe";
    match context.files.kind(&path) {
        Ok(Some(FileKind::Other)) => {
            value.place.report(format!("`{}` is neither a file nor a directory", shown(&path)), help)
        }
        Ok(Some(FileKind::File)) if path.ends_with('/') => {
            value.place.report(format!("`{}` is a file, not a directory", shown(&path)), "remove the `/` at the end")
        }
        Ok(Some(kind)) => Some((path.trim_start_matches("./").trim_end_matches('/').to_owned(), kind)),
        Ok(None) => value.place.report(format!("there is no `{}` beside the recipe", shown(&path)), help),
        Err(problem) => value.place.report(format!("`{}` cannot be used: {problem}", shown(&path)), help),
    }
}

fn installed(value: &Value<'_>, context: &Context<'_>) -> Option<StepKind> {
    let names = packages::list(value, context)?;
    if names.is_empty() {
        return value.place.report("this step installs nothing", "name at least one package: `packages = [\"nginx\"]`");
    }
    Some(StepKind::Packages { names })
}

fn remove(value: &Value<'_>) -> Option<StepKind> {
    let example = "[\"/usr/share/doc\"]";
    let items = value.list(example)?;
    if items.is_empty() {
        return value
            .place
            .report("this step removes nothing", format!("name at least one path: `remove = {example}`"));
    }
    let paths: Vec<_> = items.iter().map(|item| item.checked(example, removable)).collect();
    Some(StepKind::Remove { paths: paths.into_iter().collect::<Option<_>>()? })
}

fn removable(path: &str) -> Result<(), String> {
    check::image_path(path, false)?;
    let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
    if parent.contains('*') {
        return Err(format!("`{}` has a `*` before the last part, where it stands for itself only", shown(path)));
    }
    if parent.is_empty() && last.contains('*') {
        return Err(format!("`{}` would remove top-level directories: name them", shown(path)));
    }
    Ok(())
}

fn describe(kind: &StepKind) -> String {
    let text = match kind {
        StepKind::Copy { from, to, .. } => format!("copy {from} to {to}"),
        StepKind::Run { command } => {
            let text = if command.len() == 3 && command[..2] == command::SHELL {
                command[2].trim()
            } else {
                &command.join(" ")
            };
            format!("run {}", text.lines().next().unwrap_or_default())
        }
        StepKind::Packages { names } => format!("packages {}", names.join(" ")),
        StepKind::Remove { paths } => format!("remove {}", paths.join(" ")),
        StepKind::Provision(provision) => format!("{} {}", provision.tool.name(), provision.tool.source()),
    };
    shown(&text)
}
