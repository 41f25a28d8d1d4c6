//! The planner and the reconcilers of up to 100,000 servers in 1,000 groups, over a fake engine: what a plan costs after one change,
//! what it costs cold, and how that grows with the fleet. `bench/planner.md` has the table and the chart.
//!
//! The pure planner is measured by itself (`kiln_model::plan`), and the whole path from a wish to a launch that is begun in the
//! groups' real tasks, with the real state file. Both are ignored tests, built for release.

use std::{fmt::Write as _, fs};

use super::{
    Bench,
    figures::Figures,
    report::{Row, Target},
};
use crate::{Outcome, command::root};

/// Servers, in groups of a hundred.
const SIZES: [u32; 3] = [1_000, 10_000, 100_000];
/// The width of a bar that is as long as can be.
const WIDTH: f64 = 50.0;

/// Milliseconds and seconds, at every size.
pub fn run(_bench: &Bench) -> Outcome<Vec<Row>> {
    let pure = Figures::of("planner_cost", &["--test=planner_cost"], "perf_planner")?;
    let whole = Figures::of("planner", &["--test=planner"], "perf_reconcilers")?;
    let kinds = [
        Kind { what: "pure plan after one change", figures: &pure, name: "pure_change_ms", unit: "ms", target: None },
        Kind { what: "pure plan of the whole fleet", figures: &pure, name: "pure_cold_ms", unit: "ms", target: None },
        Kind { what: "a changed wish to its plan", figures: &whole, name: "plan_ms", unit: "ms", target: Some(10.0) },
        Kind { what: "a changed wish to a launch", figures: &whole, name: "launch_ms", unit: "ms", target: None },
        Kind { what: "a death to its plan", figures: &whole, name: "death_ms", unit: "ms", target: None },
        Kind {
            what: "a daemon begins anew to every plan",
            figures: &whole,
            name: "cold_s",
            unit: "s",
            target: Some(1.0),
        },
        Kind { what: "the daemon at rest", figures: &whole, name: "rest_pc", unit: "% of a core", target: None },
    ];
    fs::write(root().join("bench/planner.md"), page(&kinds)?)?;
    let mut rows = Vec::new();
    for kind in &kinds {
        rows.push(kind.row()?);
    }
    Ok(rows)
}

/// A figure at every size.
struct Kind<'a> {
    what: &'a str,
    figures: &'a Figures,
    name: &'a str,
    unit: &'a str,
    target: Option<f64>,
}

impl Kind<'_> {
    fn at(&self, servers: u32) -> Outcome<f64> {
        self.figures.get(&format!("{}_{servers}", self.name))
    }

    /// The largest fleet, with the smaller ones in the note.
    fn row(&self) -> Outcome<Row> {
        let [small, middle, large] = SIZES;
        let note = format!(
            "{:.3} with {small} servers, {:.3} with {middle}: fake engine, 2 cores shared",
            self.at(small)?,
            self.at(middle)?
        );
        Ok(Row {
            bench: "planner".into(),
            what: format!("{}, {large} servers in {} groups", self.what, large / 100),
            kiln: self.at(large)?,
            unit: self.unit.into(),
            peer: None,
            target: self.target.map(Target::AtMost),
            note,
        })
    }
}

/// A table, and bars whose length grows with the logarithm of the figure, so that what grows with the fleet is longer by a third of
/// the width at each step, and what does not is as long as before.
fn page(kinds: &[Kind<'_>]) -> Outcome<String> {
    let mut text = String::from(
        "# What a plan costs, by the size of the fleet\n\nWritten by `cargo xtask bench planner`. A hundred servers to a group; a fake engine in \
         place of servers; the real\ngroups' tasks and the real state file, but for the two rows of the pure planner.\n\n\
         | | 1,000 servers | 10,000 | 100,000 | wanted |\n| --- | --- | --- | --- | --- |\n",
    );
    for kind in kinds {
        let [small, middle, large] = [kind.at(SIZES[0])?, kind.at(SIZES[1])?, kind.at(SIZES[2])?];
        let wanted = kind.target.map_or("-".to_owned(), |target| format!("≤ {target} {}", kind.unit));
        writeln!(
            text,
            "| {} | {small:.3} {unit} | {middle:.3} {unit} | {large:.3} {unit} | {wanted} |",
            kind.what,
            unit = kind.unit
        )?;
    }
    text.push_str("\nEach bar is as long as the logarithm of its figure over the smallest of its row: one that costs ten times as much is longer by a third.\n\n```text\n");
    for kind in kinds {
        let figures = [kind.at(SIZES[0])?, kind.at(SIZES[1])?, kind.at(SIZES[2])?];
        writeln!(text, "{}", kind.what)?;
        for (servers, figure) in SIZES.iter().zip(figures) {
            writeln!(text, "{servers:>9}  {} {figure:.3} {}", bar(figure, &figures), kind.unit)?;
        }
    }
    text.push_str("```\n\n");
    text.push_str(PROFILE);
    Ok(text)
}

/// Where the time of the two rows that grow with the fleet goes: by `perf record -F 299` of 100,000 servers.
const PROFILE: &str = "\
## Where the time goes

By `perf record` of 100,000 servers, with both processors busy with other builds.

A daemon that begins anew, and shows its status twice: 38 % of the samples were in `malloc` and what it does with many small blocks, 4 % in writing
digests digit by digit (for the status), 3 % in signatures. The samples have no callers; by reading the code, what allocated most was a copy of every text of every row
(then parsed: release, limits, state and shared directories are the same in most rows). Rows are parsed where SQLite has them, what is the same as in the row before is not parsed again, they are read as they lie
in the file, and groups are taken over beside each other: each waited for the one before it to have its evidence looked at. In the same optimised
development build, one after the other on the busy machine: 2.23 s and 1.58 s before, 0.85 s and 1.48 s after (the last beside a compiler). What is
left is the allocation of what a status shows, and the test's own copies of what the fake engine sees.

The daemon at rest: all of it is a burst of half a second every 10 s, in which the full set is observed (copies of what the fake engine has,
into maps), every group makes a pass (views of all its servers for the planner), and the evidence of every group's release is looked at again. Half of the samples were
in copying, comparing and allocating, which is the first two; a tenth in signatures. It grows with the fleet because the full set is looked at, which is what finds what no hint told of. Groups that nothing
happened to could be passed over; that is not done, because a pass is also what notices time.
";

fn bar(figure: f64, all: &[f64]) -> String {
    let least = all.iter().copied().fold(f64::INFINITY, f64::min).max(f64::MIN_POSITIVE);
    // Three tens are the whole width, after a tenth of it for what is least.
    let share = 0.1 + (figure / least).log10().max(0.0) / 3.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let width = (share.min(1.0) * WIDTH).round() as usize;
    "█".repeat(width.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_longer_by_a_third_for_ten_times_as_much() {
        let all = [0.1, 1.0, 100.0];
        let width = |figure| bar(figure, &all).chars().count();
        assert_eq!((width(0.1), width(1.0), width(10.0), width(100.0)), (5, 22, 38, 50));
    }
}
