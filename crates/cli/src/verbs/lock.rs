//! `kiln lock`: resolves a recipe's packages and writes kiln.lock.

use kiln_image::bake::LockMode;
use serde_json::json;

use super::Context;
use crate::{baking, cli::Lock, exit::Exit, failure::Failure, project};

pub(super) fn run(context: &Context<'_>, arguments: &Lock) -> Result<Exit, Failure> {
    let recipe = project::recipe(&arguments.directory)?;
    let settings = baking::Settings {
        lock: if arguments.update { LockMode::Update } else { LockMode::Use },
        offline: false,
        fresh: false,
        shell_on_failure: false,
        stream: false,
    };
    baking::bake(&context.state, &arguments.directory, &recipe, settings, context.ui)?;
    let path = arguments.directory.join("kiln.lock");
    context.ui.result(&json!({ "lock": path }), || path.display().to_string());
    Ok(Exit::Ok)
}
