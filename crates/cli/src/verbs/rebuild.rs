//! `kiln rebuild SERVER|GROUP`.

use kiln_api::{
    Client,
    request::{Rebuild as What, RebuildRequest},
    status::Status,
};

use super::{Context, loss};
use crate::{cli::Rebuild, exit::Exit, failure::Failure, ui::events};

pub(super) async fn run(context: &Context<'_>, arguments: &Rebuild) -> Result<Exit, Failure> {
    let client = Client::new(&context.state);
    let what = target(&client.status().await?, &arguments.target)?;
    let request = RebuildRequest { what, loss: loss::accepted(arguments.accept_loss) };
    let stream = client.rebuild(&request).await?;
    events::follow(context.ui, stream).await?.finish(context.ui)
}

/// A server or a group of this name.
fn target(status: &Status, name: &str) -> Result<What, Failure> {
    let unknown = || Failure::Unknown { kind: "server or group", name: name.to_owned() };
    if status.groups.iter().any(|group| group.name == name) {
        return name.parse().map(What::Group).map_err(|_| unknown());
    }
    let server = status.groups.iter().flat_map(|group| &group.servers).any(|server| server.id == name);
    if !server {
        return Err(unknown());
    }
    name.parse().map(What::Server).map_err(|_| unknown())
}
