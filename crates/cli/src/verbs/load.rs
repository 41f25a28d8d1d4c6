//! `kiln load`: an image with its reports and its suite from a file that `kiln save` wrote.

use kiln_image::{Store, delivery};

use super::Context;
use crate::{
    cli::Load,
    delivering::{Arrival, Shown, failed, received},
    exit::Exit,
    failure::Failure,
    parts::host::HostPlaces,
};

pub(super) fn run(context: &Context<'_>, arguments: &Load) -> Result<Exit, Failure> {
    let places = HostPlaces::of(&context.state)?;
    let store = Store::open(&places.store())?;
    let shown = Shown::new(context.ui, "loading");
    let now = jiff::Timestamp::now();
    let (file, name) = (&arguments.file, arguments.name.as_deref());
    let loaded = delivery::load(&store, file, name, arguments.taken.limits(), now, &|event| shown.event(event))
        .map_err(failed(format!("the image in {}", file.display()), "could not be loaded".to_owned()))?;
    drop(shown);
    let (from, channel) = (arguments.file.display().to_string(), arguments.channel.as_ref());
    received(&store, &loaded, &Arrival { state: &places.state, how: "load", from, channel }, context.ui)
}
