//! `kiln jwks`: the keys that verify the identity tokens of servers.

use kiln_api::Client;

use super::Context;
use crate::{exit::Exit, failure::Failure};

pub(super) async fn run(context: &Context<'_>) -> Result<Exit, Failure> {
    let keys = Client::new(&context.state).jwks().await?;
    let text = || serde_json::to_string_pretty(&keys).expect("keys always serialise");
    context.ui.result(&keys, text);
    Ok(Exit::Ok)
}
