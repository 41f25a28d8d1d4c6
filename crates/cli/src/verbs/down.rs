//! `kiln down`: stops and removes servers.

use kiln_api::{Client, request::DownRequest};

use super::{Context, loss};
use crate::{cli::Down, daemon::Leaving, exit::Exit, failure::Failure, ui::events};

pub(super) async fn run(context: &Context<'_>, arguments: &Down) -> Result<Exit, Failure> {
    let client = if arguments.purge {
        // What a daemon that was killed left behind is known to its successor only.
        crate::daemon::ensure(&context.state, context.ui).await?
    } else {
        Client::new(&context.state)
    };
    let request = DownRequest {
        groups: arguments.groups.clone(),
        purge: arguments.purge,
        loss: loss::accepted(arguments.accept_loss),
    };
    // A purge is the last thing that a daemon does.
    let leaving = if arguments.purge { Some(Leaving::of(&context.state).await?) } else { None };
    let stream = client.down(&request).await?;
    let exit = events::follow(context.ui, stream).await?.finish(context.ui)?;
    if let (Some(daemon), Exit::Ok) = (leaving, exit) {
        daemon.gone(context.ui).await?;
    }
    Ok(exit)
}
