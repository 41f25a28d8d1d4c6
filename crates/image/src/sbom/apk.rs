//! apk's database: `/lib/apk/db/installed`, paragraphs of lines with a letter for a field (apk-tools,
//! `doc/apk-package.5.scd` and `src/package.c`).

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    collect::Found,
    licence::Licence,
    package::{Algorithm, Checksum, Ecosystem, Package, Source, word},
};
use crate::{store::StoreError, tree::ImageTree};

const LIMIT: u64 = 64 << 20;

/// Whether a file is the database.
pub(super) fn is_database(path: &str) -> bool {
    ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"].contains(&path)
}

/// Reads the database.
pub(super) fn read(tree: &ImageTree, path: &str, found: &mut Found) -> Result<(), StoreError> {
    let bytes = tree.read(Path::new(path), LIMIT + 1)?.unwrap_or_default();
    if bytes.len() as u64 > LIMIT {
        found.unread(path, "it is larger than any database of apk");
        return Ok(());
    }
    let text = String::from_utf8_lossy(&bytes);
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        match package(paragraph, path) {
            Some(package) => found.package(package),
            None => found.odd(path),
        }
    }
    Ok(())
}

fn package(paragraph: &str, path: &str) -> Option<Package> {
    let field = |letter: char| paragraph.lines().find_map(|line| line.strip_prefix(letter)?.strip_prefix(':'));
    let mut package = Package::new(Ecosystem::Apk, field('P')?, field('V')?, path)?;
    package.architecture = field('A').and_then(word);
    package.licence = field('L').and_then(Licence::parse);
    package.supplier = field('m').and_then(word);
    package.checksum = field('C').and_then(checksum);
    let source = field('o').and_then(word).filter(|origin| *origin != package.name);
    package.source = source.map(|name| Source { name, version: None });
    Some(package)
}

/// `Q1` and the base64 of a SHA-1, which is what the database has.
fn checksum(text: &str) -> Option<Checksum> {
    Checksum::new(Algorithm::Sha1, &STANDARD.decode(text.strip_prefix("Q1")?).ok()?)
}
