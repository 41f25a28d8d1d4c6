//! Fifty servers replaced while clients ask through the gateway.

use super::{
    Bench,
    kiln::Kiln,
    load,
    report::{Row, Target},
};
use crate::Outcome;

const SERVERS: u32 = 50;
/// More than wanted at a time.
const SURGE: u32 = 10;
/// The load lasts until the rollout is over, at most this, seconds.
const LONGEST: u32 = 120;

/// How long, and how many requests failed.
pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    let kiln = Kiln::fresh(bench, "replace", "hello")?;
    kiln.edit("fleet.toml", "count = 3", &format!("count = {SERVERS}"))?;
    kiln.edit("fleet.toml", "max_surge = 3", &format!("max_surge = {SURGE}"))?;
    let up = kiln.up()?;
    kiln.keep_downloads(bench)?;
    kiln.change_page()?;
    let load = load::start(&format!("http://127.0.0.1:{}/", up.port), LONGEST)?;
    let rollout = kiln.up();
    let load = load.stop()?;
    let seconds = rollout?.seconds;
    let row = |what: String, kiln, unit: &str, target, note| Row {
        bench: "replace".into(),
        what,
        kiln,
        unit: unit.into(),
        peer: None,
        target: Some(Target::AtMost(target)),
        note,
    };
    let asked = format!("{:.0} requests, {:.0} per second", load.requests, load.per_second);
    #[allow(clippy::cast_precision_loss)]
    let failed = load.failed as f64;
    Ok(vec![
        row(
            format!("{SERVERS} servers replaced under load"),
            seconds,
            "s",
            10.0,
            format!("bake and tests included; surge {SURGE}"),
        ),
        row("failed requests meanwhile".to_owned(), failed, "", 0.0, asked),
    ])
}
