//! `kiln volume`: data that outlives servers.

use std::path::Path;

use kiln_api::{
    Client,
    volume::{DrillRequest, VolumeRequest, VolumeStatus, Volumes},
};
use kiln_model::volume::Filesystem;

use super::{Context, loss};
use crate::{
    cli::{Removed, VolumeVerb},
    exit::Exit,
    failure::Failure,
    ui::{self, events, table},
};

/// The heading of [`line`].
pub(super) const HEADING: [&str; 8] =
    ["VOLUME", "STATE", "SIZE", "FS", "SERVER", "SNAPSHOTS", "LAST PROVEN", "HAND-OVER"];

pub(super) async fn run(context: &Context<'_>, verb: &VolumeVerb) -> Result<Exit, Failure> {
    let client = Client::new(&context.state);
    match verb {
        VolumeVerb::Ls => {
            let volumes = client.volumes().await?;
            context.ui.result(&volumes, || list(&volumes));
        }
        VolumeVerb::Drill { group } => {
            let stream = client.drill(&DrillRequest { group: group.clone() }).await?;
            return events::follow(context.ui, stream).await?.finish(context.ui);
        }
        VolumeVerb::Rm { what: Removed::Volume(volume) } => {
            ask(context, &client, &VolumeRequest::Remove { volume: volume.clone() }).await?;
        }
        VolumeVerb::Rm { what: Removed::Snapshot(snapshot) } => {
            ask(context, &client, &VolumeRequest::RemoveSnapshot { snapshot: snapshot.clone() }).await?;
        }
        VolumeVerb::Create { volume, size, xfs } => {
            let filesystem = if *xfs { Filesystem::Xfs } else { Filesystem::Ext4 };
            ask(context, &client, &VolumeRequest::Create { volume: volume.clone(), size: *size, filesystem }).await?;
        }
        VolumeVerb::Snapshot { volume, name } => {
            let request = VolumeRequest::Snapshot { volume: volume.clone(), name: name.clone() };
            ask(context, &client, &request).await?;
        }
        VolumeVerb::Clone { from, volume } => {
            ask(context, &client, &VolumeRequest::Clone { from: from.clone(), volume: volume.clone() }).await?;
        }
        VolumeVerb::Restore { snapshot, accept_loss } => {
            let (snapshot, loss) = (snapshot.clone(), loss::accepted(*accept_loss));
            ask(context, &client, &VolumeRequest::Restore { snapshot, loss }).await?;
        }
        VolumeVerb::Grow { volume, size } => {
            ask(context, &client, &VolumeRequest::Grow { volume: volume.clone(), size: *size }).await?;
        }
        VolumeVerb::Export { snapshot, file } => {
            let request = VolumeRequest::Export { snapshot: snapshot.clone(), file: absolute(file)? };
            ask(context, &client, &request).await?;
        }
        VolumeVerb::Import { file, volume } => {
            let request = VolumeRequest::Import { file: absolute(file)?, volume: volume.clone() };
            ask(context, &client, &request).await?;
        }
    }
    Ok(Exit::Ok)
}

async fn ask(context: &Context<'_>, client: &Client, request: &VolumeRequest) -> Result<(), Failure> {
    let done = client.volume(request).await?;
    context.ui.result(&done, || done.done.clone());
    Ok(())
}

/// The daemon has another working directory.
fn absolute(file: &Path) -> Result<String, Failure> {
    let path = std::path::absolute(file).map_err(|source| Failure::Read { path: file.to_owned(), source })?;
    Ok(path.display().to_string())
}

/// Every volume, with its snapshots below it.
fn list(volumes: &Volumes) -> String {
    if volumes.volumes.is_empty() {
        return "there are no volumes; a recipe declares them in `[writable]`, a fleet gives their size\n".to_owned();
    }
    let lines: Vec<_> = volumes.volumes.iter().map(line).collect();
    let mut text = table::render(&HEADING, &lines);
    for volume in &volumes.volumes {
        let why = volume.reason.as_deref().zip(volume.since.as_deref());
        text.extend(why.map(|(reason, since)| format!("{}: an orphan since {since}: {reason}\n", volume.id)));
        text.extend(volume.drill_failed.as_deref().map(|why| format!("{}: the last drill failed: {why}\n", volume.id)));
        let snapshots = volume.snapshots.iter();
        text.extend(snapshots.map(|s| format!("{}@{}  {}  {}\n", volume.id, s.name, s.at, ui::dim(&s.cause))));
    }
    text
}

/// A line for a volume.
pub(super) fn line(volume: &VolumeStatus) -> Vec<String> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        volume.id.clone(),
        volume.state.clone(),
        volume.size.clone(),
        volume.filesystem.clone(),
        or_none(volume.server.clone()),
        volume.snapshots.len().to_string(),
        or_none(volume.proven.clone()),
        or_none(volume.handover_ms.map(|ms| format!("{ms} ms"))),
    ]
}
