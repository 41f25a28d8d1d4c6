//! What a crate's own benchmark says: an ignored test, built for release and run alone, which prints `PERF name figure …`.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

use crate::{
    Outcome,
    command::{cargo, output},
};

/// Figures by name.
pub struct Figures {
    by_name: BTreeMap<String, f64>,
    said: String,
}

impl Figures {
    /// Runs `test` of the test program of a target, which `chosen` names to cargo.
    pub fn of(target: &str, chosen: &[&str], test: &str) -> Outcome<Self> {
        let mut run = Command::new(program(target, chosen)?);
        let said = String::from_utf8(output(run.args(["--ignored", "--exact", test, "--nocapture"]))?.stdout)?;
        Ok(Self { by_name: read(&said), said })
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Outcome<f64> {
        let found = self.by_name.get(name).copied();
        found.ok_or_else(|| format!("no {name} in:\n{}", self.said).into())
    }
}

/// The test program of a target, built for release.
fn program(target: &str, chosen: &[&str]) -> Outcome<String> {
    let build = ["test", "--workspace", "--release", "--no-run", "--message-format=json", "--quiet"];
    for line in String::from_utf8(output(cargo().args(build).args(chosen))?.stdout)?.lines() {
        let message: Value = serde_json::from_str(line)?;
        if message["target"]["name"] == target
            && let Some(program) = message["executable"].as_str()
        {
            return Ok(program.to_owned());
        }
    }
    Err(format!("cargo names no tests of {target}").into())
}

fn read(said: &str) -> BTreeMap<String, f64> {
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
        let found = read("running 1 test\ntest x ... PERF a_ms 1.5 b 2\nPERF c 3\n");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("a_ms".into(), 1.5), ("b".into(), 2.0), ("c".into(), 3.0)]);
    }
}
