//! Volumes: a clone beside `cp --reflink`, a new volume in a new server, and random writes on one beside the pool.
//!
//! The runtime is measured, without the command line before it: its own test binary, built for release, does the work and
//! prints `PERF` lines.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

use super::{
    Bench,
    report::{Row, Target},
};
use crate::{
    Outcome,
    command::{cargo, output, which},
};

const TEST: &str = "volumes::perf_volumes_beside_reflinks_and_the_pool";
/// Random writes must reach so much of what the pool's file system gives.
const SHARE_OF_THE_POOL: f64 = 0.9;

/// Milliseconds, and microseconds for each write.
pub fn run(_bench: &Bench) -> Outcome<Vec<Row>> {
    if which("fio").is_none() {
        return Err("fio is not installed".into());
    }
    let said = output(Command::new(test_program("servers", "--test", Some("servers"))?).args([
        "--ignored",
        "--exact",
        TEST,
        "--nocapture",
    ]))?;
    let said = String::from_utf8(said.stdout)?;
    let figures = figures(&said);
    let figure = |name: &str| figures.get(name).copied().ok_or_else(|| format!("no {name} in:\n{said}"));
    let row = |what: &str, kiln, unit: &str, peer: Option<(&str, f64)>, target, note: &str| Row {
        bench: "volume".into(),
        what: what.into(),
        kiln,
        unit: unit.into(),
        peer: peer.map(|(name, figure)| (name.into(), figure)),
        target: Some(target),
        note: note.into(),
    };
    let each_write = |writes_per_second: f64| 1e6 / writes_per_second;
    let (on_volume, on_pool) = (figure("randwrite_iops_volume")?, figure("pool")?);
    Ok(vec![
        row(
            "clone of a volume of 10 GiB",
            figure("clone_10gib_ms")?,
            "ms",
            Some(("cp --reflink", figure("cp_reflink_ms")?)),
            Target::AtMost(10.0),
            "200 MB in it; on disk when it ends",
        ),
        row(
            "a volume of 1 GiB made, and a server launched with it",
            figure("create_and_attach_1gib_in_a_launch_ms")?,
            "ms",
            Some(("a server without one", figure("plain_launch_ms")?)),
            Target::AtMost(25.0),
            "",
        ),
        row(
            "random write of 4 KiB inside a server",
            each_write(on_volume),
            "µs",
            Some(("fio on the pool's file system", each_write(on_pool))),
            Target::RatioAtMost(1.0 / SHARE_OF_THE_POOL),
            "fio, libaio, depth 16, direct",
        ),
    ])
}

/// The test program of a target, built for release.
pub(super) fn test_program(target: &str, kind: &str, name: Option<&str>) -> Outcome<String> {
    let build = ["test", "--workspace", "--release", "--no-run", "--message-format=json", "--quiet", kind];
    for line in String::from_utf8(output(cargo().args(build).args(name))?.stdout)?.lines() {
        let message: Value = serde_json::from_str(line)?;
        if message["target"]["name"] == target
            && let Some(program) = message["executable"].as_str()
        {
            return Ok(program.to_owned());
        }
    }
    Err(format!("cargo names no tests of {target}").into())
}

/// `PERF name figure name figure …`
pub(super) fn figures(said: &str) -> BTreeMap<String, f64> {
    let mut figures = BTreeMap::new();
    for line in said.lines().filter_map(|line| line.split_once("PERF ").map(|(_, rest)| rest)) {
        let words: Vec<&str> = line.split_whitespace().collect();
        for pair in words.chunks_exact(2) {
            figures.extend(pair[1].parse().ok().map(|figure| (pair[0].to_owned(), figure)));
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_test_prints() {
        let found = figures("running 1 test\ntest x ... PERF a_ms 1.5 b 2\nPERF c 3\n");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("a_ms".into(), 1.5), ("b".into(), 2.0), ("c".into(), 3.0)]);
    }
}
