//! `kiln down`: stops and removes servers.

use kiln_api::{Client, ClientError, request::DownRequest};

use super::{Context, loss};
use crate::{cli::Down, exit::Exit, failure::Failure, ui::events};

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
    let stream = client.down(&request).await?;
    let exit = events::follow(context.ui, stream).await?.finish(context.ui)?;
    if arguments.purge && exit == Exit::Ok {
        end(&client).await?;
    }
    Ok(exit)
}

/// Ends the daemon; that it has gone already is as good.
async fn end(client: &Client) -> Result<(), Failure> {
    match client.shutdown().await {
        Ok(_) | Err(ClientError::NoDaemon { .. } | ClientError::Broken { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
