//! Python packages: `*.dist-info/METADATA`, `*.egg-info/PKG-INFO` and `*.egg-info`
//! (<https://packaging.python.org/specifications/core-metadata/>).

use std::path::Path;

use super::{
    collect::Found,
    licence::Licence,
    package::{Ecosystem, Package},
};
use crate::{store::StoreError, tree::ImageTree};

/// Fields stand at the beginning; descriptions may be long.
const LIMIT: u64 = 1 << 20;
/// The classifiers that mean one licence.
const CLASSIFIERS: &[(&str, &str)] = &[
    ("License :: OSI Approved :: MIT License", "MIT"),
    ("License :: OSI Approved :: MIT No Attribution License (MIT-0)", "MIT-0"),
    ("License :: OSI Approved :: ISC License (ISCL)", "ISC"),
    ("License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
    ("License :: OSI Approved :: GNU General Public License v2 or later (GPLv2+)", "GPL-2.0-or-later"),
    ("License :: OSI Approved :: GNU General Public License v3 (GPLv3)", "GPL-3.0-only"),
    ("License :: OSI Approved :: GNU General Public License v3 or later (GPLv3+)", "GPL-3.0-or-later"),
];

/// Whether a file names a package.
pub(super) fn is_database(path: &str) -> bool {
    [".dist-info/METADATA", ".egg-info/PKG-INFO", ".egg-info"].iter().any(|end| path.ends_with(end))
}

/// Reads what it names.
pub(super) fn read(tree: &ImageTree, path: &str, found: &mut Found) -> Result<(), StoreError> {
    let bytes = tree.read(Path::new(path), LIMIT)?.unwrap_or_default();
    match package(&String::from_utf8_lossy(&bytes), path) {
        Some(package) => found.package(package),
        None => found.odd(path),
    }
    Ok(())
}

fn package(text: &str, path: &str) -> Option<Package> {
    let head = || text.lines().take_while(|line| !line.trim().is_empty());
    let field = |name: &str| head().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let mut package = Package::new(Ecosystem::PyPi, field("Name")?, field("Version")?, path)?;
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let is_name = package.name.bytes().all(good);
    let written = || field("License-Expression").or_else(|| field("License")).and_then(Licence::parse);
    package.licence = written().or_else(|| classified(head().filter_map(|line| line.strip_prefix("Classifier: "))));
    is_name.then_some(package)
}

/// The licence of the classifiers, if there is one and it is known.
fn classified<'a>(classifiers: impl Iterator<Item = &'a str>) -> Option<Licence> {
    let mut licences = classifiers.filter(|text| text.starts_with("License :: ") && *text != "License :: OSI Approved");
    let (only, none) = (licences.next()?.trim(), licences.next());
    let known = CLASSIFIERS.iter().find(|(classifier, _)| *classifier == only && none.is_none());
    known.and_then(|(_, id)| Licence::parse(id))
}

#[cfg(test)]
mod tests {
    use super::package;

    #[test]
    fn unit_only_the_head_of_metadata_counts() {
        let text = "Metadata-Version: 2.1\nName: Flask\nVersion: 3.0\nClassifier: License :: OSI Approved :: MIT License\n\nName: x\n";
        let found = package(text, "/x.dist-info/METADATA").expect("a package");
        assert_eq!((found.name.as_str(), found.version.as_str()), ("Flask", "3.0"));
        assert_eq!(found.licence.expect("known").as_str(), "MIT");
        assert_eq!(package("Metadata-Version: 2.1\n\nName: x\nVersion: 1\n", "/x"), None);
        assert_eq!(package("Name: ../x\nVersion: 1\n", "/x"), None);
    }
}
