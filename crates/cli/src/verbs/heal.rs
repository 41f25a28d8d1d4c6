//! `kiln heal GROUP`.

use kiln_api::{Client, request::HealRequest};

use super::Context;
use crate::{cli::Heal, exit::Exit, failure::Failure};

pub(super) async fn run(context: &Context<'_>, arguments: &Heal) -> Result<Exit, Failure> {
    let request = HealRequest { group: arguments.group.clone() };
    let healed = Client::new(&context.state).heal(&request).await?;
    context.ui.result(&healed, || match healed.forgotten {
        0 => format!("{}: nothing went down lately, nothing held healing back", arguments.group),
        count => {
            let group = &arguments.group;
            format!("{group}: what is missing is launched now; {count} failures count no more (kiln status --watch)")
        }
    });
    Ok(Exit::Ok)
}
