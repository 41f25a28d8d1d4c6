//! Every package database of a tree: found by its path, read by the parser for it.

use std::{collections::BTreeMap, fmt};

use super::{Distro, Package, apk, cargo, dpkg, npm, python, rpm};
use crate::{
    store::StoreError,
    tree::{EntryKind, ImageTree, TreeEntry},
};

/// More packages than any image has.
const MAX_PACKAGES: usize = 50_000;
/// So many databases that are not read are named.
const MAX_UNREAD: usize = 100;

/// What is in a tree.
pub(super) struct Inventory {
    pub(super) distro: Option<Distro>,
    /// Sorted by package URL, each once.
    pub(super) packages: Vec<Package>,
    pub(super) unread: Vec<Unread>,
}

/// A database, or a part of one, that is not in the list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unread {
    path: String,
    why: String,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}

/// Collects what parsers find.
#[derive(Default)]
pub(super) struct Found {
    distro: Option<Distro>,
    packages: BTreeMap<String, Package>,
    unread: BTreeMap<String, String>,
    odd: BTreeMap<String, usize>,
    full: bool,
}

impl Found {
    /// One that several databases name is listed once, of the first of them.
    pub(super) fn package(&mut self, package: Package) {
        if self.packages.len() >= MAX_PACKAGES {
            self.full = true;
            return;
        }
        let package = package.named(self.distro.as_ref());
        self.packages.entry(package.purl.clone()).or_insert(package);
    }
    /// A database that is not read.
    pub(super) fn unread(&mut self, path: &str, why: &str) {
        if self.unread.len() < MAX_UNREAD {
            self.unread.insert(path.escape_debug().to_string(), why.to_owned());
        }
    }
    /// An entry of a database that is no package.
    pub(super) fn odd(&mut self, path: &str) {
        if self.odd.len() < MAX_UNREAD || self.odd.contains_key(path) {
            *self.odd.entry(path.to_owned()).or_default() += 1;
        }
    }
}

/// Reads a file that is a database, or a part of one.
type Reader = fn(&ImageTree, &str, &mut Found) -> Result<(), StoreError>;

/// Whether a file is a database, by its path.
type Test = fn(&str) -> bool;

/// Which files are databases.
const DATABASES: &[(Test, Reader)] = &[
    (dpkg::is_database, dpkg::read),
    (apk::is_database, apk::read),
    (rpm::is_database, rpm::read),
    (python::is_database, python::read),
    (npm::is_database, npm::read),
];

impl Inventory {
    /// Everything that databases in the tree name.
    pub(super) fn of(tree: &ImageTree) -> Result<Self, StoreError> {
        let mut found = Found { distro: Distro::of(tree)?, ..Found::default() };
        for entry in tree.entries() {
            let EntryKind::File { size } = entry.kind else { continue };
            // A name that is no UTF-8 is no database's.
            let Some(path) = entry.path.to_str() else { continue };
            for (_, read) in DATABASES.iter().filter(|(is_database, _)| is_database(path)) {
                read(tree, path, &mut found)?;
            }
            if may_run(&entry) {
                cargo::read(tree, path, size, &mut found)?;
            }
        }
        Ok(found.inventory())
    }
}

fn may_run(entry: &TreeEntry) -> bool {
    entry.mode & 0o111 != 0
}

impl Found {
    fn inventory(mut self) -> Inventory {
        if self.full {
            self.unread.insert("/".to_owned(), format!("more than {MAX_PACKAGES} packages are named in the image"));
        }
        let odd = self
            .odd
            .into_iter()
            .map(|(path, count)| (path.escape_debug().to_string(), format!("{count} entries are no packages")));
        let unread = self.unread.into_iter().chain(odd).map(|(path, why)| Unread { path, why });
        let mut unread: Vec<_> = unread.collect();
        unread.sort();
        Inventory { distro: self.distro, packages: self.packages.into_values().collect(), unread }
    }
}
