//! `kiln rebuild SERVER|GROUP`.

use kiln_api::{Client, request::RebuildRequest, status::Status};

use super::Context;
use crate::{cli::Rebuild, exit::Exit, failure::Failure, ui::events};

pub(super) async fn run(context: &Context<'_>, arguments: &Rebuild) -> Result<Exit, Failure> {
    let client = Client::new(&context.state);
    let request = target(&client.status().await?, &arguments.target)?;
    let stream = client.rebuild(&request).await?;
    events::follow(context.ui, stream).await?.finish(context.ui)
}

/// A server or a group of this name.
fn target(status: &Status, name: &str) -> Result<RebuildRequest, Failure> {
    let unknown = || Failure::Unknown { kind: "server or group", name: name.to_owned() };
    if status.groups.iter().any(|group| group.name == name) {
        return name.parse().map(RebuildRequest::Group).map_err(|_| unknown());
    }
    let server = status.groups.iter().flat_map(|group| &group.servers).any(|server| server.id == name);
    if !server {
        return Err(unknown());
    }
    name.parse().map(RebuildRequest::Server).map_err(|_| unknown())
}
