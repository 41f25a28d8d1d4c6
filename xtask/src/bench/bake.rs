//! Baking with downloaded packages, beside mmdebstrap with the same packages from the same disk.

use std::{fs, process::Command, time::Instant};

use super::{
    Bench, debs,
    kiln::Kiln,
    median_of,
    report::{Row, Target},
};
use crate::{Outcome, command::output};

/// Cold, and with only the page changed.
pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    let first = Kiln::fresh(bench, "bake", "hello")?;
    first.bake()?;
    first.keep_downloads(bench)?;
    let changed = median_of(bench.rounds, || {
        first.change_page()?;
        first.bake()
    })?;
    let mirror = debs::mirror(&first.state().join("cache"), &bench.work.join("bake-mirror"))?;
    drop(first);
    let rounds = bench.rounds.min(3);
    let cold = median_of(rounds, || Kiln::fresh(bench, "bake", "hello")?.bake())?;
    let peer = median_of(rounds, || mmdebstrap(bench, &mirror))?;
    let row = |what: &str, kiln, peer, target, note: String| Row {
        bench: "bake".into(),
        what: what.into(),
        kiln,
        unit: "s".into(),
        peer,
        target: Some(target),
        note,
    };
    Ok(vec![
        row(
            "cold bake of examples/hello, packages downloaded",
            cold,
            Some(("mmdebstrap".into(), peer)),
            Target::RatioAtMost(0.6),
            format!("{} packages; mmdebstrap to a directory, from a local repository", mirror.packages.len()),
        ),
        row("bake with only the page changed", changed, None, Target::AtMost(0.2), String::new()),
    ])
}

fn mmdebstrap(bench: &Bench, mirror: &debs::Mirror) -> Outcome<f64> {
    let tree = bench.work.join("bake-mmdebstrap");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    let mut command = Command::new("mmdebstrap");
    command.args(["--mode=root", "--variant=essential", "--format=directory", "--quiet"]);
    command.arg(format!("--include={}", mirror.packages.join(",")));
    command.args(["bookworm".as_ref(), tree.as_os_str()]);
    command.arg(format!("deb [trusted=yes] copy:{} ./", mirror.directory.display()));
    let start = Instant::now();
    output(&mut command)?;
    let seconds = start.elapsed().as_secs_f64();
    fs::remove_dir_all(&tree)?;
    Ok(seconds)
}
