//! `kiln revoke IMAGE --reason TEXT`: the image is never launched again on this host.
//!
//! The daemon does it where one runs, so that its groups look again at once. Where none does, the list is written here: the next
//! daemon reads it before it launches anything.

use jiff::Timestamp;
use kiln_api::{
    Client, ClientError,
    request::{RevokeRequest, Revoked, RevokedGroup},
};
use kiln_control::{audit, keys::Keys};
use kiln_image::Store;
use kiln_model::fleet::Selector;
use serde_json::json;

use super::Context;
use crate::{cli::Revoke, exit::Exit, failure::Failure, parts::host::HostPlaces, ui};

pub(super) async fn run(context: &Context<'_>, arguments: &Revoke) -> Result<Exit, Failure> {
    let request = RevokeRequest { image: arguments.image.clone(), reason: arguments.reason.clone() };
    let revoked = match Client::new(&context.state).revoke(&request).await {
        Err(ClientError::NoDaemon { .. }) => alone(context, &request)?,
        answer => answer?,
    };
    context.ui.result(&revoked, || text(&revoked));
    Ok(Exit::Ok)
}

/// Without a daemon nothing of it is known to run.
fn alone(context: &Context<'_>, request: &RevokeRequest) -> Result<Revoked, Failure> {
    let places = HostPlaces::of(&context.state)?;
    let store = Store::open(&places.store())?;
    let (name, image) = match (store.resolve(&request.image)?, &request.image.selector) {
        (Some(record), _) => (record.name, record.digest),
        (None, Selector::Digest(digest)) => (request.image.name.clone(), *digest),
        (None, _) => return Err(Failure::Unknown { kind: "image", name: request.image.to_string() }),
    };
    let keys = Keys::open(&places.state)?;
    audit::note(&places.state, "revoke", json!({ "image": image, "name": name }), request.reason.as_str())?;
    let new = keys.revoke_image(&image, &name, &request.reason, Timestamp::now())?;
    let channels = store.channels(&name)?.into_iter().filter(|(_, digest)| *digest == image);
    Ok(Revoked {
        name: name.to_string(),
        image: image.to_string(),
        already: !new,
        channels: channels.map(|(channel, _)| channel.to_string()).collect(),
        groups: Vec::new(),
    })
}

fn text(revoked: &Revoked) -> String {
    let (name, image) = (&revoked.name, ui::short(&revoked.image));
    let mut lines = vec![match revoked.already {
        true => format!("{} {name} {image} was revoked before; the first reason stands", ui::careful()),
        false => format!("{} {name} {image} is never launched again on this host", ui::good()),
    }];
    let next = "promote another image there: `kiln promote`";
    lines.extend(revoked.channels.iter().map(|channel| format!("  {name}@{channel} still points to it; {next}")));
    lines.extend(revoked.groups.iter().map(group));
    lines.join("\n")
}

fn group(group: &RevokedGroup) -> String {
    let (name, servers) = (&group.group, group.servers.join(", "));
    match &group.goes_to {
        Some(release) => format!("  group {name} goes back to release {}, away from {servers}", ui::short(release)),
        None => format!("  group {name} runs it on: {servers}; `kiln rollback {name}`, or apply another image"),
    }
}
