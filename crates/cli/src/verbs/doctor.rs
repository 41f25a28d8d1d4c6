//! `kiln doctor`: what this host can do, and what it lacks.

use kiln_sys::probe::{self, Check, State};
use serde_json::{Value, json};

use super::Context;
use crate::{exit::Exit, failure::Failure, parts::host::HostPlaces, ui};

pub(super) fn run(context: &Context<'_>) -> Result<Exit, Failure> {
    let places = HostPlaces::of(&context.state)?;
    let task = context.ui.task("looking at this host");
    let checks = probe::run(&places.state);
    drop(task);
    let usable = probe::usable(&checks);
    let value = json!({ "usable": usable, "checks": checks.iter().map(to_json).collect::<Vec<_>>() });
    context.ui.result(&value, || checks.iter().map(line).collect());
    Ok(if usable { Exit::Ok } else { Exit::Host })
}

fn word(state: State) -> &'static str {
    match state {
        State::Found => "found",
        State::Degraded => "degraded",
        State::Missing => "missing",
    }
}

fn to_json(check: &Check) -> Value {
    json!({
        "name": check.name,
        "state": word(check.state),
        "found": check.found,
        "effect": check.effect,
        "help": check.help,
    })
}

fn line(check: &Check) -> String {
    let mark = match check.state {
        State::Found => ui::good(),
        State::Degraded => ui::careful(),
        State::Missing => ui::bad(),
    };
    let effect = check.effect.map(|effect| format!("    {effect}\n")).unwrap_or_default();
    let help = check.help.map(|help| format!("    {} {help}\n", ui::dim("try:"))).unwrap_or_default();
    format!("{mark} {}: {}\n{effect}{help}", check.name, check.found)
}
