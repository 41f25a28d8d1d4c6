//! `kiln bake`: makes the image of a recipe.

use kiln_image::bake::LockMode;

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
    let baked = baking::bake(&context.state, &arguments.directory, &recipe, settings, context.ui)?;
    context.ui.result(&baking::to_json(&baked), || baked.image.to_string());
    Ok(Exit::Ok)
}
