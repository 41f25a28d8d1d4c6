//! Which packages to install: the essential ones, the wanted ones, and everything these depend on.
//!
//! `Recommends` are not followed. Every package is taken in its newest version over all archives, unless the recipe
//! pins it (`name=version`). Of alternatives, one that is already chosen wins, else the first that can be had; of the
//! packages that provide a virtual one, the essential and then the one of the highest priority, as in apt. The result is
//! a function of its arguments alone, sorted by name.

use std::collections::BTreeMap;

use kiln_model::{Digest, lock::LockedPackage};

use super::{
    archive::Archives,
    index::{Index, MultiArch, Package},
};

mod near;
mod solver;

/// Why no set of packages could be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Neither a package nor a virtual package of this name.
    #[error("there is no package `{name}`{}{}", needed(needed_by), near::suggest(near))]
    NoSuchPackage {
        /// The name.
        name: String,
        /// Who needs it, from the recipe's package on; empty for the recipe itself.
        needed_by: Vec<String>,
        /// Names that look like it.
        near: Vec<String>,
    },
    /// The package exists, this version does not.
    #[error("there is no version `{version}` of package `{name}`; the archives have {}", available.join(", "))]
    NoSuchVersion {
        /// The name.
        name: String,
        /// The version the recipe pins.
        version: String,
        /// The versions there are, newest first.
        available: Vec<String>,
    },
    /// A name that several packages provide, and none has.
    #[error("`{name}` is provided by several packages; name one of {}", providers.join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// The packages that provide it.
        providers: Vec<String>,
    },
    /// A dependency that nothing meets.
    #[error("`{relation}` cannot be met{}: {reason}", needed(needed_by))]
    Unmet {
        /// The dependency, as written.
        relation: String,
        /// Who needs it, from the recipe's package on.
        needed_by: Vec<String>,
        /// Why each alternative fails.
        reason: String,
    },
    /// Two packages of the set exclude each other.
    #[error(
        "package `{package}`{} excludes `{other}`{}: its archive says `{relation}`",
        needed(needed_by),
        needed(other_needed_by)
    )]
    Conflict {
        /// Who excludes.
        package: String,
        /// Why it is in the set.
        needed_by: Vec<String>,
        /// Who is excluded.
        other: String,
        /// Why it is in the set.
        other_needed_by: Vec<String>,
        /// The relation.
        relation: String,
    },
    /// A wanted package is there in another version, and an image's packages are not replaced in a later step.
    #[error(
        "package `{name}` is already there in version {installed}, and version {wanted} is wanted{}",
        needed(needed_by)
    )]
    OtherVersionInstalled {
        /// The name.
        name: String,
        /// Version in the tree.
        installed: String,
        /// Version or limit wanted.
        wanted: String,
        /// Who wants it.
        needed_by: Vec<String>,
    },
    /// Two words of one list mean the same package.
    #[error("`{first}` and `{second}` are the same package, `{name}`")]
    Twice {
        /// The package.
        name: String,
        /// One of them, as the recipe has it.
        first: String,
        /// The other.
        second: String,
    },
    /// Not a package name.
    #[error("`{0}` is not a package name: write `name` or `name=version`")]
    InvalidName(String),
}

fn needed(by: &[String]) -> String {
    if by.is_empty() { String::new() } else { format!(" (needed by {})", by.join(" → ")) }
}

/// A package that is in the tree already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `Provides`
    pub provides: String,
    /// `Conflicts`
    pub conflicts: String,
    /// `Breaks`
    pub breaks: String,
    /// `Multi-Arch`
    pub multi_arch: MultiArch,
}

impl From<Package<'_>> for Installed {
    fn from(package: Package<'_>) -> Self {
        Self {
            name: package.name().to_owned(),
            version: package.version().to_owned(),
            provides: package.provides().to_owned(),
            conflicts: package.conflicts().to_owned(),
            breaks: package.breaks().to_owned(),
            multi_arch: package.multi_arch(),
        }
    }
}

/// Finds the packages to install beside those that are installed already. With nothing installed, the essential ones
/// are among them.
pub fn resolve(
    archives: &Archives,
    installed: &[Installed],
    wanted: &[String],
) -> Result<Vec<LockedPackage>, ResolveError> {
    let sources: Vec<Source<'_>> =
        archives.indexes().map(|(archive, index)| Source { archive: &archive.name, index }).collect();
    resolve_among(&sources, installed, wanted)
}

/// An index and the name of the archive that a lock shall say it comes from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// `main`, `updates`, `security`, a repository's name, or that of a file.
    pub archive: &'a str,
    /// Its packages.
    pub index: &'a Index,
}

/// [`resolve`] on plain indexes.
pub fn resolve_among(
    sources: &[Source<'_>],
    installed: &[Installed],
    wanted: &[String],
) -> Result<Vec<LockedPackage>, ResolveError> {
    let mut pins = BTreeMap::new();
    let mut names = Vec::new();
    for text in wanted {
        let (name, version) = read_wanted(text)?;
        names.push(name);
        pins.extend(version.map(|version| (name, version)));
    }
    solver::Solver::new(sources, installed, pins).solve(&names)
}

/// The resolved packages of a set as they will be when installed: for resolving a later step's packages beside them.
pub fn installed_from(sources: &[Source<'_>], set: &[LockedPackage]) -> Vec<Installed> {
    let find = |locked: &LockedPackage| {
        let mut versions = sources.iter().flat_map(|source| source.index.named(&locked.name));
        versions.find(|package| package.version() == locked.version).map(Installed::from)
    };
    set.iter().map(|locked| find(locked).unwrap_or_else(|| bare(locked))).collect()
}

/// A locked version that the archives no longer have: its relations are unknown.
fn bare(locked: &LockedPackage) -> Installed {
    let none = String::new;
    let (name, version) = (locked.name.clone(), locked.version.clone());
    Installed { name, version, provides: none(), conflicts: none(), breaks: none(), multi_arch: MultiArch::No }
}

fn read_wanted(text: &str) -> Result<(&str, Option<&str>), ResolveError> {
    let (name, version) = match text.split_once('=') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    let name = name.strip_suffix(":amd64").unwrap_or(name);
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    let good = name.len() >= 2 && name.chars().all(valid) && version.is_none_or(|version| !version.is_empty());
    if good { Ok((name, version)) } else { Err(ResolveError::InvalidName(text.to_owned())) }
}

fn locked(archive: &str, package: Package<'_>) -> LockedPackage {
    LockedPackage {
        name: package.name().to_owned(),
        version: package.version().to_owned(),
        architecture: package.architecture().to_owned(),
        archive: archive.to_owned(),
        filename: package.filename().to_owned(),
        size: package.size(),
        sha256: Digest::from_bytes(package.sha256()),
    }
}

#[cfg(test)]
mod tests;
