//! Rows of figures, for people and for programs.

use std::{fmt::Write as _, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{Outcome, command::root};

/// One figure of Kiln's, beside a peer's or a limit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// The benchmark.
    pub bench: String,
    /// What was measured.
    pub what: String,
    /// Kiln's figure.
    pub kiln: f64,
    /// Of both figures.
    pub unit: String,
    /// The peer's name and figure, measured in the same run.
    pub peer: Option<(String, f64)>,
    /// What is wanted.
    pub target: Option<Target>,
    /// Whatever a reader needs to judge it.
    pub note: String,
}

/// What is wanted of a figure.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Kiln's figure divided by the peer's is at most this.
    RatioAtMost(f64),
    /// Kiln's figure is at most this.
    AtMost(f64),
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.peer.as_ref().map(|(_, figure)| self.kiln / figure)
    }

    /// Whether the target is met; `None` without a target, or without the peer.
    fn met(&self) -> Option<bool> {
        match self.target? {
            Target::RatioAtMost(limit) => self.ratio().map(|ratio| ratio <= limit),
            Target::AtMost(limit) => Some(self.kiln <= limit),
        }
    }
}

/// Prints the table and keeps it, beside what earlier runs on this host say of benchmarks that were not run now.
pub fn write(rows: &[Row], failed: &[String], ran: &[&str]) -> Outcome {
    println!("\n{}", table(rows, failed));
    let dir = root().join("bench");
    let mut all: Vec<Row> = kept(&dir.join("results.json"), &host())?;
    all.retain(|row| !ran.contains(&row.bench.as_str()));
    all.extend(rows.iter().cloned());
    all.sort_by_key(|row| super::ALL.iter().position(|(name, _)| *name == row.bench));
    let (rows, table) = (&all, table(&all, failed));
    let host = host();
    let page = format!(
        "# Benchmarks\n\nWritten by `cargo xtask bench`. Each figure is a median; each ratio was measured in one run. A benchmark that is run\nalone replaces its own rows.\n\n{host}\n\n{table}"
    );
    fs::write(dir.join("results.md"), page)?;
    let json = serde_json::json!({ "host": host, "rows": rows, "failed": failed });
    Ok(fs::write(dir.join("results.json"), serde_json::to_string_pretty(&json)? + "\n")?)
}

/// The rows of an earlier run; none of another host's.
fn kept(path: &Path, host: &str) -> Outcome<Vec<Row>> {
    let Ok(text) = fs::read_to_string(path) else { return Ok(Vec::new()) };
    let stored: Stored = serde_json::from_str(&text).map_err(|e| format!("{} is not readable: {e}", path.display()))?;
    Ok(if stored.host == host { stored.rows } else { Vec::new() })
}

#[derive(Deserialize)]
struct Stored {
    host: String,
    rows: Vec<Row>,
}

fn table(rows: &[Row], failed: &[String]) -> String {
    let mut text = String::from(
        "| what | kiln | peer | ratio | wanted | met | note |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in rows {
        let peer =
            row.peer.as_ref().map_or("-".into(), |(name, figure)| format!("{} ({name})", shown(*figure, &row.unit)));
        let ratio = row.ratio().map_or("-".into(), |ratio| format!("{ratio:.2}"));
        let wanted = match row.target {
            Some(Target::RatioAtMost(limit)) => format!("ratio ≤ {limit}"),
            Some(Target::AtMost(limit)) => format!("≤ {}", shown(limit, &row.unit)),
            None => "-".into(),
        };
        let met = row.met().map_or("-", |met| if met { "yes" } else { "**no**" });
        let kiln = shown(row.kiln, &row.unit);
        writeln!(text, "| {} | {kiln} | {peer} | {ratio} | {wanted} | {met} | {} |", row.what, row.note)
            .expect("writing to a string");
    }
    for failure in failed {
        writeln!(text, "\n**Failed:** {}", failure.lines().next().unwrap_or_default()).expect("writing to a string");
    }
    text
}

fn shown(figure: f64, unit: &str) -> String {
    let digits = match figure.abs() {
        f if f >= 100.0 || f == f.trunc() => 0,
        f if f >= 10.0 => 1,
        _ => 2,
    };
    format!("{figure:.digits$} {unit}")
}

fn host() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).map(|m| m.trim_start_matches(['\t', ' ', ':']));
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "Host: {count} × {}, Linux {}.",
        model.unwrap_or("unknown processor"),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_whether_its_target_is_met() {
        let row = |kiln, target| Row {
            bench: "b".into(),
            what: "w".into(),
            kiln,
            unit: "ms".into(),
            peer: Some(("p".into(), 10.0)),
            target: Some(target),
            note: String::new(),
        };
        assert_eq!(row(15.0, Target::RatioAtMost(1.5)).met(), Some(true));
        assert_eq!(row(16.0, Target::RatioAtMost(1.5)).met(), Some(false));
        assert_eq!(row(16.0, Target::AtMost(20.0)).met(), Some(true));
        assert!(
            table(&[row(16.0, Target::RatioAtMost(1.5))], &[])
                .contains("| 16 ms | 10 ms (p) | 1.60 | ratio ≤ 1.5 | **no** |")
        );
    }
}
