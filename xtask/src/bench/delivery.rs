//! What configuration adds to a launch: a group of plain nginx, and one whose servers have a template rendered from values before
//! nginx starts, launched in turn.

use std::fs;

use super::{
    Bench,
    kiln::Kiln,
    launch::{launch, rested},
    median,
    report::{Row, Target},
};
use crate::Outcome;

/// Launches of each kind in one round: the difference is smaller than what single launches differ by.
const LAUNCHES: usize = 6;
const PLAIN: &str = "plain";
const TOLD: &str = "told";

const CONFIGURATION: &str = r#"
[config.greeting]
type = "string"
default = "hello"

[config.workers]
type = "integer"
default = 2

[file."/run/told.conf"]
template = "told.conf"
mode = "0640"
"#;
const TEMPLATE: &str = "greeting {{ config.greeting }};\nworkers {{ config.workers }};\nserver {{ server.id }};\n";

/// Milliseconds, the median of one kind less that of the other.
pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    let (plain, told) = (project(bench, PLAIN)?, project(bench, TOLD)?);
    configure(&told)?;
    plain.up()?;
    plain.keep_downloads(bench)?;
    told.up()?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds * LAUNCHES {
        without.push(rested(&plain, || launch(&plain))?);
        with.push(rested(&told, || launch(&told))?);
    }
    let (without, with) = (median(without), median(with));
    Ok(vec![Row {
        bench: "delivery".into(),
        what: "what a template and its delivery add to a launch".into(),
        kiln: with - without,
        unit: "ms".into(),
        peer: None,
        target: Some(Target::AtMost(1.0)),
        note: format!("{with:.2} ms in place of {without:.2} ms, {} launches of each in turn", bench.rounds * LAUNCHES),
    }])
}

fn project(bench: &Bench, name: &str) -> Outcome<Kiln> {
    let kiln = Kiln::fresh(bench, &format!("delivery-{name}"), "hello")?;
    kiln.edit("fleet.toml", "count = 3", "count = 1")?;
    Ok(kiln)
}

fn configure(kiln: &Kiln) -> Outcome {
    fs::write(kiln.project().join("told.conf"), TEMPLATE)?;
    kiln.edit("image.toml", "\n[writable]", &format!("{CONFIGURATION}\n[writable]"))
}
