//! Volumes: a clone beside `cp --reflink`, a new volume in a new server, and random writes on one beside the pool.
//!
//! The runtime is measured, without the command line before it: its own test binary, built for release, does the work and
//! prints `PERF` lines.

use super::{
    Bench,
    figures::Figures,
    report::{Row, Target},
};
use crate::{Outcome, command::which};

const TEST: &str = "volumes::perf_volumes_beside_reflinks_and_the_pool";
/// Random writes must reach so much of what the pool's file system gives.
const SHARE_OF_THE_POOL: f64 = 0.9;

/// Milliseconds, and microseconds for each write.
pub fn run(_bench: &Bench) -> Outcome<Vec<Row>> {
    if which("fio").is_none() {
        return Err("fio is not installed".into());
    }
    let figures = Figures::of("servers", &["--test", "servers"], TEST)?;
    let figure = |name: &str| figures.get(name);
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
