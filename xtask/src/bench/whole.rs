//! A changed page, and a changed configuration, to three servers proven: the figure Kiln leads with.

use std::time::Instant;

use super::{
    Bench,
    kiln::Kiln,
    median,
    report::{Row, Target},
};
use crate::Outcome;

/// Seconds, as Kiln says and as a clock beside it says.
pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    let kiln = Kiln::fresh(bench, "whole", "hello")?;
    kiln.up()?;
    kiln.keep_downloads(bench)?;
    let (mut said, mut clock) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        kiln.change_page()?;
        let start = Instant::now();
        said.push(kiln.up()?.seconds);
        clock.push(start.elapsed().as_secs_f64());
    }
    let mut configured = Vec::new();
    let mut before = "limits = {".to_owned();
    for round in 0..bench.rounds {
        let after = format!("environment = {{ ROUND = \"{round}\" }}\nlimits = {{");
        kiln.edit("fleet.toml", &before, &after)?;
        before = after;
        configured.push(kiln.up()?.seconds);
    }
    let row = |what: &str, seconds: Vec<f64>, target| Row {
        bench: "whole".into(),
        what: what.into(),
        kiln: median(seconds),
        unit: "s".into(),
        peer: None,
        target,
        note: "baked, booted, tested, signed, replaced".into(),
    };
    Ok(vec![
        row("changed page to three servers proven", said, Some(Target::AtMost(1.0))),
        row("the same by the clock, program start and `kiln status` included", clock, None),
        row("changed configuration only, to three servers proven", configured, Some(Target::AtMost(1.0))),
    ])
}
