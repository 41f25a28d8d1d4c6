//! Which crate may use which, where unsafe code may stand, and how long a file may be.
//!
//! The table is the one of ARCHITECTURE.md. Development dependencies are free: tests may use what they need.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    Outcome,
    command::{cargo, output, root},
};

/// Lines of a file.
const LONGEST: usize = 800;

const BELOW_CONTROL: &[&str] =
    &["kiln-api", "kiln-boot", "kiln-engine", "kiln-gateway", "kiln-image", "kiln-model", "kiln-runtime", "kiln-sys"];
const ALL: &[&str] = &[
    "kiln-api",
    "kiln-boot",
    "kiln-control",
    "kiln-engine",
    "kiln-gateway",
    "kiln-image",
    "kiln-model",
    "kiln-runtime",
    "kiln-sys",
];

/// Each crate, and the crates of the workspace it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("kiln-model", &[]),
    ("kiln-sys", &[]),
    ("kiln-boot", &[]),
    ("kiln-init", &["kiln-boot"]),
    ("kiln-image", &["kiln-model", "kiln-sys"]),
    ("kiln-gateway", &["kiln-model"]),
    ("kiln-runtime", &["kiln-boot", "kiln-model", "kiln-sys"]),
    ("kiln-engine", &["kiln-model", "kiln-runtime"]),
    ("kiln-api", &["kiln-model"]),
    ("kiln-control", BELOW_CONTROL),
    ("kiln", ALL),
    ("kiln-testkit", ALL),
    ("xtask", &[]),
];

/// The crates that may contain unsafe code.
const UNSAFE: &[&str] = &["kiln-sys", "kiln-init"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `None` for a normal one.
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

/// Checks all, and says everything that is wrong.
pub fn run() -> Outcome {
    let metadata = output(cargo().args(["metadata", "--format-version=1", "--no-deps"]))?;
    let metadata: Metadata = serde_json::from_slice(&metadata.stdout)?;
    let mut wrong = edges(&metadata.packages);
    wrong.extend(unsafe_code(&metadata.packages)?);
    wrong.extend(long_files(&root())?);
    if wrong.is_empty() {
        println!("layers: {} crates keep the table", metadata.packages.len());
        return Ok(());
    }
    Err(wrong.join("\n       ").into())
}

fn edges(packages: &[Package]) -> Vec<String> {
    let table: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in packages {
        let Some(allowed) = table.get(package.name.as_str()) else {
            wrong
                .push(format!("{} is not in the table of crates (ARCHITECTURE.md, xtask/src/layers.rs)", package.name));
            continue;
        };
        let ours = package.dependencies.iter().filter(|d| table.contains_key(d.name.as_str()));
        let used = ours.filter(|d| d.kind.as_deref() != Some("dev"));
        let forbidden = used.filter(|d| !allowed.contains(&d.name.as_str()));
        wrong.extend(forbidden.map(|d| format!("{} must not use {}", package.name, d.name)));
    }
    wrong
}

fn unsafe_code(packages: &[Package]) -> Outcome<Vec<String>> {
    let mut wrong = Vec::new();
    for package in packages.iter().filter(|p| !UNSAFE.contains(&p.name.as_str())) {
        let shipped = |t: &&Target| t.kind.iter().any(|k| ["lib", "bin", "rlib"].contains(&k.as_str()));
        for target in package.targets.iter().filter(shipped) {
            if !fs::read_to_string(&target.src_path)?.contains("#![forbid(unsafe_code)]") {
                wrong.push(format!("{} lacks #![forbid(unsafe_code)]", target.src_path.display()));
            }
        }
    }
    Ok(wrong)
}

fn long_files(root: &Path) -> Outcome<Vec<String>> {
    let mut wrong = Vec::new();
    for file in sources(root)? {
        let lines = fs::read_to_string(&file)?.lines().count();
        if lines > LONGEST {
            wrong.push(format!("{} has {lines} lines: split it by verb, {LONGEST} is the most", file.display()));
        }
    }
    Ok(wrong)
}

/// Every Rust file of ours.
pub fn sources(root: &Path) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![root.join("crates"), root.join("xtask")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, uses: &[(&str, Option<&str>)]) -> Package {
        let dependencies =
            uses.iter().map(|(name, kind)| Dependency { name: (*name).into(), kind: kind.map(Into::into) }).collect();
        Package { name: name.into(), dependencies, targets: Vec::new() }
    }

    #[test]
    fn an_edge_upwards_is_found() {
        let wrong = edges(&[package("kiln-model", &[("kiln-sys", None), ("serde", None)])]);
        assert_eq!(wrong, ["kiln-model must not use kiln-sys"]);
    }

    #[test]
    fn a_build_dependency_counts_and_a_development_dependency_does_not() {
        let wrong = edges(&[package("kiln-api", &[("kiln-testkit", Some("dev")), ("kiln-image", Some("build"))])]);
        assert_eq!(wrong, ["kiln-api must not use kiln-image"]);
    }

    #[test]
    fn a_new_crate_needs_a_place() {
        assert_eq!(edges(&[package("kiln-new", &[])]).len(), 1);
    }
}
