//! `kiln gateway`: the gateway in the foreground. The daemon starts it; people need it only to look at it.

use kiln_gateway::GatewayOptions;

use super::Context;
use crate::{cli::Gateway, exit::Exit, failure::Failure, parts::host::HostPlaces};

pub(super) fn run(context: &Context<'_>, arguments: &Gateway) -> Result<Exit, Failure> {
    let places = HostPlaces::of(&context.state)?;
    let mut options = GatewayOptions::new(places.state);
    options.inherit = arguments.inherit;
    kiln_gateway::run(options).map_err(|error| Failure::host("run the gateway", error))?;
    Ok(Exit::Ok)
}
