//! `kiln promote IMAGE --to CHANNEL`: moves a channel, with evidence.

use kiln_api::{Client, request::PromoteRequest};

use super::Context;
use crate::{cli::Promote, exit::Exit, failure::Failure, ui};

pub(super) async fn run(context: &Context<'_>, arguments: &Promote) -> Result<Exit, Failure> {
    let request = PromoteRequest { image: arguments.image.clone(), to: arguments.to.clone() };
    let promoted = Client::new(&context.state).promote(&request).await?;
    context.ui.result(&promoted, || {
        let before = promoted.before.as_deref().map(|image| format!(" (before: {})", ui::short(image)));
        let (name, channel) = (&promoted.name, &promoted.channel);
        format!("{name}@{channel} is {}{}", ui::short(&promoted.image), before.unwrap_or_default())
    });
    Ok(Exit::Ok)
}
