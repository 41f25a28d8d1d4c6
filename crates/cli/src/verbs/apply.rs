//! `kiln apply`: brings the groups of a fleet to what fleet.toml says.

use std::collections::BTreeMap;

use kiln_api::{
    Event,
    request::{ApplyRequest, Fresh},
};
use kiln_model::Fleet;

use super::{Context, loss};
use crate::{
    cli::Apply,
    daemon,
    exit::Exit,
    failure::Failure,
    project,
    ui::{self, difference, events},
};

pub(super) async fn run(context: &Context<'_>, arguments: &Apply) -> Result<Exit, Failure> {
    let path = &arguments.fleet;
    let environment = arguments.env.as_ref();
    let files =
        if path.is_dir() { project::fleet(path, environment)? } else { project::fleet_file(path, environment)? };
    let fleet = project::with_variables(files.fleet)?;
    let client = daemon::ensure(&context.state, context.ui).await?;
    let request = ApplyRequest {
        fleet,
        baked: BTreeMap::new(),
        directory: project::absolute(if path.is_dir() { path } else { path.parent().unwrap_or(path) })?,
        plan_only: arguments.plan,
        fresh: if arguments.retest { Fresh::Always } else { Fresh::Reuse },
        loss: loss::accepted(arguments.accept_loss),
    };
    if arguments.plan {
        return plan(context, &client, &request).await;
    }
    let stream = client.apply(&request).await?;
    events::follow(context.ui, stream).await?.finish(context.ui)
}

/// Prints the steps, which are the result here.
async fn plan(context: &Context<'_>, client: &kiln_api::Client, request: &ApplyRequest) -> Result<Exit, Failure> {
    let mut steps = 0;
    let last = client.apply(request).await?.finish(|event| match event {
        Event::Result { .. } => {}
        _ if context.ui.json() => context.ui.line(event),
        Event::Step { group, server, action, reason } => {
            steps += 1;
            let what = server.as_deref().map_or_else(|| group.clone(), |server| format!("{group}: {server}"));
            context.ui.out(&format!("{action} {what}: {reason}"));
        }
        Event::Difference { group, difference } => {
            let (before, after) = (ui::short(&difference.before), ui::short(&difference.after));
            context.ui.out(&format!("image {group}: {before} → {after}"));
            difference::lines(difference).iter().for_each(|line| context.ui.out(&format!("  {line}")));
        }
        Event::Warning { message } => context.ui.warn(message),
        _ => {}
    });
    let ended = events::Ended::from(last.await?);
    if steps == 0 && ended.error.is_none() && !context.ui.json() {
        context.ui.out(&nothing(&request.fleet));
        return Ok(Exit::Ok);
    }
    if context.ui.json() || ended.error.is_some() { ended.finish(context.ui) } else { Ok(Exit::Ok) }
}

fn nothing(fleet: &Fleet) -> String {
    let groups: Vec<_> = fleet.groups.keys().map(|name| name.as_str()).collect();
    format!("nothing to do: {} as wanted", groups.join(", "))
}
