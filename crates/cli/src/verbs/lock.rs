//! `kiln lock`: resolves a recipe's packages and writes kiln.lock.

use kiln_image::bake::LockMode;
use serde_json::json;

use super::Context;
use crate::{baking, cli::Lock, exit::Exit, failure::Failure, project};

pub(super) fn run(context: &Context<'_>, arguments: &Lock) -> Result<Exit, Failure> {
    let recipe = project::recipe(&arguments.directory)?;
    let mode = if arguments.update { LockMode::Update } else { LockMode::Use };
    let lock = baking::lock(&context.state, &arguments.directory, &recipe, mode, context.ui)?;
    let Some(lock) = lock else {
        context
            .ui
            .result(&json!({ "lock": null }), || "this recipe starts from an image: there is nothing to lock".into());
        return Ok(Exit::Ok);
    };
    let packages: usize = lock.sets.iter().map(|set| set.packages.len()).sum();
    let path = arguments.directory.join("kiln.lock");
    context.ui.result(&json!({ "lock": path, "packages": packages }), || {
        format!("{packages} packages in {}", path.display())
    });
    Ok(Exit::Ok)
}
