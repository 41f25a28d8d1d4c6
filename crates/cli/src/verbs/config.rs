//! `kiln config`: what groups are configured with.

mod diff;
mod lint;
mod set;
mod show;

use std::path::Path;

use kiln_model::{Group, GroupName, Recipe, fleet::FleetFiles};
use serde_json::Value;

use super::Context;
use crate::{
    cli::{Config, ConfigVerb},
    exit::Exit,
    failure::Failure,
};

pub(super) async fn run(context: &Context<'_>, arguments: &Config) -> Result<Exit, Failure> {
    match &arguments.verb {
        ConfigVerb::Show(arguments) => show::run(context, arguments).await,
        ConfigVerb::Lint(arguments) => lint::run(context, arguments),
        ConfigVerb::Diff(arguments) => diff::run(context, arguments).await,
        ConfigVerb::Set(arguments) => set::run(context, arguments).await,
    }
}

/// A group of the fleet that runs the image of the recipe.
fn ours<'a>(recipe: &Recipe, files: &'a FleetFiles, name: &GroupName, directory: &Path) -> Result<&'a Group, Failure> {
    let unknown = || Failure::Unknown { kind: "group", name: name.to_string() };
    let group = files.fleet.groups.get(name).ok_or_else(unknown)?;
    if group.image.name != recipe.name {
        let (group, image) = (name.clone(), group.image.name.clone());
        return Err(Failure::OtherImage { group, image, directory: directory.to_owned() });
    }
    Ok(group)
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
