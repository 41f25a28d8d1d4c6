//! `kiln promote IMAGE --to CHANNEL`: moves a channel, if its rules hold.

use kiln_api::request::{PromoteRequest, Promoted};
use kiln_control::keys;
use kiln_image::Store;
use kiln_model::{
    Reason,
    evidence::{self, Approval, Envelope, Intent},
};

use super::Context;
use crate::{
    cli::Promote,
    daemon,
    delivering::resolve,
    exit::Exit,
    failure::Failure,
    parts::host::HostPlaces,
    ui::{self, difference},
};

pub(super) async fn run(context: &Context<'_>, arguments: &Promote) -> Result<Exit, Failure> {
    let request = PromoteRequest {
        image: arguments.image.clone(),
        to: arguments.to.clone(),
        reason: arguments.reason.clone(),
        who: who(),
        signed: signed(context, arguments)?,
        check_only: arguments.check,
    };
    let client = daemon::ensure(&context.state, context.ui).await?;
    let promoted = client.promote(&request).await?;
    context.ui.result(&promoted, || text(&promoted, arguments.check));
    Ok(Exit::Ok)
}

/// Who asks, as the environment says it. Nobody believes it; it is what the history shows where nothing is signed.
fn who() -> Option<Reason> {
    let said = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    said.and_then(|name| name.parse().ok())
}

/// The promotion, signed with the key that is given.
fn signed(context: &Context<'_>, arguments: &Promote) -> Result<Option<Envelope>, Failure> {
    let Some(file) = &arguments.key else { return Ok(None) };
    let key = keys::private_key(file)?;
    let store = Store::open(&HostPlaces::of(&context.state)?.store())?;
    let image = resolve(&store, &arguments.image)?;
    let promotion = Approval {
        name: image.name.to_string(),
        image: image.digest,
        channel: arguments.to.clone(),
        intent: Intent::Promote,
        at: jiff::Timestamp::now(),
        reason: arguments.reason.clone(),
    };
    Ok(Some(evidence::seal_approval(&promotion, &key)))
}

fn text(promoted: &Promoted, check: bool) -> String {
    let (name, channel, image) = (&promoted.name, &promoted.channel, ui::short(&promoted.image));
    let before = promoted.before.as_deref().map(|image| format!(" (before: {})", ui::short(image))).unwrap_or_default();
    let head = match (check, promoted.moved) {
        (true, _) => format!("{} {name} {image} may go to {channel}{before}", ui::good()),
        (false, true) => format!("{name}@{channel} is {image}{before}"),
        (false, false) => format!("{name}@{channel} is {image} already"),
    };
    let lines = promoted.difference.as_ref().map(difference::lines).unwrap_or_default();
    [head].into_iter().chain(lines.into_iter().map(|line| format!("  {line}"))).collect::<Vec<_>>().join("\n")
}
