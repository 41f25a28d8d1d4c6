//! `kiln approve IMAGE --channel CHANNEL`: signs that an image may go to a channel. The approval is kept with the image and goes wherever
//! that goes; whether it counts, the rules of the channel say there.

use kiln_control::{audit, keys, keys::Keys};
use kiln_image::Store;
use kiln_model::evidence::{self, Approval, Intent};
use serde_json::json;

use super::Context;
use crate::{cli::Approve, delivering::resolve, exit::Exit, failure::Failure, parts::host::HostPlaces, ui};

pub(super) fn run(context: &Context<'_>, arguments: &Approve) -> Result<Exit, Failure> {
    let places = HostPlaces::of(&context.state)?;
    let store = Store::open(&places.store())?;
    let image = resolve(&store, &arguments.image)?;
    let key = match &arguments.key {
        Some(file) => keys::private_key(file)?,
        None => Keys::open(&places.state)?.signing()?,
    };
    let approval = Approval {
        name: image.name.to_string(),
        image: image.digest,
        channel: arguments.channel.clone(),
        intent: Intent::Approve,
        at: jiff::Timestamp::now(),
        reason: arguments.reason.clone(),
    };
    let key_id = evidence::key_id(&key.verifying_key());
    let inputs = json!({ "image": image.digest, "name": image.name, "channel": arguments.channel, "key": key_id });
    let reason = arguments.reason.as_ref().map_or("somebody asked for it", |reason| reason.as_str());
    audit::note(&places.state, "approve", inputs.clone(), reason)?;
    store.add_statement(&image.digest, &evidence::seal_approval(&approval, &key))?;
    context.ui.result(&inputs, || {
        let (name, short, channel) = (&image.name, image.digest.short(), &arguments.channel);
        let by: String = key_id.chars().take(16).collect();
        format!("{} {name} {short} may go to {channel}, says key {by}; `kiln push` takes it along", ui::good())
    });
    Ok(Exit::Ok)
}
