//! dpkg's database: `/var/lib/dpkg/status`, and the files of `status.d` that images without dpkg have.
//!
//! Form: `deb-control(5)`. A licence comes from the package's copyright file where that is in the form of DEP-5.

use std::path::Path;

use super::{
    collect::Found,
    licence::Licence,
    package::{Ecosystem, Package, Source, word},
};
use crate::{store::StoreError, tree::ImageTree};

/// More than any `status` has, bytes.
const LIMIT: u64 = 64 << 20;
/// More than any copyright file has, bytes.
const COPYRIGHT: u64 = 1 << 20;

/// Whether a file is one of the database.
pub(super) fn is_database(path: &str) -> bool {
    let part = path.strip_prefix("/var/lib/dpkg/status.d/");
    path == "/var/lib/dpkg/status" || part.is_some_and(|name| !name.contains('/') && !name.ends_with(".md5sums"))
}

/// Reads one file of the database.
pub(super) fn read(tree: &ImageTree, path: &str, found: &mut Found) -> Result<(), StoreError> {
    let bytes = tree.read(Path::new(path), LIMIT + 1)?.unwrap_or_default();
    if bytes.len() as u64 > LIMIT {
        found.unread(path, "it is larger than any database of dpkg");
        return Ok(());
    }
    let text = String::from_utf8_lossy(&bytes);
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        match package(paragraph, path) {
            Ok(Some(mut package)) => {
                package.licence = licence(tree, &package.name)?;
                found.package(package);
            }
            Ok(None) => {}
            Err(NotAPackage) => found.odd(path),
        }
    }
    Ok(())
}

/// A paragraph that names no package.
struct NotAPackage;

/// The package of a paragraph; none if it is not installed.
fn package(paragraph: &str, path: &str) -> Result<Option<Package>, NotAPackage> {
    let field = |name: &str| {
        let value = paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(str::trim)
    };
    // The files of `status.d` say nothing of a status.
    if field("Status").is_some_and(|status| !status.ends_with(" installed")) {
        return Ok(None);
    }
    let (name, version) = field("Package").zip(field("Version")).ok_or(NotAPackage)?;
    let package = Package::new(Ecosystem::Deb, name, version, path).filter(|package| is_name(&package.name));
    let mut package = package.ok_or(NotAPackage)?;
    package.architecture = field("Architecture").and_then(word);
    package.source = field("Source").and_then(source);
    package.supplier = field("Maintainer").and_then(word);
    Ok(Some(package))
}

/// Debian policy 5.6.1. The name becomes a part of a path, too.
fn is_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) && name.bytes().all(good)
}

/// `glibc` or `glibc (2.36-9)`.
fn source(text: &str) -> Option<Source> {
    let (name, version) = match text.split_once('(') {
        Some((name, version)) => (name, word(version.trim_end_matches(')'))),
        None => (text, None),
    };
    Some(Source { name: word(name)?, version })
}

fn licence(tree: &ImageTree, name: &str) -> Result<Option<Licence>, StoreError> {
    let path = format!("/usr/share/doc/{name}/copyright");
    let bytes = tree.read(Path::new(&path), COPYRIGHT)?;
    Ok(bytes.and_then(|bytes| Licence::of_copyright(&String::from_utf8_lossy(&bytes))))
}

#[cfg(test)]
mod tests {
    use super::{package, source};

    #[test]
    fn unit_installed_packages_are_read_and_others_are_not() {
        let of = |text: &str| package(text, "/var/lib/dpkg/status").map_err(|_| ());
        let text = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc\nVersion: 2.36-9";
        let found = of(text).expect("a package").expect("installed");
        assert_eq!((found.name.as_str(), found.version.as_str()), ("libc6", "2.36-9"));
        assert_eq!(found.source, source("glibc"));
        assert_eq!(of(&text.replace("ok installed", "ok config-files")), Ok(None));
        assert_eq!(of(&text.replace("ok installed", "ok half-installed")), Ok(None));
        assert!(of("Package: distroless\nVersion: 1").expect("a package").is_some());
        for bad in ["Package: ../../etc\nVersion: 1", "Package: a", "Version: 1", "Package: a\nVersion: \u{1}"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
