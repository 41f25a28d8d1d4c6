//! Which packages a recipe's lists come to: names, exact versions and files, resolved together.

use std::collections::BTreeMap;

use kiln_model::{
    Lock,
    lock::{self, LockedPackage, LockedSet, wanted, wanted_tools},
    recipe::{DebianBase, deb_file},
};

use super::{BakeRequest, Events, LockProblem, lock::archives};
use crate::debian::{
    self, Archives, Installed, Local, ResolveError,
    resolve::{Source, installed_from, resolve_among},
};

/// A lock of what the archives have now, beside what is installed already.
pub(super) fn fresh(
    request: &BakeRequest<'_>,
    base: &DebianBase,
    installed: &[Installed],
    events: Events<'_>,
) -> Result<Lock, LockProblem> {
    let locals = locals(request)?;
    let archives = archives(request, base, events)?;
    let resolver = Resolver { archives: &archives, locals: &locals };
    let unmet = |source| LockProblem::Resolve { suite: base.suite.clone(), source: Box::new(source) };
    let sets = resolver.sets(request, installed).map_err(unmet)?;
    let tools = resolver.tools(request).map_err(unmet)?;
    Ok(Lock {
        version: lock::VERSION,
        suite: None,
        over: None,
        oci: None,
        images: Vec::new(),
        archives: archives.locked(),
        sets,
        tools,
    })
}

/// The files that any list of the recipe names, each read once. They are read before the network is asked.
fn locals(request: &BakeRequest<'_>) -> Result<BTreeMap<String, Local>, LockProblem> {
    let files = wanted(request.recipe).into_iter().flatten().filter_map(|wanted| deb_file(wanted));
    let read = |path: &str| {
        let local = Local::read(request.directory, path).map_err(|source| LockProblem::Local(Box::new(source)))?;
        Ok((path.to_owned(), local))
    };
    files.map(read).collect()
}

struct Resolver<'a> {
    archives: &'a Archives,
    locals: &'a BTreeMap<String, Local>,
}

impl Resolver<'_> {
    /// Each list beside what the lists before it brought.
    fn sets(&self, request: &BakeRequest<'_>, installed: &[Installed]) -> Result<Vec<LockedSet>, ResolveError> {
        let (mut installed, mut sets) = (installed.to_vec(), Vec::new());
        for wanted in wanted(request.recipe) {
            let packages = self.set(&installed, wanted)?;
            installed.extend(installed_from(&self.sources(self.locals.values()), &packages));
            sets.push(LockedSet { wanted: wanted.to_vec(), packages: self.with_paths(packages) });
        }
        Ok(sets)
    }

    /// Each configuration tool in a tree of its own.
    fn tools(&self, request: &BakeRequest<'_>) -> Result<Vec<LockedSet>, ResolveError> {
        let tool = |wanted: &[&str]| {
            let wanted: Vec<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
            Ok(LockedSet { packages: self.set(&[], &wanted)?, wanted })
        };
        wanted_tools(request.recipe).into_iter().map(tool).collect()
    }

    fn set(&self, installed: &[Installed], wanted: &[String]) -> Result<Vec<LockedPackage>, ResolveError> {
        let mut named: BTreeMap<&str, &str> = BTreeMap::new();
        let mut words = Vec::new();
        let mut locals = Vec::new();
        for text in wanted {
            let local = deb_file(text).and_then(|path| self.locals.get(path));
            let name = local.map_or_else(|| text.split('=').next().unwrap_or(text), |local| local.name.as_str());
            if let Some(first) = named.insert(name, text) {
                let (name, first, second) = (name.to_owned(), first.to_owned(), text.clone());
                return Err(ResolveError::Twice { name, first, second });
            }
            // A file is its package in exactly its version.
            words.push(local.map_or_else(|| text.clone(), |local| format!("{}={}", local.name, local.version)));
            locals.extend(local);
        }
        resolve_among(&self.sources(locals.into_iter()), installed, &words)
    }

    /// Files first: of equal versions the solver takes the first.
    fn sources<'s>(&'s self, locals: impl Iterator<Item = &'s Local>) -> Vec<Source<'s>> {
        let of_files = locals.map(|local| Source { archive: lock::FILE, index: &local.index });
        let of_archives = self.archives.indexes().map(|(archive, index)| Source { archive: &archive.name, index });
        of_files.chain(of_archives).collect()
    }

    fn with_paths(&self, packages: Vec<LockedPackage>) -> Vec<LockedPackage> {
        let with_path = |package: LockedPackage| {
            let ours = |local: &&Local| package.is_file() && local.sha256 == package.sha256;
            let path = self.locals.values().find(ours).map(|local| local.path.clone());
            LockedPackage { filename: path.unwrap_or_else(|| package.filename.clone()), ..package }
        };
        packages.into_iter().map(with_path).collect()
    }
}

impl ResolveError {
    /// What to try.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            debian::ResolveError::NoSuchPackage { .. } | debian::ResolveError::Unmet { .. } => Some(
                "what the suite does not have comes from a repository (`[base.repository.NAME]`) or a file (`\"./FILE.deb\"` in \
                 `packages`)",
            ),
            debian::ResolveError::OtherVersionInstalled { .. } => Some(
                "packages of an image are not replaced: bake it anew with the version that is wanted, or start from another one",
            ),
            debian::ResolveError::Twice { .. } => Some("keep one of the two"),
            _ => None,
        }
    }
}
