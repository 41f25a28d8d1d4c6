//! `kiln pull`: an image with its reports and its suite from a registry. Whether it may be launched is decided at launch.

use kiln_image::{
    Store,
    delivery::{self, PullRequest},
};

use super::Context;
use crate::{
    cli::Pull,
    delivering::{Arrival, Shown, failed, received},
    exit::Exit,
    failure::Failure,
    parts::{host::HostPlaces, registries},
};

pub(super) fn run(context: &Context<'_>, arguments: &Pull) -> Result<Exit, Failure> {
    let places = HostPlaces::of(&context.state)?;
    let store = Store::open(&places.store())?;
    let (registries, cache) = (registries::read(&places)?, places.cache());
    let shown = Shown::new(context.ui, "pulling");
    let now = jiff::Timestamp::now();
    let (from, limits) = (&arguments.from, arguments.taken.limits());
    let request = PullRequest { from, registries: &registries, cache: &cache, limits, now };
    let pulled = delivery::pull(&store, &request, &|event| shown.event(event))
        .map_err(failed(arguments.from.to_string(), "could not be pulled".to_owned()))?;
    drop(shown);
    let (from, channel) = (arguments.from.to_string(), arguments.channel.as_ref());
    received(&store, &pulled, &Arrival { state: &places.state, how: "pull", from, channel }, context.ui)
}
