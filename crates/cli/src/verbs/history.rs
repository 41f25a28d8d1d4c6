//! `kiln history NAME`: every move of a name's channels, by whom, why, and with what it was decided from.

use kiln_control::moves::{Move, Moves};
use serde_json::json;

use super::Context;
use crate::{
    cli::History,
    exit::Exit,
    failure::Failure,
    parts::host::HostPlaces,
    ui::{self, difference},
};

pub(super) fn run(context: &Context<'_>, arguments: &History) -> Result<Exit, Failure> {
    let moves = Moves::open(&HostPlaces::of(&context.state)?.state)?;
    let found = moves.of(&arguments.name, arguments.channel.as_ref(), arguments.lines)?;
    context.ui.result(&json!({ "moves": found }), || match found.as_slice() {
        [] => format!("no channel of {} was moved yet", arguments.name),
        found => found.iter().map(text).collect::<Vec<_>>().join("\n"),
    });
    Ok(Exit::Ok)
}

fn text(moved: &Move) -> String {
    let before = moved.before.map_or_else(|| "nothing".to_owned(), |before| before.short());
    let head = format!(
        "{} {} {before} → {}  {} by {}: {}",
        ui::dim(&format!("{:.0}", moved.at)),
        ui::strong(&format!("{}@{}", moved.name, moved.channel)),
        moved.image.short(),
        moved.how,
        moved.who,
        moved.reason
    );
    let approvals = moved.evidence["approvals"].as_object().filter(|approvals| !approvals.is_empty());
    let approved = approvals.map(|approvals| {
        let keys: Vec<&str> = approvals.keys().map(String::as_str).collect();
        format!("approved by {}", keys.join(", "))
    });
    let difference = serde_json::from_value(moved.difference.clone()).ok();
    let difference = difference.as_ref().map(difference::lines).unwrap_or_default();
    let more = approved.into_iter().chain(difference).map(|line| format!("  {line}"));
    [head].into_iter().chain(more).collect::<Vec<_>>().join("\n")
}
