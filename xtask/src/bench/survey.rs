//! A survey of a whole Debian, beside `dpkg --verify` of the same tree, which only compares.

use std::{fs, process::Command, time::Instant};

use super::{
    Bench, median_of,
    report::{Row, Target},
};
use crate::{Outcome, command::output};

/// A server of about 200 MB.
const PACKAGES: &str = "nginx-light,openssh-server,python3,ca-certificates,vim";

pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    let tree = bench.work.join("survey-tree");
    if !tree.exists() {
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", "--mode=root", "--variant=minbase", "--format=directory"]);
        command.arg(format!("--include={PACKAGES}")).args(["bookworm".as_ref(), tree.as_os_str()]);
        output(&mut command)?;
    }
    let timed = |mut command: Command| -> Outcome<f64> {
        let start = Instant::now();
        // `dpkg --verify` says by its exit code that something differs.
        command.output()?;
        Ok(start.elapsed().as_secs_f64())
    };
    let kiln = median_of(bench.rounds, || {
        let mut command = Command::new(&bench.kiln);
        command.args(["survey", "--json"]).arg(&tree);
        timed(command)
    })?;
    let peer = median_of(bench.rounds, || {
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", tree.display())).arg("--verify");
        timed(command)
    })?;
    let size = output(Command::new("du").args(["-sm", "--apparent-size"]).arg(&tree))?;
    let mebibytes = String::from_utf8_lossy(&size.stdout).split_whitespace().next().unwrap_or("?").to_owned();
    fs::remove_dir_all(&tree)?;
    Ok(vec![Row {
        bench: "survey".into(),
        what: "kiln survey of a Debian tree".into(),
        kiln,
        unit: "s".into(),
        peer: Some(("dpkg --verify".into(), peer)),
        target: Some(Target::AtMost(2.0)),
        note: format!("{mebibytes} MiB, {PACKAGES}"),
    }])
}
