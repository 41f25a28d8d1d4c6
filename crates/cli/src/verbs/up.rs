//! `kiln up DIR`: bake what changed, test it, bring the fleet to it.

mod fits;

use std::{collections::BTreeMap, time::Instant};

use kiln_api::request::{ApplyRequest, Fresh};
use kiln_image::bake::LockMode;
use serde_json::json;

use super::{Context, loss};
use crate::{
    baking,
    cli::Up,
    daemon,
    exit::Exit,
    failure::Failure,
    project,
    ui::{self, events},
};

pub(super) async fn run(context: &Context<'_>, arguments: &Up) -> Result<Exit, Failure> {
    let started = Instant::now();
    let ended = up(context, arguments).await.and_then(|ended| match ended.error {
        Some(error) => Err(Failure::Ended(error)),
        None => Ok(ended),
    });
    let seconds = started.elapsed().as_secs_f64();
    let ui = context.ui;
    match ended {
        Ok(ended) => {
            let line = json!({ "event": "result", "result": "ok", "seconds": seconds, "endpoints": ended.endpoints });
            ui.note(&format!("{} up in {}", ui::good(), ui::seconds(seconds)));
            ui.result(&line, || ended.endpoints.join("\n"));
            Ok(Exit::Ok)
        }
        Err(failure) if ui.json() => {
            let error = failure.to_json();
            ui.line(
                &json!({ "event": "result", "result": "failed", "seconds": seconds, "endpoints": [], "error": error }),
            );
            Ok(failure.exit())
        }
        Err(failure) => Err(failure),
    }
}

async fn up(context: &Context<'_>, arguments: &Up) -> Result<events::Ended, Failure> {
    let directory = &arguments.directory;
    let (recipe, files) = project::both(directory, arguments.env.as_ref())?;
    fits::check(&context.state, &recipe, &files, directory)?;
    let fleet = project::with_variables(files.fleet)?;
    let settings = baking::Settings {
        lock: LockMode::Use,
        offline: arguments.offline,
        fresh: false,
        shell_on_failure: false,
        stream: true,
    };
    let baked = baking::bake(&context.state, directory, &recipe, settings, context.ui)?;
    if context.ui.json() {
        let mut line = baking::to_json(&baked);
        line["event"] = json!("baked");
        context.ui.line(&line);
    }
    let client = daemon::ensure(&context.state, context.ui).await?;
    let request = ApplyRequest {
        fleet,
        baked: BTreeMap::from([(baked.name.clone(), baked.image)]),
        directory: project::absolute(directory)?,
        plan_only: false,
        fresh: if arguments.retest { Fresh::Always } else { Fresh::Reuse },
        loss: loss::accepted(arguments.accept_loss),
    };
    let stream = client.apply(&request).await?;
    events::follow(context.ui, stream).await
}
