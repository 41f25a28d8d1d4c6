//! `kiln bake`: makes the image of a recipe.

use kiln_image::bake::{Difference, LockMode, Reproducibility};
use kiln_model::Recipe;
use serde_json::json;

use super::Context;
use crate::{baking, cli::Bake, exit::Exit, failure::Failure, project};

pub(super) fn run(context: &Context<'_>, arguments: &Bake) -> Result<Exit, Failure> {
    let recipe = project::recipe(&arguments.directory)?;
    let settings = baking::Settings {
        lock: if arguments.locked { LockMode::Frozen } else { LockMode::Use },
        offline: arguments.offline,
        fresh: arguments.fresh,
        shell_on_failure: arguments.shell_on_failure,
        stream: false,
    };
    if arguments.check_reproducible {
        return compare(context, arguments, &recipe, settings);
    }
    let baked = baking::bake(&context.state, &arguments.directory, &recipe, settings, context.ui)?;
    context.ui.result(&baking::to_json(&baked), || baked.image.to_string());
    Ok(Exit::Ok)
}

/// Bakes twice and says whether the layers are the same.
fn compare(
    context: &Context<'_>,
    arguments: &Bake,
    recipe: &Recipe,
    settings: baking::Settings,
) -> Result<Exit, Failure> {
    match baking::compare(&context.state, &arguments.directory, recipe, settings, context.ui)? {
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
