//! `[base]` with `containerfile = …`: what a Containerfile says, as the recipe wants it built.

use std::collections::BTreeMap;

use super::{FileKind, FileProblem, ImportLimits, check, oci_base, text::Context};
use crate::{
    containerfile::{Containerfile, Kind, MAX_BYTES, Plan},
    diagnostic::shown,
    digest::Digest,
    text::{Table, Value},
};

/// Keys that go with `containerfile` only.
pub(super) const ONLY: [&str; 5] = ["context", "target", "args", "secrets", "network"];
/// A recipe gives at most so many arguments and secrets each.
const MAX_GIVEN: usize = 200;
/// Longest argument, bytes.
const MAX_ARGUMENT: usize = 64 << 10;

/// A Containerfile and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerfileBase {
    /// Relative to the recipe.
    pub path: String,
    /// Directory of the files that `COPY` and `ADD` see, relative to the recipe; empty for the recipe's own.
    pub context: String,
    /// Whether a `RUN` that says nothing about it has a way out to the network.
    pub network: bool,
    /// Files beside the recipe that `--mount=type=secret` shows, by name.
    pub secrets: BTreeMap<String, String>,
    /// How much is taken in of each image that it starts from, and of each archive that is added.
    pub limits: ImportLimits,
    /// What it says.
    pub file: Containerfile,
    /// What is to be built.
    pub plan: Plan,
    /// Its SHA-256, as `sha256sum` says it.
    pub text: Digest,
}

impl ContainerfileBase {
    /// Whether a command of it has a way out to the network.
    pub fn wants_network(&self) -> bool {
        let needed = self.plan.stages.iter().flat_map(|stage| &self.file.stages[stage.index].instructions);
        let mut runs = needed.filter_map(|instruction| match &instruction.kind {
            Kind::Run(run) => Some(run.network.unwrap_or(self.network)),
            _ => None,
        });
        runs.any(|network| network)
    }
}

pub(super) fn read(table: &Table<'_>, value: &Value<'_>, context: &Context<'_>) -> Option<ContainerfileBase> {
    let path = value.checked("\"Containerfile\"", check::recipe_path);
    let directory = table.get("context").map_or(Some(String::new()), |value| directory(&value, context));
    let network = table.get("network").map_or(Some(true), |v| v.word(&[("on", true), ("off", false)]));
    let target = table.get("target").map_or(Some(None), |v| v.text().map(|text| Some(text.to_owned())));
    let arguments = table.get("args").map_or(Some(BTreeMap::new()), |value| arguments(&value));
    let secrets = table.get("secrets").map_or(Some(BTreeMap::new()), |value| secrets(&value, context));
    let limits = oci_base::limits(table);
    let path = path?;
    let text = text(value, &path, context)?;
    let arguments = arguments?;
    let file = aside(context, Containerfile::parse(&text, &path))?;
    if let Some(value) = table.get("args") {
        all_declared(&value, &file, &arguments)?;
    }
    let plan = aside(context, file.plan(&arguments, target?.as_deref()))?;
    Some(ContainerfileBase {
        path,
        context: directory?,
        network: network?,
        secrets: secrets?,
        limits: limits?,
        file,
        plan,
        text: Digest::of(text.as_bytes()),
    })
}

/// What is wrong with the Containerfile is told with its own lines.
fn aside<T>(context: &Context<'_>, read: Result<T, crate::diagnostic::Diagnostics>) -> Option<T> {
    match read {
        Ok(read) => Some(read),
        Err(faults) => {
            context.beside.borrow_mut().get_or_insert(faults);
            None
        }
    }
}

fn text(value: &Value<'_>, path: &str, context: &Context<'_>) -> Option<String> {
    let help = "name the Containerfile or Dockerfile beside the recipe";
    match context.files.kind(path) {
        Ok(Some(FileKind::File)) => {}
        Ok(None) => return value.place.report(format!("there is no file `{}`", shown(path)), help),
        Ok(Some(_)) => return value.place.report(format!("`{}` is not a file", shown(path)), help),
        Err(problem) => return value.place.report(format!("`{}`: {problem}", shown(path)), help),
    }
    match context.files.read(path, MAX_BYTES as u64) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Some(text),
            Err(_) => value.place.report(format!("`{}` is not UTF-8", shown(path)), help),
        },
        Err(FileProblem::TooLong { limit }) => value.place.report(
            format!("`{}` is longer than {limit} bytes", shown(path)),
            "put the texts of heredocs into files and `COPY` them",
        ),
        Err(problem) => value.place.report(format!("`{}`: {problem}", shown(path)), help),
    }
}

fn directory(value: &Value<'_>, context: &Context<'_>) -> Option<String> {
    let text = value.text()?;
    if matches!(text, "" | "." | "./") {
        return Some(String::new());
    }
    let path = value.checked("\"app\"", check::recipe_path)?;
    let help = "the context is a directory beside the recipe, or `.` for the recipe's own";
    match context.files.kind(&path) {
        Ok(Some(FileKind::Directory)) => Some(path.trim_start_matches("./").trim_end_matches('/').to_owned()),
        Ok(Some(_)) => value.place.report(format!("`{}` is not a directory", shown(&path)), help),
        Ok(None) => value.place.report(format!("there is no `{}` beside the recipe", shown(&path)), help),
        Err(problem) => value.place.report(format!("`{}`: {problem}", shown(&path)), help),
    }
}

fn arguments(value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    let table = value.map("{ VERSION = \"1.4\" }")?;
    let read: Vec<_> = table
        .entries()
        .map(|entry| {
            if let Err(message) = check::variable(entry.key) {
                return entry.place.report(message, "for example `args = { VERSION = \"1.4\" }`");
            }
            let text = entry.value.checked("\"1.4\"", |text| match text.len() <= MAX_ARGUMENT {
                true => check::argument(text),
                false => Err(format!("the argument is longer than {MAX_ARGUMENT} bytes")),
            })?;
            Some((entry.key.to_owned(), text))
        })
        .collect();
    few(value, read.len())?;
    read.into_iter().collect()
}

fn all_declared(value: &Value<'_>, file: &Containerfile, given: &BTreeMap<String, String>) -> Option<()> {
    let undeclared = file.undeclared(given.keys().map(String::as_str));
    for (name, meant) in &undeclared {
        let hint = meant.as_ref().map(|meant| format!("did you mean `{meant}`? ")).unwrap_or_default();
        value.place.report::<()>(
            format!("no `ARG` of the Containerfile is called `{}`", shown(name)),
            format!("{hint}Write `ARG {}` where it is needed, or take it out of `args`", shown(name)),
        );
    }
    undeclared.is_empty().then_some(())
}

fn secrets(value: &Value<'_>, context: &Context<'_>) -> Option<BTreeMap<String, String>> {
    let table = value.map("{ token = \"token.txt\" }")?;
    let read: Vec<_> = table
        .entries()
        .map(|entry| {
            let path = entry.value.checked("\"token.txt\"", check::recipe_path)?;
            let help = "name a file beside the recipe, which your version control leaves out";
            match context.files.kind(&path) {
                Ok(Some(FileKind::File)) => Some((entry.key.to_owned(), path)),
                Ok(_) => entry.place.report(format!("there is no file `{}` beside the recipe", shown(&path)), help),
                Err(problem) => entry.place.report(format!("`{}`: {problem}", shown(&path)), help),
            }
        })
        .collect();
    few(value, read.len())?;
    read.into_iter().collect()
}

fn few(value: &Value<'_>, count: usize) -> Option<()> {
    match count <= MAX_GIVEN {
        true => Some(()),
        false => value.place.report(format!("there are {count} of them"), format!("at most {MAX_GIVEN} are possible")),
    }
}
