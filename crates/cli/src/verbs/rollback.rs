//! `kiln rollback GROUP`.

use kiln_api::{Client, request::RollbackRequest};

use super::{Context, loss};
use crate::{cli::Rollback, exit::Exit, failure::Failure, ui::events};

pub(super) async fn run(context: &Context<'_>, arguments: &Rollback) -> Result<Exit, Failure> {
    let request = RollbackRequest {
        group: arguments.group.clone(),
        with_data: arguments.with_data,
        loss: loss::accepted(arguments.accept_loss),
    };
    let stream = Client::new(&context.state).rollback(&request).await?;
    events::follow(context.ui, stream).await?.finish(context.ui)
}
