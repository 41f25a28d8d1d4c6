//! `kiln load`: an image with its reports and its suite from a file that `kiln save` wrote.

use kiln_image::{Store, delivery};

use super::Context;
use crate::{
    cli::Load,
    delivering::{Shown, failed, received},
    exit::Exit,
    failure::Failure,
    parts::host::HostPlaces,
};

pub(super) fn run(context: &Context<'_>, arguments: &Load) -> Result<Exit, Failure> {
    let store = Store::open(&HostPlaces::of(&context.state)?.store())?;
    let shown = Shown::new(context.ui, "loading");
    let now = jiff::Timestamp::now();
    let (file, name) = (&arguments.file, arguments.name.as_deref());
    let loaded = delivery::load(&store, file, name, now, &|event| shown.event(event))
        .map_err(failed(format!("the image in {}", file.display()), "could not be loaded".to_owned()))?;
    drop(shown);
    received(&store, &loaded, arguments.channel.as_ref(), context.ui)
}
