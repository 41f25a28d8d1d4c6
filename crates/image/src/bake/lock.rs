//! `kiln.lock` beside the recipe: which packages a bake takes, and when the archive said so.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use kiln_model::{
    Lock, Recipe,
    lock::{LockedSet, wanted, wanted_tools},
    recipe::{Base, DebianBase},
};

use super::{BakeError, BakeEvent, BakeRequest, Events, LockMode};
use crate::debian::{self, Archives, Use};

/// The file's name, in the recipe's directory.
pub const FILE: &str = "kiln.lock";

/// Why there is no lock to bake with.
#[derive(Debug, thiserror::Error)]
pub enum LockProblem {
    /// The file cannot be read or written.
    #[error("failed to {action} {}", .path.display())]
    File {
        /// `read`, `write`.
        action: &'static str,
        /// The lock or the keyring.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not a lock.
    #[error("{} is no lock; `kiln lock --update` writes a new one", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<kiln_model::lock::LockError>,
    },
    /// It must be there and is not.
    #[error("there is no {}; `kiln lock` writes it", .0.display())]
    Missing(PathBuf),
    /// It must be the recipe's and is not.
    #[error("{} is not for this recipe; `kiln lock` refreshes it", .path.display())]
    Stale {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: kiln_model::lock::Stale,
    },
    /// The archives cannot be read.
    #[error("the packages of {suite} are not known")]
    Archives {
        /// The suite.
        suite: String,
        /// Why.
        #[source]
        source: Box<debian::ArchiveError>,
    },
    /// There is no such set of packages.
    #[error("the packages of {suite} cannot be installed as the recipe wants them")]
    Resolve {
        /// The suite.
        suite: String,
        /// Why.
        #[source]
        source: Box<debian::ResolveError>,
    },
}

/// The lock of a recipe over a Debian base, read or made and written; other bases have none.
pub fn lock(request: &BakeRequest<'_>, events: Events<'_>) -> Result<Option<Lock>, BakeError> {
    match &request.recipe.base {
        Base::Debian(base) => lock_of(request, base, events).map(Some),
        Base::Oci(base) => super::oci::open(request, base, events).map(|(_, lock)| Some(lock)),
        Base::Containerfile(base) => super::containerfile::lock(request, base, events).map(|(_, lock)| lock),
        Base::Image(_) => Ok(None),
    }
}

/// The lock of a recipe over this base.
pub(super) fn lock_of(request: &BakeRequest<'_>, base: &DebianBase, events: Events<'_>) -> Result<Lock, BakeError> {
    if let Some(lock) = usable(request, events)? {
        return Ok(lock);
    }
    let lock = resolve(request, base, events)?;
    write_lock(request, &lock)?;
    Ok(lock)
}

/// The lock that is there, if it is to be used and is the recipe's.
pub(super) fn usable(request: &BakeRequest<'_>, events: Events<'_>) -> Result<Option<Lock>, LockProblem> {
    let path = request.directory.join(FILE);
    let found = read(&path)?;
    match (request.lock, found) {
        (LockMode::Use | LockMode::Frozen, Some(lock)) => match lock.fits(request.recipe) {
            Ok(()) => return Ok(Some(lock)),
            Err(source) if request.lock == LockMode::Frozen => return Err(LockProblem::Stale { path, source }),
            Err(stale) => events(BakeEvent::Warning(format!("{FILE} is written anew: {stale}"))),
        },
        (LockMode::Frozen, None) => return Err(LockProblem::Missing(path)),
        (LockMode::Use | LockMode::Update, _) => {}
    }
    Ok(None)
}

pub(super) fn write_lock(request: &BakeRequest<'_>, lock: &Lock) -> Result<(), LockProblem> {
    let path = request.directory.join(FILE);
    write(&path, &lock.render()).map_err(|source| LockProblem::File { action: "write", path, source })
}

fn read(path: &Path) -> Result<Option<Lock>, LockProblem> {
    let text = match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|source| LockProblem::File { action: "read", path: path.to_owned(), source })?,
    };
    Lock::parse(&text)
        .map(Some)
        .map_err(|source| LockProblem::Parse { path: path.to_owned(), source: Box::new(source) })
}

fn resolve(request: &BakeRequest<'_>, base: &DebianBase, events: Events<'_>) -> Result<Lock, LockProblem> {
    let suite = || base.suite.clone();
    let keyring = keyring(request.directory, base)?;
    let forward = |event| events(BakeEvent::Debian(event));
    let archives = Archives::refresh(base, keyring.as_deref(), request.cache, network(request), request.now, &forward)
        .map_err(|source| LockProblem::Archives { suite: suite(), source: Box::new(source) })?;
    let sets = resolve_sets(&archives, request.recipe)
        .map_err(|source| LockProblem::Resolve { suite: suite(), source: Box::new(source) })?;
    let tools = resolve_tools(&archives, request.recipe)
        .map_err(|source| LockProblem::Resolve { suite: suite(), source: Box::new(source) })?;
    let version = kiln_model::lock::VERSION;
    let archives = archives.locked();
    Ok(Lock { version, suite: Some(suite()), oci: None, images: Vec::new(), archives, sets, tools })
}

/// Each list beside what the lists before it brought.
fn resolve_sets(archives: &Archives, recipe: &Recipe) -> Result<Vec<LockedSet>, debian::ResolveError> {
    let (mut installed, mut sets) = (Vec::new(), Vec::new());
    for wanted in wanted(recipe) {
        let packages = debian::resolve(archives, &installed, wanted)?;
        installed.extend(debian::installed_from(archives, &packages));
        sets.push(LockedSet { wanted: wanted.to_vec(), packages });
    }
    Ok(sets)
}

/// Each tool in a tree of its own.
fn resolve_tools(archives: &Archives, recipe: &Recipe) -> Result<Vec<LockedSet>, debian::ResolveError> {
    let tool = |wanted: &[&str]| {
        let wanted: Vec<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
        Ok(LockedSet { packages: debian::resolve(archives, &[], &wanted)?, wanted })
    };
    wanted_tools(recipe).into_iter().map(tool).collect()
}

fn keyring(directory: &Path, base: &DebianBase) -> Result<Option<Vec<u8>>, LockProblem> {
    let Some(keyring) = &base.keyring else { return Ok(None) };
    let path = directory.join(keyring);
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) => Err(LockProblem::File { action: "read", path, source }),
    }
}

pub(super) fn network(request: &BakeRequest<'_>) -> Use {
    if request.offline { Use::CacheOnly } else { Use::Network }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".kiln.lock-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
