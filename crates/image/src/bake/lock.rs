//! `kiln.lock` beside the recipe: which packages a bake takes, and when the archive said so.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use kiln_model::{
    Digest, Lock,
    lock::{Stale, wanted},
    recipe::{Base, DebianBase},
};

use super::{BakeError, BakeEvent, BakeRequest, Events, LockMode, over, resolve};
use crate::{
    debian::{self, Archives, KeyFiles, Use},
    store::Store,
};

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
    /// A package's file beside the recipe cannot be installed.
    #[error("a package of the recipe cannot be installed")]
    Local(#[source] Box<debian::LocalError>),
    /// The tree of the base does not say which archive its packages come from.
    #[error("packages cannot be installed over {base}: {reason}")]
    NoArchive {
        /// The base, as the recipe names it.
        base: String,
        /// Why not.
        reason: String,
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

impl LockProblem {
    /// What to try.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Archives { source, .. } => source.help(),
            Self::Local(source) => source.help(),
            Self::NoArchive { .. } => Some(
                "packages go over images of Debian and Ubuntu, whose /etc/os-release and dpkg database say what they are; others \
                 have their own tools, in a `run` step",
            ),
            Self::Resolve { source, .. } => source.help(),
            _ => None,
        }
    }
}

/// The lock of a recipe, read or made and written; there is none where nothing is to be locked.
pub fn lock(request: &BakeRequest<'_>, store: &Store, events: Events<'_>) -> Result<Option<Lock>, BakeError> {
    let packages = !wanted(request.recipe).is_empty();
    match &request.recipe.base {
        Base::Debian(base) => lock_of(request, base, events).map(Some),
        Base::Oci(_) | Base::Image(_) if packages => over::lock(request, store, events),
        Base::Oci(base) => super::oci::open(request, base, events).map(|(_, lock)| Some(lock)),
        Base::Containerfile(base) => super::containerfile::lock(request, base, events).map(|(_, lock)| lock),
        Base::Image(_) => Ok(None),
    }
}

/// The lock of a recipe over this base.
pub(super) fn lock_of(request: &BakeRequest<'_>, base: &DebianBase, events: Events<'_>) -> Result<Lock, BakeError> {
    if let Some(lock) = usable(request, None, events)? {
        return Ok(lock);
    }
    let lock = Lock { suite: Some(base.suite.clone()), ..resolve::fresh(request, base, &[], events)? };
    write_lock(request, &lock)?;
    Ok(lock)
}

/// The lock that is there, if it is to be used and is the recipe's: `over` is the image of this host that packages go over.
pub(super) fn usable(
    request: &BakeRequest<'_>,
    over: Option<Digest>,
    events: Events<'_>,
) -> Result<Option<Lock>, LockProblem> {
    let path = request.directory.join(FILE);
    let found = read(&path)?;
    match (request.lock, found) {
        (LockMode::Use | LockMode::Frozen, Some(lock)) => match fits(request, &lock, over)? {
            Ok(()) => return Ok(Some(lock)),
            Err(source) if request.lock == LockMode::Frozen => return Err(LockProblem::Stale { path, source }),
            Err(stale) => events(BakeEvent::Warning(format!("{FILE} is written anew: {stale}"))),
        },
        (LockMode::Frozen, None) => return Err(LockProblem::Missing(path)),
        (LockMode::Use | LockMode::Update, _) => {}
    }
    Ok(None)
}

/// Whether the lock is the recipe's, and the files beside it are those that were locked.
fn fits(request: &BakeRequest<'_>, lock: &Lock, over: Option<Digest>) -> Result<Result<(), Stale>, LockProblem> {
    if let Err(stale) = lock.fits(request.recipe) {
        return Ok(Err(stale));
    }
    if lock.over != over {
        let shown = |image: Option<Digest>| image.map_or("no image of this host".to_owned(), |image| image.to_string());
        return Ok(Err(Stale::Base { locked: shown(lock.over), wanted: shown(over) }));
    }
    for package in lock.files() {
        let (size, found) = debian::local::digest(request.directory, &package.filename)
            .map_err(|source| LockProblem::Local(Box::new(source)))?;
        if (size, found) != (package.size, package.sha256) {
            let said = |size: u64, digest: Digest| format!("{size} bytes, {digest}");
            let (locked, found) = (said(package.size, package.sha256), said(size, found));
            return Ok(Err(Stale::File { path: format!("./{}", package.filename), locked, found }));
        }
    }
    Ok(Ok(()))
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

/// What the archives of a base offer.
pub(super) fn archives(
    request: &BakeRequest<'_>,
    base: &DebianBase,
    events: Events<'_>,
) -> Result<Archives, LockProblem> {
    let keys = KeyFiles {
        keyring: base.keyring.as_deref().map(|path| key_file(request.directory, path)).transpose()?,
        repositories: base
            .repositories
            .iter()
            .map(|repository| key_file(request.directory, &repository.key))
            .collect::<Result<_, _>>()?,
    };
    let forward = |event| events(BakeEvent::Debian(event));
    Archives::refresh(base, &keys, request.cache, network(request), request.now, &forward)
        .map_err(|source| LockProblem::Archives { suite: base.suite.clone(), source: Box::new(source) })
}

fn key_file(directory: &Path, path: &str) -> Result<Vec<u8>, LockProblem> {
    let path = directory.join(path);
    fs::read(&path).map_err(|source| LockProblem::File { action: "read", path, source })
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
