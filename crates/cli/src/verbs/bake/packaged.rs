//! `kiln bake --base IMAGE PACKAGE…`: an image of packages, without a recipe.
//!
//! A recipe is written all the same, into a directory that goes away, or stays with `--to`: what is baked is what any recipe bakes,
//! with a lock, a key for each step and provenance. First its steps are carried out without a service, so that the units of the
//! packages can be looked at in the tree; the bake of the whole recipe finds them done.

mod base;
mod files;
mod recipe;

use std::path::{Path, PathBuf};

use kiln_image::bake::Units;
use kiln_model::{ImageName, Recipe, id::nearest};
use serde_json::json;

use self::{files::Package, recipe::Written};
use super::proposal::{self, Proposal};
use crate::{
    baking::{self, Told},
    cli::Bake,
    exit::Exit,
    failure::Failure,
    project::{self, FLEET, RECIPE},
    ui,
    verbs::Context,
};

pub(super) fn run(
    context: &Context<'_>,
    arguments: &Bake,
    base: &str,
    settings: baking::Settings,
) -> Result<Exit, Failure> {
    if arguments.what.is_empty() {
        return Err(Failure::Packaged {
            reason: "no package is named".to_owned(),
            help: format!("`kiln bake --base {base} nginx`, or the file of a package: `./app_1.2_amd64.deb`"),
        });
    }
    let place = Place::make(arguments.to.as_deref())?;
    let directory = place.path();
    let packages = files::gather(&arguments.what, directory)?;
    let written = Written {
        name: name(arguments.name.as_ref(), &packages)?,
        base: base::find(&context.state, base, directory)?,
        packages,
        said: said(base, &arguments.what),
    };
    let bare = project::recipe_of(directory, &written.recipe(&[]))?;
    let found = baking::units(&context.state, directory, &bare, settings, context.ui)?;
    let proposals: Vec<_> = found.asked.iter().chain(&found.needed).map(Proposal::of).collect();
    let chosen = chosen(&proposals, &arguments.service, &found)?;
    let whole = whole(&written, &chosen, directory)?;
    if arguments.check_reproducible {
        return super::compare(context, directory, &whole, settings);
    }
    let settings = baking::Settings { fresh: false, ..settings };
    let baked = baking::bake_on(&context.state, directory, &whole, settings, (context.ui, Told::New))?;
    let image = format!("{}@{}", baked.name, baked.image);
    context.ui.note(&next(&proposals, &chosen, &image, arguments.to.as_deref()));
    let mut value = baking::to_json(&baked);
    value["services"] = chosen.iter().map(|chosen| json!(chosen.unit)).collect();
    value["proposals"] = proposal::to_json(&proposals);
    value["directory"] = json!(arguments.to);
    context.ui.result(&value, || baked.image.to_string());
    Ok(Exit::Ok)
}

/// Where the recipe is while it is baked.
enum Place<'a> {
    Kept(&'a Path),
    Passing(tempfile::TempDir),
}

impl<'a> Place<'a> {
    fn make(to: Option<&'a Path>) -> Result<Self, Failure> {
        let Some(to) = to else {
            let made = tempfile::Builder::new().prefix("kiln-bake-").tempdir();
            return made.map(Self::Passing).map_err(|error| Failure::host("make a directory for the recipe", error));
        };
        if std::fs::read_dir(to).is_ok_and(|mut files| files.next().is_some()) {
            return Err(Failure::Exists { path: to.to_owned() });
        }
        std::fs::create_dir_all(to).map_err(|source| Failure::Write { path: to.to_owned(), source })?;
        Ok(Self::Kept(to))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Passing(directory) => directory.path(),
        }
    }
}

fn name(wanted: Option<&ImageName>, packages: &[Package]) -> Result<ImageName, Failure> {
    if let Some(name) = wanted {
        return Ok(name.clone());
    }
    let first = packages.first().map_or("", |package| package.name.as_str());
    nearest(first).and_then(|name| name.parse().ok()).ok_or_else(|| Failure::Packaged {
        reason: format!("no image can be called `{first}`"),
        help: "give it a name with `--name`".to_owned(),
    })
}

/// The call, as a comment in the recipe.
fn said(base: &str, what: &[PathBuf]) -> String {
    format!("kiln bake --base {base} {}", super::words(what)).chars().filter(|c| !c.is_control()).collect()
}

/// The units that become services: those that are named, or the only one of the packages that are asked for.
fn chosen<'p>(proposals: &'p [Proposal], named: &[String], found: &Units) -> Result<Vec<&'p Proposal>, Failure> {
    if named.is_empty() {
        return Ok(match proposals {
            [only] if only.text.is_some() && !found.asked.is_empty() => vec![only],
            _ => Vec::new(),
        });
    }
    let find = |wanted: &String| {
        let called = |proposal: &&Proposal| [wanted.clone(), format!("{wanted}.service")].contains(&proposal.unit);
        let found = proposals.iter().find(called).filter(|proposal| proposal.text.is_some());
        found.ok_or_else(|| Failure::Packaged {
            reason: format!("the packages bring no service `{wanted}` that can be understood"),
            help: match proposals {
                [] => "they bring none at all".to_owned(),
                some => format!("they bring {}", units(some)),
            },
        })
    };
    named.iter().map(find).collect()
}

fn units(proposals: &[Proposal]) -> String {
    proposals.iter().map(|proposal| proposal.unit.as_str()).collect::<Vec<_>>().join(", ")
}

/// The recipe with its services, written and read again as any other.
fn whole(written: &Written, chosen: &[&Proposal], directory: &Path) -> Result<Recipe, Failure> {
    for (file, text) in [(RECIPE, written.recipe(chosen)), (FLEET, written.fleet())] {
        let path = directory.join(file);
        std::fs::write(&path, text).map_err(|source| Failure::Write { path, source })?;
    }
    project::recipe(directory)
}

/// What was chosen, what could be, and what comes next.
fn next(proposals: &[Proposal], chosen: &[&Proposal], image: &str, to: Option<&Path>) -> String {
    let mut lines = Vec::new();
    for proposal in chosen {
        lines.push(format!("  {} service {}", ui::good(), proposal.unit));
        lines.extend(proposal.questions().map(|question| format!("  {} {question}", ui::careful())));
    }
    if chosen.is_empty() && proposals.is_empty() {
        lines.push(
            "the packages bring no service unit: write a [service] into the recipe that `--to DIR` keeps".to_owned(),
        );
    } else if chosen.is_empty() {
        lines.push("the image runs nothing yet; its packages, and those that they need, bring:".to_owned());
        lines.extend(proposals.iter().map(proposal::shown));
        lines.push(format!("choose with `--service UNIT`: {}", units(proposals)));
    }
    lines.push(format!("next: kiln test {image}"));
    match to {
        Some(to) => {
            lines.push(format!("then: kiln up {}   # its recipe and its fleet are yours to change", to.display()))
        }
        None => lines.push("`--to DIR` keeps the recipe with a fleet, for `kiln up DIR`".to_owned()),
    }
    lines.join("\n")
}
