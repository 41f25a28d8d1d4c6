//! `kiln status`: what runs.

mod host;
mod text;

use kiln_api::{Client, Event};

use super::Context;
use crate::{cli::Status, exit::Exit, failure::Failure};

pub(super) async fn run(context: &Context<'_>, arguments: &Status) -> Result<Exit, Failure> {
    let client = Client::new(&context.state);
    if arguments.host {
        let host = client.host().await?;
        context.ui.result(&host, || host::render(&host));
        return Ok(Exit::Ok);
    }
    show(context, &client).await?;
    if arguments.watch {
        watch(context, &client).await?;
    }
    Ok(Exit::Ok)
}

async fn show(context: &Context<'_>, client: &Client) -> Result<(), Failure> {
    let status = client.status().await?;
    context.ui.result(&status, || text::render(&status));
    Ok(())
}

/// Shows the status again after whatever changes it, until the daemon ends.
async fn watch(context: &Context<'_>, client: &Client) -> Result<(), Failure> {
    let mut events = client.events().await?;
    while let Some(event) = events.next().await? {
        if matches!(
            event,
            Event::Server { .. }
                | Event::Rollout { .. }
                | Event::Drill { .. }
                | Event::Channel { .. }
                | Event::Source { .. }
                | Event::SourcesChanged { .. }
        ) {
            if !context.ui.json() {
                context.ui.out("");
            }
            show(context, client).await?;
        }
    }
    Ok(())
}
