//! A goss file of fifty resources that all hold, by Kiln and by the real goss in servers of the same image: from asking to the last
//! answer. Kiln looks at both test servers of a suite at once, as it always does; goss looks at its one server. An ignored test, built
//! for release, with Debian 13's goss.

use super::{
    Bench,
    figures::Figures,
    report::{Row, Target},
};
use crate::{Outcome, tools::trixie};

/// Milliseconds.
pub fn run(_bench: &Bench) -> Outcome<Vec<Row>> {
    trixie::TEST.iter().filter(|foreign| foreign.program == "goss").try_for_each(trixie::Foreign::fetch)?;
    let figures = Figures::of("harness", &["--package=kiln-control", "--test=harness"], "goss::perf_fifty_resources")?;
    Ok(vec![Row {
        bench: "goss".into(),
        what: "a goss file of 50 resources".into(),
        kiln: figures.get("kiln_ms")?,
        unit: "ms".into(),
        peer: Some(("goss".into(), figures.get("goss_ms")?)),
        target: Some(Target::RatioAtMost(1.0)),
        note: "medians; Kiln on two servers at once, goss on one".into(),
    }])
}
