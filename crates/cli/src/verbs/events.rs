//! `kiln events`: what happened lately, and what happens.

use kiln_api::{
    Client, Event,
    client::Follow,
    event::{Happened, Outcome},
};

use super::Context;
use crate::{cli::Events, exit::Exit, failure::Failure, ui};

pub(super) async fn run(context: &Context<'_>, arguments: &Events) -> Result<Exit, Failure> {
    let follow = if arguments.follow { Follow::Yes } else { Follow::No };
    let mut events = Client::new(&context.state).events_after(arguments.after, follow).await?;
    while let Some(happened) = events.next_happened().await? {
        if context.ui.json() {
            context.ui.line(&happened);
        } else {
            context.ui.out(&line(&happened));
        }
    }
    Ok(Exit::Ok)
}

/// Time in UTC, kind, and what there is to say.
fn line(happened: &Happened) -> String {
    let time = happened.at.get(11..23).unwrap_or(&happened.at);
    format!("{} {:<17} {}", ui::dim(time), happened.event.kind(), words(&happened.event))
}

fn words(event: &Event) -> String {
    match event {
        Event::SuiteStarted { name, image, tests, .. } => format!("{name} {}: {tests} tests", ui::short(image)),
        Event::TestServerReady { image, ready_ms } => format!("{} after {ready_ms} ms", ui::short(image)),
        Event::Test { result, .. } if result.skipped => format!("skipped {}", result.name),
        Event::Test { result, .. } => format!("{} {}", if result.passed { "passed" } else { "failed" }, result.name),
        Event::SuiteFinished { image, passed, failed, tests, reused, .. } => {
            format!("{} {}", ui::short(image), outcome(*reused, *passed, *failed, *tests))
        }
        Event::MatrixFinished { image, matrix, passed, failed, tests, reused, .. } => {
            format!("{} with {matrix}: {}", ui::short(image), outcome(*reused, *passed, *failed, *tests))
        }
        Event::Channel { name, channel, image } => format!("{name}@{channel} is {}", ui::short(image)),
        Event::Step { group, server, action, reason } => {
            format!("{action} {}: {reason}", server.as_deref().unwrap_or(group))
        }
        Event::Difference { group, difference } => {
            format!("{group} {} → {}", ui::short(&difference.before), ui::short(&difference.after))
        }
        Event::Server { server, state, ready, reason, .. } => {
            let after =
                ready.filter(|_| state == "ready").map(|after| format!(" after {:.1} ms", after.as_secs_f64() * 1e3));
            let why = reason.as_ref().map(|reason| format!(": {reason}"));
            format!("{server} {state}{}{}", after.unwrap_or_default(), why.unwrap_or_default())
        }
        Event::Drill { drill } => {
            let missed: String = drill.missed.iter().map(|missed| format!("; {missed}")).collect();
            format!("{} {}: {}{missed}", drill.target(), drill.state, super::drill::figures(drill))
        }
        Event::Rollout { group, state, updated, desired, reason, .. } => {
            format!("{group} {state}, {updated} of {desired}: {reason}")
        }
        Event::HandOver { group, server, slot, handover } => {
            let took = handover.map(|took| format!(" in {} ms", took.as_millis())).unwrap_or_default();
            format!("{group} slot {slot} to {server}{took}")
        }
        Event::Source { group, key, source, state, reason } => {
            let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{group} {key} from {source} {state}{why}")
        }
        Event::SourcesChanged { group, state, reason, .. } => format!("{group} {state}: {reason}"),
        Event::Collector { group, to, state, reason } => {
            let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{group} {to} {state}{why}")
        }
        Event::Proposal { image, reason, .. } => format!("{}: {reason}", ui::short(image)),
        Event::LogsLost { server, lines, reason, .. } => format!("{lines} lines of {server}: {reason}"),
        Event::Warning { message } => message.clone(),
        Event::Result { result, .. } => if *result == Outcome::Ok { "ok" } else { "failed" }.to_owned(),
    }
}

fn outcome(reused: bool, passed: bool, failed: u32, tests: u32) -> String {
    match (reused, passed) {
        (true, _) => "an earlier report is good".to_owned(),
        (false, true) => format!("all {tests} tests passed"),
        (false, false) => format!("{failed} of {tests} tests failed"),
    }
}
