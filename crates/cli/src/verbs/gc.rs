//! `kiln gc`: removes images that nothing uses, and secrets that no release names any more.

use kiln_api::Client;
use kiln_control::audit;
use kiln_image::Store;
use kiln_model::ImageDigest;
use serde_json::json;

use super::{Context, images};
use crate::{cli::Gc, daemon, exit::Exit, failure::Failure, parts::host::HostPlaces, ui};

pub(super) async fn run(context: &Context<'_>, arguments: &Gc) -> Result<Exit, Failure> {
    let places = HostPlaces::of(&context.state)?;
    let client = daemon::ensure(&context.state, context.ui).await?;
    let keep = in_use(&client).await?;
    let store = Store::open(&places.store())?;
    let task = context.ui.task("looking for what nothing uses");
    let outcome = store.gc(&keep, jiff::Timestamp::now(), arguments.dry_run)?;
    let secrets = if arguments.dry_run { 0 } else { client.gc().await?.secrets };
    drop(task);
    let removed: Vec<_> = outcome.images.iter().map(ToString::to_string).collect();
    if !arguments.dry_run {
        let inputs = json!({ "images": removed, "bytes": outcome.bytes, "secrets": secrets });
        audit::note(&places.state, "gc", inputs, "nothing uses them")?;
    }
    let value = json!({
        "dry_run": arguments.dry_run,
        "images": removed,
        "steps": outcome.steps,
        "objects": outcome.objects,
        "bytes": outcome.bytes,
        "secrets": secrets,
    });
    context.ui.result(&value, || {
        let verb = if arguments.dry_run { "would remove" } else { "removed" };
        let shown: String = removed.iter().map(|image| format!("\n  {}", ui::short(image))).collect();
        let (count, size) = (removed.len(), images::size(outcome.bytes));
        let secrets = if secrets > 0 { format!(", {secrets} secrets") } else { String::new() };
        format!("{verb} {count} images, {} files, {size}{secrets}{shown}", outcome.objects)
    });
    Ok(Exit::Ok)
}

/// What the daemon needs. Only it knows which releases groups may go back to, so one is started where none answers.
async fn in_use(client: &Client) -> Result<Vec<ImageDigest>, Failure> {
    let used = client.images_in_use().await?;
    let parsed: Result<Vec<ImageDigest>, _> = used.images.iter().map(|image| image.parse()).collect();
    parsed.map_err(|error| Failure::host("understand which images are in use", error))
}
