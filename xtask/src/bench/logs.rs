//! Log lines: processor time and speed of shipping to rsyslog, beside `logger` and rsyslog's own forwarding.
//!
//! The shipper is measured in its own test binary, built for release, which reads a spool of 300,000 lines and prints `PERF`
//! lines. Processor time is that of the sender alone.

use super::{
    Bench,
    figures::Figures,
    report::{Row, Target},
};
use crate::Outcome;

const TEST: &str = "logs::tests::bench::perf_logs_beside_logger_and_rsyslog";

/// Seconds of processor time for 100,000 lines: at most one is 100,000 lines a second on one core.
pub fn run(_bench: &Bench) -> Outcome<Vec<Row>> {
    let figures = Figures::of("kiln_control", &["--lib"], TEST)?;
    let figure = |name: &str| figures.get(name);
    let row = |what: &str, way: &str, peer: &str, of: &str| -> Outcome<Row> {
        let speed = |name: &str| figure(&format!("{name}_lines_per_s"));
        Ok(Row {
            bench: "logs".into(),
            what: what.into(),
            kiln: figure(&format!("{way}_cpu_s"))?,
            unit: "s".into(),
            peer: Some((peer.into(), figure(&format!("{of}_cpu_s"))?)),
            target: Some(Target::AtMost(1.0)),
            note: format!("rsyslog had {:.0} lines a second from Kiln, {:.0} from the peer", speed(way)?, speed(of)?),
        })
    };
    Ok(vec![
        row("processor time to send 100,000 lines over TCP", "tcp", "logger --octet-count", "logger")?,
        row("processor time to send 100,000 lines over RELP", "relp", "rsyslog, imfile to omrelp", "rsyslog")?,
    ])
}
