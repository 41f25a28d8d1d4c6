//! The archives of a base: what they offer, read from verified indexes.
//!
//! A suite has up to three archives: the suite itself, its updates, and its security updates on their own mirror.
//! [`Archives::refresh`] asks each for its [release file](super::signed), accepts it as [`super::release`] says, and reads the package
//! indexes it names, under their hashes, from the cache where they are there. Where the network is away, the last
//! accepted files are taken, checked again, and a note is passed on.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kiln_model::{
    Digest,
    lock::LockedArchive,
    recipe::{DebianBase, Distribution, Layout},
};

use super::{
    Event, Events, Use,
    http::{Client, Expected, HttpError, Limits},
    index::{Index, IndexError, cache},
    keys::{Keyring, KeyringError},
    release::{IndexFile, Release, ReleaseError, Wanted},
    signed::Signed,
};

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The recipe's keyring.
    #[error("cannot use the keyring")]
    Keyring(#[from] KeyringError),
    /// The key of a repository.
    #[error("cannot use `key = \"{key}\"` of the repository `{name}`")]
    Key {
        /// The repository.
        name: String,
        /// The file.
        key: String,
        /// Why.
        #[source]
        source: Box<KeyringError>,
    },
    /// A repository has no signed release file.
    #[error("the repository {archive} is not signed: it has neither InRelease nor Release with Release.gpg")]
    Unsigned {
        /// Address and suite.
        archive: String,
    },
    /// A file could not be fetched.
    #[error("cannot fetch the index of {archive}")]
    Fetch {
        /// Mirror and suite.
        archive: String,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// The network is away, or may not be used, and the cache lacks something.
    #[error("{archive} cannot be reached and was never fetched before")]
    NotCached {
        /// Mirror and suite.
        archive: String,
        /// Why it cannot be reached; none where the network may not be used.
        #[source]
        source: Option<HttpError>,
    },
    /// The archive's release file is not accepted.
    #[error("{archive} is not accepted{}", by_its_key(key))]
    Release {
        /// Mirror and suite.
        archive: String,
        /// The file of keys that alone count for it, if it is a repository of the recipe.
        key: Option<String>,
        /// Why.
        #[source]
        source: ReleaseError,
    },
    /// A package index cannot be read.
    #[error("cannot read the package index {path} of {archive}")]
    Index {
        /// Mirror and suite.
        archive: String,
        /// Relative to the suite.
        path: String,
        /// Why.
        #[source]
        source: IndexError,
    },
    /// A package index cannot be unpacked, or is larger than its archive says.
    #[error("cannot unpack the package index {path} of {archive}")]
    Unpack {
        /// Mirror and suite.
        archive: String,
        /// Relative to the suite.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
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

fn by_its_key(key: &Option<String>) -> String {
    key.as_ref().map(|key| format!(" by `key = \"{key}\"`")).unwrap_or_default()
}

impl ArchiveError {
    /// What to try.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Release { source: ReleaseError::Signature(source), key: Some(_), .. } => {
                Some(source.help_of_repository())
            }
            Self::Release { source: ReleaseError::NoComponent { .. }, key: Some(_), .. } => {
                Some("write the `suite` and `components` that the vendor's own line for apt has")
            }
            Self::Release { source, .. } => Some(source.help()),
            Self::Unsigned { .. } => Some(
                "are `url` and `suite` right? The `suite` of a flat repository, one without `dists/`, ends with `/`. Nothing is installed \
                 from a repository that is not signed; its .deb files can be named themselves (`packages = [\"./app.deb\"]`), which are \
                 locked by their hash",
            ),
            Self::Fetch { source: HttpError::Status { status: 404, .. }, .. } => {
                Some("check `mirror` and the suite's code name under [base]")
            }
            Self::Fetch { .. } | Self::NotCached { .. } => {
                Some("check the network, the mirror's address and the proxy variables")
            }
            Self::Keyring(_) => Some("`keyring` names a file made by `gpg --export`, binary or armoured"),
            Self::Key { .. } => Some("`key` names the OpenPGP file that the vendor publishes, binary or armoured"),
            Self::Index { .. } | Self::Unpack { .. } | Self::Cache { .. } => None,
        }
    }
}

/// The contents of the files of keys that a recipe names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyFiles {
    /// `keyring`, in place of the keys shipped with Kiln.
    pub keyring: Option<Vec<u8>>,
    /// `key` of each repository, in their order.
    pub repositories: Vec<Vec<u8>>,
}

/// One archive of a base, verified.
#[derive(Debug)]
pub struct Archive {
    /// `main`, `updates`, `security`, or a repository's name: as a lock names it.
    pub name: String,
    /// Mirror address, without a trailing `/`.
    pub mirror: String,
    /// `bookworm`, `bookworm-updates`, `bookworm-security`; of a flat repository its path, ending with `/`.
    pub suite: String,
    /// `Date` of its release file.
    pub date: Timestamp,
    /// SHA-256 of the release file as fetched.
    pub release: Digest,
    /// Its packages, one index for each component (and architecture, where `all` has its own).
    pub indexes: Vec<Index>,
}

/// The archives of a base.
#[derive(Debug)]
pub struct Archives(pub Vec<Archive>);

/// Ten times bookworm's `main`.
const INDEX_LIMIT: u64 = 512 << 20;

impl Archives {
    /// Reads the archives of a base: from the network, or as they were last seen where it is away or not to be used.
    pub fn refresh(
        base: &DebianBase,
        keys: &KeyFiles,
        cache_dir: &Path,
        network: Use,
        now: Timestamp,
        events: Events<'_>,
    ) -> Result<Self, ArchiveError> {
        let own = keys.keyring.as_deref().map_or_else(|| Keyring::shipped(base.distribution), Keyring::parse)?;
        let of_repositories = base.repositories.iter().enumerate().map(|(at, repository)| {
            // Without a key of its own nothing is believed of it, whoever else signed it.
            let bytes = keys.repositories.get(at).map_or(&[][..], Vec::as_slice);
            let failed = |source| {
                let (name, key) = (repository.name.to_string(), repository.key.clone());
                ArchiveError::Key { name, key, source: Box::new(source) }
            };
            Ok((repository.name.to_string(), Keyring::parse(bytes).map_err(failed)?))
        });
        let reader = Reader {
            client: Client::new(Limits::default()),
            lists: cache_dir.join("lists"),
            distribution: base.distribution,
            keys: own,
            of_repositories: of_repositories.collect::<Result<_, ArchiveError>>()?,
            network,
            now,
            events,
        };
        fs::create_dir_all(&reader.lists).map_err(|source| reader.cache_error(&reader.lists, source))?;
        let places = places(base);
        std::thread::scope(|scope| {
            let reader = &reader;
            let running: Vec<_> = places.into_iter().map(|place| scope.spawn(move || reader.archive(place))).collect();
            running.into_iter().map(join).collect::<Result<_, _>>().map(Self)
        })
    }

    /// The archives' states, as a lock keeps them.
    pub fn locked(&self) -> Vec<LockedArchive> {
        let locked = |archive: &Archive| LockedArchive {
            name: archive.name.clone(),
            suite: archive.suite.clone(),
            date: archive.date,
            in_release: archive.release,
        };
        self.0.iter().map(locked).collect()
    }

    /// Every index, most important archive first.
    pub fn indexes(&self) -> impl Iterator<Item = (&Archive, &Index)> {
        self.0.iter().flat_map(|archive| archive.indexes.iter().map(move |index| (archive, index)))
    }
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The archives of a base, then its repositories: where they are and what a lock calls them.
pub(super) fn places(base: &DebianBase) -> Vec<Place> {
    let place = |name: &str, mirror: &str, suite| Place {
        name: name.to_owned(),
        mirror: mirror.trim_end_matches('/').to_owned(),
        layout: Layout::Suite { suite, components: base.components.clone() },
        key: None,
    };
    let mut places = vec![place("main", &base.mirror, base.suite.clone())];
    if has_updates(&base.suite) {
        places.push(place("updates", &base.mirror, format!("{}-updates", base.suite)));
        let security = base.security_mirror.as_deref();
        places.extend(security.map(|mirror| place("security", mirror, format!("{}-security", base.suite))));
    }
    places.extend(base.repositories.iter().map(|repository| Place {
        name: repository.name.to_string(),
        mirror: repository.url.trim_end_matches('/').to_owned(),
        layout: repository.layout.clone(),
        key: Some(repository.key.clone()),
    }));
    places
}

/// `sid` and `experimental` are updated in place.
fn has_updates(suite: &str) -> bool {
    !matches!(suite, "sid" | "unstable" | "experimental")
}

struct Reader<'a> {
    client: Client,
    lists: PathBuf,
    distribution: Distribution,
    keys: Keyring,
    /// The keys of each repository, by its name.
    of_repositories: BTreeMap<String, Keyring>,
    network: Use,
    now: Timestamp,
    events: Events<'a>,
}

/// Where one archive is, for addresses and messages.
pub(super) struct Place {
    pub name: String,
    pub mirror: String,
    layout: Layout,
    /// The file of a repository's keys.
    key: Option<String>,
}

impl Place {
    fn url(&self, path: &str) -> String {
        format!("{}/{}{path}", self.mirror, self.layout.directory())
    }
}
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.mirror, self.layout)
    }
}

impl Reader<'_> {
    fn archive(&self, place: Place) -> Result<Archive, ArchiveError> {
        let (signed, release) = self.release(&place)?;
        let files = match &place.layout {
            Layout::Suite { components, .. } => {
                let files: Result<Vec<_>, _> = components.iter().map(|name| release.package_indexes(name)).collect();
                files.map(|files| files.concat())
            }
            Layout::Flat { .. } => release.flat_index().map(|file| vec![file]),
        };
        let files = files.map_err(|source| refused(&place, source))?;
        let indexes = files.iter().map(|file| self.index(&place, &release, file)).collect::<Result<_, _>>()?;
        let suite = place.layout.to_string();
        let Place { name, mirror, .. } = place;
        Ok(Archive { name, mirror, suite, date: release.date, release: signed.digest(), indexes })
    }

    /// The accepted release file: the mirror's, or the cached one where the mirror is away or behind it.
    fn release(&self, place: &Place) -> Result<(Signed, Release), ArchiveError> {
        let path = self.lists.join(format!("{}.InRelease", Digest::of(place.url("").as_bytes()).short()));
        let cached = || fs::read(&path).ok().map(Signed::from_bytes);
        let fetched = match self.network {
            Use::Network => Signed::fetch(&self.client, &place.url("")),
            Use::CacheOnly => return self.cached_release(place, cached(), None),
        };
        let signed = match fetched {
            Err(HttpError::Status { status: 404 | 410, .. }) if place.key.is_some() => {
                return Err(ArchiveError::Unsigned { archive: place.to_string() });
            }
            Err(error) if error.is_away() => return self.cached_release(place, cached(), Some(error)),
            Err(source) => return Err(ArchiveError::Fetch { archive: place.to_string(), source }),
            Ok(signed) => signed,
        };
        let release = self.open(&signed, place).map_err(|source| refused(place, source))?;
        if let Some(older) = cached() {
            if older == signed {
                return Ok((signed, release));
            }
            if let Ok(seen) = self.open(&older, place)
                && seen.date > release.date
            {
                return Ok((older, seen));
            }
        }
        write_whole(&path, &signed.to_bytes()).map_err(|source| self.cache_error(&path, source))?;
        Ok((signed, release))
    }

    fn open(&self, signed: &Signed, place: &Place) -> Result<Release, ReleaseError> {
        // Others name their suites as Debian does, by role or by code name.
        let (keys, naming) = match self.of_repositories.get(&place.name) {
            Some(keys) => (keys, Distribution::Debian),
            None => (&self.keys, self.distribution),
        };
        let wanted = match &place.layout {
            Layout::Suite { suite, .. } => Wanted::Suite(naming, suite),
            Layout::Flat { .. } => Wanted::Any,
        };
        Release::open(signed, wanted, keys, self.now)
    }

    fn cached_release(
        &self,
        place: &Place,
        cached: Option<Signed>,
        source: Option<HttpError>,
    ) -> Result<(Signed, Release), ArchiveError> {
        let Some(signed) = cached else {
            return Err(ArchiveError::NotCached { archive: place.to_string(), source });
        };
        let release = self.open(&signed, place).map_err(|e| refused(place, e))?;
        if let Some(reason) = source {
            (self.events)(Event::Away { archive: place.to_string(), since: release.date, reason: reason.to_string() });
        }
        Ok((signed, release))
    }

    fn index(&self, place: &Place, release: &Release, file: &IndexFile) -> Result<Index, ArchiveError> {
        let compact = self.lists.join(format!("{}.index", file.digest.hex()));
        if let Some(index) = cache::load(&compact) {
            return Ok(index);
        }
        if self.network == Use::CacheOnly {
            return Err(ArchiveError::NotCached { archive: place.to_string(), source: None });
        }
        // Pockets can have the same index, and two bakes want the same one: the second finds it.
        let lock = compact.with_extension("lock");
        let alone = alone(&lock).map_err(|source| self.cache_error(&lock, source))?;
        if let Some(index) = cache::load(&compact) {
            return Ok(index);
        }
        let packed = self.fetch_index(place, release, file)?;
        let text = unpack(&packed, file).map_err(|source| ArchiveError::Unpack {
            archive: place.to_string(),
            path: file.path.clone(),
            source,
        })?;
        let index = Index::parse(&text).map_err(|source| ArchiveError::Index {
            archive: place.to_string(),
            path: file.path.clone(),
            source,
        })?;
        cache::store(&compact, &index).map_err(|source| self.cache_error(&compact, source))?;
        fs::remove_file(&lock).map_err(|source| self.cache_error(&lock, source))?;
        drop(alone);
        Ok(index)
    }

    fn fetch_index(&self, place: &Place, release: &Release, file: &IndexFile) -> Result<Vec<u8>, ArchiveError> {
        let failed = |source| ArchiveError::Fetch { archive: place.to_string(), source };
        let directory = file.path.rfind('/').map_or("", |end| &file.path[..=end]);
        let url = match release.by_hash() {
            true => place.url(&format!("{directory}by-hash/SHA256/{}", file.digest.hex())),
            false => place.url(&file.path),
        };
        if file.size > INDEX_LIMIT || file.unpacked > INDEX_LIMIT {
            return Err(failed(HttpError::TooLarge { url, limit: INDEX_LIMIT }));
        }
        let path = self.lists.join(file.digest.hex());
        let total = file.size;
        (self.events)(Event::Index { archive: place.to_string(), path: file.path.clone(), size: total });
        let expected = Expected { size: file.size, digest: file.digest };
        self.client.download(&url, &path, expected, &|_| ()).map_err(failed)?;
        let bytes = fs::read(&path).and_then(|bytes| fs::remove_file(&path).map(|()| bytes));
        bytes.map_err(|source| self.cache_error(&path, source))
    }

    fn cache_error(&self, path: &Path, source: io::Error) -> ArchiveError {
        ArchiveError::Cache { path: path.to_owned(), source }
    }
}

/// Waits until nobody else holds the file. Whoever held it may have removed it.
fn alone(path: &Path) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
    Ok(file)
}

fn refused(place: &Place, source: ReleaseError) -> ArchiveError {
    ArchiveError::Release { archive: place.to_string(), key: place.key.clone(), source }
}

/// Unpacks an index to at most the size its archive names.
fn unpack(packed: &[u8], file: &IndexFile) -> io::Result<Vec<u8>> {
    use io::Read;
    let reader: Box<dyn Read + '_> = match file.path.rsplit_once('.') {
        Some((_, "xz")) => Box::new(super::deb::unxz(packed)?),
        Some((_, "gz")) => Box::new(flate2::read::MultiGzDecoder::new(packed)),
        _ => Box::new(packed),
    };
    let mut text = Vec::with_capacity(file.unpacked as usize);
    reader.take(file.unpacked + 1).read_to_end(&mut text)?;
    if text.len() as u64 > file.unpacked {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it unpacks to more than its archive says"));
    }
    Ok(text)
}

/// Writes a file so that readers see the old one or the whole new one.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    io::Write::write_all(&mut file, bytes)?;
    file.persist(path)?;
    Ok(())
}
