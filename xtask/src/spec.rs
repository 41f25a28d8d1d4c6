//! SPECIFICATION.md: every promise names the tests that keep it, and those tests exist.

use std::{collections::BTreeSet, fs};

use crate::{Outcome, command::root, layers::sources};

/// A row of a table of promises.
#[derive(Debug, PartialEq, Eq)]
struct Promise {
    number: String,
    /// Names in backticks of the last column.
    kept_by: Vec<String>,
    pending: bool,
}

/// Checks the page against the sources.
pub fn run() -> Outcome {
    let page = fs::read_to_string(root().join("SPECIFICATION.md"))?;
    let promises = parse(&page);
    let known = known_tests()?;
    let mut wrong = Vec::new();
    for promise in &promises {
        if promise.kept_by.is_empty() && !promise.pending {
            wrong.push(format!("{} names no test and is not pending", promise.number));
        }
        let unknown = promise.kept_by.iter().filter(|name| !known.contains(name.as_str()));
        wrong.extend(unknown.map(|name| format!("{}: there is no test or benchmark `{name}`", promise.number)));
    }
    if !wrong.is_empty() {
        return Err(wrong.join("\n       ").into());
    }
    let pending = promises.iter().filter(|p| p.pending).count();
    println!("specification: {} promises, {pending} pending", promises.len());
    Ok(())
}

fn parse(page: &str) -> Vec<Promise> {
    page.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Promise> {
    let columns: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
    let (number, kept_by) = (columns.first()?, columns.last()?);
    let is_number = number.len() >= 2 && number.starts_with(|c: char| c.is_ascii_uppercase());
    if !is_number || !number[1..].bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let names = kept_by.split('`').skip(1).step_by(2);
    let kept_by_names = names.map(|name| name.rsplit("::").next().unwrap_or(name).to_owned()).collect();
    Some(Promise { number: (*number).into(), kept_by: kept_by_names, pending: kept_by.contains("pending") })
}

/// Names of test functions, and of modules and files that hold tests or benchmarks.
fn known_tests() -> Outcome<BTreeSet<String>> {
    let mut known = BTreeSet::new();
    for file in sources(&root())? {
        let text = fs::read_to_string(&file)?;
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect::<Vec<_>>();
        let named = words.windows(2).filter(|pair| ["fn", "mod"].contains(&pair[0])).map(|pair| pair[1].to_owned());
        known.extend(named);
        known.extend(file.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_promises_are_read_and_others_left() {
        let page = "| number | promise | kept by |\n| --- | --- | --- |\n| R1 | a `b` | `x::host_y`, `z` |\n| G12 | c | **pending** |";
        let promises = parse(page);
        assert_eq!(
            promises[0],
            Promise { number: "R1".into(), kept_by: vec!["host_y".into(), "z".into()], pending: false }
        );
        assert_eq!((promises[1].number.as_str(), promises[1].pending, promises.len()), ("G12", true, 2));
    }
}
