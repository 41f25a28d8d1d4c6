//! npm packages: `node_modules/NAME/package.json`, also below one another.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{
    collect::Found,
    licence::Licence,
    package::{Ecosystem, Package},
};
use crate::{store::StoreError, tree::ImageTree};

const LIMIT: u64 = 4 << 20;

#[derive(Deserialize)]
struct Manifest {
    name: String,
    version: String,
    #[serde(default)]
    license: Value,
}

/// Whether a file names a package: it stands in a directory of `node_modules`, or of a scope there.
pub(super) fn is_database(path: &str) -> bool {
    let Some((_, below)) = path.rsplit_once("/node_modules/") else { return false };
    match below.split('/').collect::<Vec<_>>().as_slice() {
        [name, "package.json"] => !name.starts_with('@'),
        [scope, _, "package.json"] => scope.starts_with('@'),
        _ => false,
    }
}

/// Reads what it names.
pub(super) fn read(tree: &ImageTree, path: &str, found: &mut Found) -> Result<(), StoreError> {
    let bytes = tree.read(Path::new(path), LIMIT)?.unwrap_or_default();
    match package(&bytes, path) {
        Some(package) => found.package(package),
        None => found.odd(path),
    }
    Ok(())
}

fn package(bytes: &[u8], path: &str) -> Option<Package> {
    let manifest: Manifest = serde_json::from_slice(bytes).ok()?;
    let mut package = Package::new(Ecosystem::Npm, &manifest.name, &manifest.version, path)?;
    // Old packages have an object.
    let licence = manifest.license.as_str().or_else(|| manifest.license["type"].as_str());
    package.licence = licence.and_then(Licence::parse);
    is_name(&package.name).then_some(package)
}

fn is_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-~".contains(&b);
    let name = match name.strip_prefix('@') {
        Some(scoped) => {
            scoped.split_once('/').filter(|(scope, _)| scope.bytes().all(good)).map_or("", |(_, name)| name)
        }
        None => name,
    };
    !name.is_empty() && name.bytes().all(good)
}

#[cfg(test)]
mod tests {
    use super::{is_database, package};

    #[test]
    fn unit_packages_are_those_of_node_modules() {
        for path in ["/srv/node_modules/a/package.json", "/x/node_modules/a/node_modules/@s/b/package.json"] {
            assert!(is_database(path), "{path}");
        }
        for path in ["/srv/package.json", "/x/node_modules/a/test/package.json", "/x/node_modules/@s/package.json"] {
            assert!(!is_database(path), "{path}");
        }
        let of = |text: &str| package(text.as_bytes(), "/x").map(|found| found.named(None).purl);
        assert_eq!(of(r#"{"name":"@s/b","version":"1.0.0","license":"MIT"}"#).as_deref(), Some("pkg:npm/%40s/b@1.0.0"));
        for bad in [r#"{"name":"a"}"#, r#"{"name":"../a","version":"1"}"#, r#"{"name":"a","version":1}"#, "["] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
