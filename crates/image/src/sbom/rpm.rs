//! rpm's database: `rpmdb.sqlite`, whose table `Packages` holds a header for each package.
//!
//! Older systems have a Berkeley database (`Packages`) or one of rpm's own (`Packages.db`): these are named and not read.

mod header;
mod sqlite;

use std::path::Path;

use super::{
    collect::Found,
    licence::Licence,
    package::{Algorithm, Checksum, Ecosystem, Package, Source, word},
};
use crate::{store::StoreError, tree::ImageTree};
use header::Header;

/// More than any database has, bytes.
const LIMIT: u64 = 512 << 20;
const DIRECTORIES: [&str; 3] = ["/var/lib/rpm/", "/usr/lib/sysimage/rpm/", "/usr/share/rpm/"];
/// Keys are kept as packages of this name.
const KEY: &str = "gpg-pubkey";

/// Whether a file is one of the database.
pub(super) fn is_database(path: &str) -> bool {
    let name = DIRECTORIES.iter().find_map(|directory| path.strip_prefix(directory));
    name.is_some_and(|name| ["rpmdb.sqlite", "rpmdb.sqlite-wal", "Packages", "Packages.db"].contains(&name))
}

/// Reads the database, or says that it is not read.
pub(super) fn read(tree: &ImageTree, path: &str, found: &mut Found) -> Result<(), StoreError> {
    let bytes = tree.read(Path::new(path), LIMIT + 1)?.unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    match name {
        "Packages" => found.unread(path, "a Berkeley database of an old rpm is not read"),
        "Packages.db" => found.unread(path, "an ndb database of rpm is not read"),
        "rpmdb.sqlite-wal" if !bytes.is_empty() => found.unread(path, "changes that were not settled are not read"),
        "rpmdb.sqlite-wal" => {}
        _ if bytes.len() as u64 > LIMIT => found.unread(path, "it is larger than any database of rpm"),
        _ => database(&bytes, path, found),
    }
    Ok(())
}

fn database(bytes: &[u8], path: &str, found: &mut Found) {
    let read = sqlite::blobs(bytes, "Packages", &mut |blob| match Header::parse(blob) {
        Some(header) if header.text(header::NAME) == Some(KEY) => {}
        header => match header.and_then(|header| package(&header, path)) {
            Some(package) => found.package(package),
            None => found.odd(path),
        },
    });
    if let Err(error) = read {
        found.unread(path, &error.to_string());
    }
}

fn package(header: &Header<'_>, path: &str) -> Option<Package> {
    let (version, release) = (header.text(header::VERSION)?, header.text(header::RELEASE)?);
    let version = match header.number(header::EPOCH) {
        Some(epoch) if epoch > 0 => format!("{epoch}:{version}-{release}"),
        _ => format!("{version}-{release}"),
    };
    let mut package = Package::new(Ecosystem::Rpm, header.text(header::NAME)?, &version, path)?;
    package.architecture = header.text(header::ARCHITECTURE).and_then(word);
    package.licence = header.text(header::LICENCE).and_then(Licence::parse);
    package.supplier = header.text(header::VENDOR).and_then(word);
    package.source = header.text(header::SOURCE).and_then(word).map(|name| Source { name, version: None });
    let digest = header.text(header::SHA256).and_then(|hex| hex::decode(hex).ok());
    package.checksum = digest.and_then(|bytes| Checksum::new(Algorithm::Sha256, &bytes));
    Some(package)
}
