//! `kiln push`: an image with everything that is said of it to a registry.

use kiln_control::{attest, audit, keys::Keys};
use kiln_image::{
    ImageRecord, Store,
    delivery::{self, PushRequest, Pushed},
};
use kiln_model::evidence::Envelope;
use serde_json::json;

use super::Context;
use crate::{
    cli::Push,
    delivering::{Shown, failed, resolve},
    exit::Exit,
    failure::{self, Failure},
    parts::{host::HostPlaces, registries},
    ui,
};

pub(super) fn run(context: &Context<'_>, arguments: &Push) -> Result<Exit, Failure> {
    let places = HostPlaces::of(&context.state)?;
    let store = Store::open(&places.store())?;
    let image = resolve(&store, &arguments.image)?;
    let (registries, cache) = (registries::read(&places)?, places.cache());
    let shown = Shown::new(context.ui, "pushing");
    let sboms = match arguments.cosign {
        true => Some(signed_sboms(&places, &store, &image)?),
        false => None,
    };
    let (to, cosign) = (&arguments.to, sboms.as_deref());
    let request = PushRequest { image: image.digest, to, registries: &registries, cache: &cache, cosign };
    let pushed = delivery::push(&store, &request, &|event| shown.event(event))
        .map_err(failed(arguments.image.to_string(), format!("could not be pushed to {}", arguments.to)))?;
    drop(shown);
    let to = arguments.to.to_string();
    let inputs = json!({ "image": image.digest, "name": image.name, "to": to });
    audit::note(&places.state, "push", inputs, "somebody asked for it")?;
    let value = json!({
        "image": pushed.image.to_string(),
        "to": to,
        "sent": pushed.sent,
        "bytes": pushed.bytes,
        "mounted": pushed.mounted,
        "there": pushed.there,
        "reports": pushed.reports,
    });
    context.ui.result(&value, || text(&pushed, &arguments.to.registry, &arguments.to.repository));
    Ok(Exit::Ok)
}

fn signed_sboms(places: &HostPlaces, store: &Store, image: &ImageRecord) -> Result<Vec<Envelope>, Failure> {
    attest::sboms(store, &Keys::open(&places.state)?, &image.name, &image.digest).map_err(failure::attest)
}

fn text(pushed: &Pushed, registry: &str, repository: &str) -> String {
    let Pushed { image, sent, bytes, mounted, there, reports } = pushed;
    let mark = ui::good();
    format!(
        "{registry}/{repository}@{image}\n{mark} {sent} blobs sent ({bytes} bytes), {mounted} taken over there, \
         {there} were there; {reports} reports"
    )
}
