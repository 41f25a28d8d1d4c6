//! Packages into the cache: in parallel, each named by its hash there, none under its name before the hash fits.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use kiln_model::{Digest, lock::LockedPackage, recipe::DebianBase};

use super::{
    Event, Events, Progress, Use, archive,
    http::{Client, Expected, HttpError, Limits},
};

/// Why packages could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The mirror has another file under the package's name.
    #[error(
        "the mirror serves a wrong file for package `{package}`: {url} has {actual}, its signed index says {expected}"
    )]
    WrongHash {
        /// Name and version.
        package: String,
        /// Address.
        url: String,
        /// As locked.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The mirror no longer has this version.
    #[error("the mirror no longer has package `{package}` ({url} answered {status})")]
    Vanished {
        /// Name and version.
        package: String,
        /// Address.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// The transfer failed.
    #[error("cannot fetch package `{package}`")]
    Transfer {
        /// Name and version.
        package: String,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// The network may not be used and the package is not in the cache.
    #[error("package `{package}` is not in the cache, and the network may not be used")]
    NotCached {
        /// Name and version.
        package: String,
    },
    /// The lock names an archive that the base does not have.
    #[error("package `{package}` comes from the archive `{archive}`, and the base has none of that name")]
    NoArchive {
        /// Name and version.
        package: String,
        /// As locked.
        archive: String,
    },
    /// The cache directory.
    #[error("cannot use the cache at {}", path.display())]
    Cache {
        /// File or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl FetchError {
    /// What to try.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Vanished { .. } => {
                Some("the archive has moved on since the lock was written: run `kiln lock --update`")
            }
            Self::WrongHash { .. } => Some("use another mirror; nothing of the wrong file was kept"),
            Self::Transfer { .. } => Some("check the network, the mirror's address and the proxy variables"),
            Self::NotCached { .. } => Some("bake once with the network to fill the cache"),
            Self::NoArchive { .. } => {
                Some("the lock was made with a `security_mirror` or a repository: set it, or run `kiln lock --update`")
            }
            Self::Cache { .. } => None,
        }
    }
}

/// Transfers at the same time.
const PARALLEL: usize = 8;

/// Brings packages into the cache, and gives their files in the order of the packages.
///
/// A file in the cache has been checked when it came, and is taken by its size; the store's own checks begin when its
/// content is unpacked.
pub fn fetch(
    packages: &[LockedPackage],
    base: &DebianBase,
    cache_dir: &Path,
    network: Use,
    events: Events<'_>,
) -> Result<Vec<PathBuf>, FetchError> {
    fetch_within(packages, base, cache_dir, network, Limits::default(), events)
}

/// [`fetch`] with other time limits.
pub fn fetch_within(
    packages: &[LockedPackage],
    base: &DebianBase,
    cache_dir: &Path,
    network: Use,
    limits: Limits,
    events: Events<'_>,
) -> Result<Vec<PathBuf>, FetchError> {
    let pool = pool(cache_dir);
    fs::create_dir_all(&pool).map_err(|source| FetchError::Cache { path: pool.clone(), source })?;
    let paths: Vec<PathBuf> = packages.iter().map(|package| place(&pool, package)).collect();
    let missing: Vec<(&LockedPackage, &Path)> = packages
        .iter()
        .zip(&paths)
        .filter(|(package, path)| !is_there(package, path))
        .map(|(package, path)| (package, path.as_path()))
        .collect();
    if network == Use::CacheOnly
        && let Some((package, _)) = missing.first()
    {
        return Err(FetchError::NotCached { package: label(package) });
    }
    if !missing.is_empty() {
        Transfers::new(&missing, base, limits, events)?.run()?;
    }
    Ok(paths)
}

/// Where packages are kept.
pub(super) fn pool(cache_dir: &Path) -> PathBuf {
    cache_dir.join("pool")
}

/// A package's place among them.
pub(super) fn place(pool: &Path, package: &LockedPackage) -> PathBuf {
    pool.join(format!("{}.deb", package.sha256.hex()))
}

pub(super) fn is_there(package: &LockedPackage, path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.len() == package.size)
}

fn label(package: &LockedPackage) -> String {
    format!("{} {}", package.name, package.version)
}

struct Transfers<'a> {
    client: Client,
    /// Package, its address and its place in the cache.
    work: Vec<(&'a LockedPackage, String, &'a Path)>,
    next: AtomicUsize,
    stopped: AtomicBool,
    failure: Mutex<Option<FetchError>>,
    files: AtomicUsize,
    bytes: AtomicU64,
    bytes_total: u64,
    events: Events<'a>,
}

impl<'a> Transfers<'a> {
    fn new(
        missing: &[(&'a LockedPackage, &'a Path)],
        base: &DebianBase,
        limits: Limits,
        events: Events<'a>,
    ) -> Result<Self, FetchError> {
        let places = archive::places(base);
        let work: Result<Vec<_>, FetchError> = missing
            .iter()
            .map(|(package, path)| {
                let place = places.iter().find(|place| place.name == package.archive);
                let place = place.ok_or_else(|| FetchError::NoArchive {
                    package: label(package),
                    archive: package.archive.clone(),
                })?;
                Ok((*package, format!("{}/{}", place.mirror, address_of(&package.filename)), *path))
            })
            .collect();
        Ok(Self {
            client: Client::new(limits),
            work: work?,
            next: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            failure: Mutex::new(None),
            files: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            bytes_total: missing.iter().map(|(package, _)| package.size).sum(),
            events,
        })
    }

    fn run(self) -> Result<(), FetchError> {
        self.report();
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL.min(self.work.len()) {
                scope.spawn(|| self.work_off());
            }
        });
        match self.failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// One transfer after the other, until there are none left or one of any thread failed.
    fn work_off(&self) {
        while !self.stopped.load(Ordering::Relaxed) {
            let Some((package, url, path)) = self.work.get(self.next.fetch_add(1, Ordering::Relaxed)) else { return };
            match self.transfer(package, url, path) {
                Ok(()) => {
                    self.files.fetch_add(1, Ordering::Relaxed);
                    self.report();
                }
                Err(error) => self.fail(error),
            }
        }
    }

    fn transfer(&self, package: &LockedPackage, url: &str, path: &Path) -> Result<(), FetchError> {
        let expected = Expected { size: package.size, digest: package.sha256 };
        let progress = |bytes| {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.report();
        };
        self.client.download(url, path, expected, &progress).map_err(|error| match error {
            HttpError::WrongHash { url, expected, actual } => {
                FetchError::WrongHash { package: label(package), url, expected, actual }
            }
            HttpError::Status { url, status: status @ (404 | 410) } => {
                FetchError::Vanished { package: label(package), url, status }
            }
            source => FetchError::Transfer { package: label(package), source },
        })
    }

    /// The first failure is the one told; the other transfers end after their current file.
    fn fail(&self, error: FetchError) {
        self.stopped.store(true, Ordering::Relaxed);
        let mut failure = self.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        failure.get_or_insert(error);
    }

    fn report(&self) {
        (self.events)(Event::Fetch(Progress {
            files: self.files.load(Ordering::Relaxed),
            files_total: self.work.len(),
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_total: self.bytes_total,
        }));
    }
}

/// A file's path as part of an address: `+`, `~` and `:` are legal there, `%` and the rest of them are not.
fn address_of(filename: &str) -> String {
    filename.replace('%', "%25")
}
