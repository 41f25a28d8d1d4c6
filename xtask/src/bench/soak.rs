//! A hundred thousand servers killed and replaced in one run, over a fake engine, with the groups' real tasks and the real state file: no
//! descriptors, no memory and no more of the state file at the end than half-way, when all that is kept is there.

use super::{
    Bench,
    figures::Figures,
    report::{Row, Target},
};
use crate::Outcome;

/// The end over the middle.
pub fn run(_bench: &Bench) -> Outcome<Vec<Row>> {
    let figures = Figures::of("soak", &["--test=soak"], "perf_soak")?;
    let (from, replaced, seconds) = (figures.get("warm")?, figures.get("replaced")?, figures.get("seconds")?);
    let kinds = [
        ("file descriptors", "descriptors", "", 0.0),
        ("private memory", "memory", "MiB", 8.0),
        ("the state file and its log", "file", "MiB", 8.0),
    ];
    let row = |(what, name, unit, most): (&str, &str, &str, f64)| -> Outcome<Row> {
        let (warm, end) = (figures.get(&format!("{name}_warm"))?, figures.get(&format!("{name}_end"))?);
        Ok(Row {
            bench: "soak".into(),
            what: format!("growth of {what} from replacement {from:.0} to {replaced:.0}"),
            kiln: (end - warm).max(0.0),
            unit: unit.into(),
            peer: None,
            target: Some(Target::AtMost(most)),
            note: format!("{warm:.1} and {end:.1}, {:.0} replacements a second, fake engine", replaced / seconds),
        })
    };
    kinds.into_iter().map(row).collect()
}
