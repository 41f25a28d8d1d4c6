//! `kiln bake`: makes the image of a recipe, or of packages over a base.

mod packaged;
mod proposal;

use std::path::{Path, PathBuf};

use kiln_image::bake::{Difference, LockMode, Reproducibility};
use kiln_model::Recipe;
use serde_json::json;

use super::Context;
use crate::{baking, cli::Bake, exit::Exit, failure::Failure, project};

pub(super) fn run(context: &Context<'_>, arguments: &Bake) -> Result<Exit, Failure> {
    let settings = baking::Settings {
        lock: if arguments.locked { LockMode::Frozen } else { LockMode::Use },
        offline: arguments.offline,
        fresh: arguments.fresh,
        shell_on_failure: arguments.shell_on_failure,
        stream: false,
    };
    if let Some(base) = &arguments.base {
        return packaged::run(context, arguments, base, settings);
    }
    let directory = directory(arguments)?;
    let recipe = project::recipe(directory)?;
    if arguments.check_reproducible {
        return compare(context, directory, &recipe, settings);
    }
    let baked = baking::bake(&context.state, directory, &recipe, settings, context.ui)?;
    let proposals = proposal::of_recipe(context, &recipe, &baked)?;
    let mut value = baking::to_json(&baked);
    if !proposals.is_empty() {
        value["proposals"] = proposal::to_json(&proposals);
        context.ui.note(&proposal::to_paste(&proposals));
    }
    context.ui.result(&value, || baked.image.to_string());
    Ok(Exit::Ok)
}

/// The directory that is meant: a package cannot be.
fn directory(arguments: &Bake) -> Result<&Path, Failure> {
    match arguments.what.as_slice() {
        [] => Ok(Path::new(".")),
        [one] if one.extension().is_none_or(|ending| ending != "deb") && !one.is_file() => Ok(one),
        [first, ..] => Err(Failure::Packaged {
            reason: format!("`{}` is no directory with a recipe, and no base is named for a package", first.display()),
            help: format!(
                "a package is installed over a base: `kiln bake --base debian:bookworm {}`",
                words(&arguments.what)
            ),
        }),
    }
}

/// Words of a command line, as a shell reads them.
fn words(words: &[PathBuf]) -> String {
    let word = |word: &PathBuf| shell_words::quote(&word.display().to_string()).into_owned();
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Bakes twice and says whether the layers are the same.
fn compare(
    context: &Context<'_>,
    directory: &Path,
    recipe: &Recipe,
    settings: baking::Settings,
) -> Result<Exit, Failure> {
    match baking::compare(&context.state, directory, recipe, settings, context.ui)? {
        Reproducibility::Same { layers } => {
            let value = json!({ "reproducible": true, "layers": layers });
            context.ui.result(&value, || format!("reproducible: {layers} layers, the same both times"));
            Ok(Exit::Ok)
        }
        Reproducibility::Different(Difference { step, path, how }) => {
            let value = json!({
                "reproducible": false,
                "step": step,
                "path": path.display().to_string(),
                "how": how.to_string(),
            });
            let text = || format!("not reproducible: {} of step `{step}`: {how}", path.display());
            context.ui.result(&value, text);
            Ok(Exit::Failed)
        }
    }
}
