//! Packages that are files beside the recipe: read like those of an archive, and resolved together with them.
//!
//! What a file says of itself becomes an index of its own ([`Local::index`]), which the solver prefers where its version is asked
//! for. Before it is installed, the file is taken into the cache under its hash like any other package, so that what is unpacked is
//! what was locked.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use kiln_model::{Digest, lock::LockedPackage};
use sha2::{Digest as _, Sha256};

use super::{
    ARCHITECTURE,
    deb::{Deb, DebError},
    fetch,
    index::{Index, IndexError},
    is_ours,
};

/// A larger file is no package that Kiln installs, bytes.
const SIZE_LIMIT: u64 = 8 << 30;
/// The fields that the solver looks at.
const FIELDS: [&str; 11] = [
    "Package",
    "Version",
    "Architecture",
    "Depends",
    "Pre-Depends",
    "Provides",
    "Conflicts",
    "Breaks",
    "Essential",
    "Multi-Arch",
    "Priority",
];

/// Why a package's file cannot be installed.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// It cannot be read.
    #[error("cannot read the package ./{path}")]
    Read {
        /// Relative to the recipe.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is larger than any package.
    #[error("the package ./{path} has {size} bytes; at most {SIZE_LIMIT} are read")]
    TooLarge {
        /// Relative to the recipe.
        path: String,
        /// Bytes.
        size: u64,
    },
    /// It is not a package.
    #[error("./{path} cannot be installed")]
    Deb {
        /// Relative to the recipe.
        path: String,
        /// Why.
        #[source]
        source: DebError,
    },
    /// It is for other machines.
    #[error("./{path} is a package for {architecture}, and images are for {ARCHITECTURE}")]
    Architecture {
        /// Relative to the recipe.
        path: String,
        /// What it is for.
        architecture: String,
    },
    /// Its relations cannot be read.
    #[error("./{path} cannot be installed")]
    Index {
        /// Relative to the recipe.
        path: String,
        /// Why.
        #[source]
        source: IndexError,
    },
    /// It is not the file that was locked.
    #[error("./{path} is not the file that was locked: it has {found}, the lock {locked}")]
    Changed {
        /// Relative to the recipe.
        path: String,
        /// In the lock.
        locked: Digest,
        /// What is there.
        found: Digest,
    },
    /// The cache directory.
    #[error("cannot keep ./{path} in the cache")]
    Cache {
        /// Relative to the recipe.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl LocalError {
    /// What to try.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Architecture { .. } => {
                Some("take the package that was built for `amd64`, or for `all` if no program of it is compiled")
            }
            Self::Deb { source: DebError::Malformed { .. }, .. } | Self::Index { .. } => {
                Some("`dpkg-deb --info FILE` says what is in it; fetch or build it again")
            }
            Self::Changed { .. } => Some("bake again: the file changed meanwhile"),
            Self::TooLarge { .. } | Self::Deb { .. } | Self::Read { .. } | Self::Cache { .. } => None,
        }
    }
}

/// A package's file.
#[derive(Debug)]
pub struct Local {
    /// Relative to the recipe.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Of the file.
    pub sha256: Digest,
    /// `Package`
    pub name: String,
    /// `Version`
    pub version: String,
    /// Itself, as an archive would list it.
    pub index: Index,
}

impl Local {
    /// Reads a package's file beside the recipe.
    pub fn read(directory: &Path, path: &str) -> Result<Self, LocalError> {
        let there = directory.join(path);
        let (size, sha256) = digest(directory, path)?;
        let deb = Deb::open(&there).map_err(|source| LocalError::Deb { path: path.to_owned(), source })?;
        if !is_ours(deb.architecture()) {
            let (path, architecture) = (path.to_owned(), deb.architecture().to_owned());
            return Err(LocalError::Architecture { path, architecture });
        }
        let index = Index::parse(paragraph(&deb, size, &sha256).as_bytes())
            .map_err(|source| LocalError::Index { path: path.to_owned(), source })?;
        let (name, version) = (deb.name().to_owned(), deb.version().to_owned());
        Ok(Self { path: path.to_owned(), size, sha256, name, version, index })
    }
}

/// As `Packages` of an archive has it. The file's own name may be anything and stays out of it.
pub(crate) fn paragraph(deb: &Deb, size: u64, sha256: &Digest) -> String {
    let mut text = String::new();
    for (field, value) in FIELDS.iter().filter_map(|field| Some((field, deb.control.get(field)?))) {
        // A field goes on in lines that begin with a space; here it has only one.
        let words: Vec<_> = value.split_whitespace().collect();
        let _ = writeln!(text, "{field}: {}", words.join(" "));
    }
    let _ = writeln!(text, "Filename: {}\nSize: {size}\nSHA256: {}", kiln_model::lock::FILE, sha256.hex());
    text
}

/// Size and SHA-256 of a file beside the recipe.
pub fn digest(directory: &Path, path: &str) -> Result<(u64, Digest), LocalError> {
    stream(directory, path, |_| Ok(()))
}

/// Takes a locked file into the cache, if it is not there, where [`fetch()`](fetch::fetch) finds it.
pub fn keep(directory: &Path, package: &LockedPackage, cache: &Path) -> Result<(), LocalError> {
    let path = &package.filename;
    let failed = |source| LocalError::Cache { path: path.clone(), source };
    let pool = fetch::pool(cache);
    fs::create_dir_all(&pool).map_err(failed)?;
    let target = fetch::place(&pool, package);
    if fetch::is_there(package, &target) {
        return Ok(());
    }
    let mut copy = tempfile::NamedTempFile::new_in(&pool).map_err(failed)?;
    let (_, found) = stream(directory, path, |bytes| io::Write::write_all(&mut copy, bytes))?;
    if found != package.sha256 {
        return Err(LocalError::Changed { path: path.clone(), locked: package.sha256, found });
    }
    copy.persist(&target).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Reads a file that lies in the recipe's directory, hashing.
fn stream(
    directory: &Path,
    path: &str,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(u64, Digest), LocalError> {
    let failed = |source| LocalError::Read { path: path.to_owned(), source };
    let mut file = open(directory, path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    if size > SIZE_LIMIT {
        return Err(LocalError::TooLarge { path: path.to_owned(), size });
    }
    let (mut hash, mut buffer, mut read) = (Sha256::new(), vec![0; 1 << 18], 0);
    loop {
        match io::Read::read(&mut file, &mut buffer).map_err(failed)? {
            0 => return Ok((read, Digest::from_bytes(hash.finalize().into()))),
            length => {
                hash.update(&buffer[..length]);
                each(&buffer[..length]).map_err(|source| LocalError::Cache { path: path.to_owned(), source })?;
                read += length as u64;
            }
        }
    }
}

fn open(directory: &Path, path: &str) -> io::Result<fs::File> {
    let root = fs::canonicalize(directory)?;
    let real: PathBuf = fs::canonicalize(root.join(path))?;
    if !real.starts_with(&root) {
        return Err(io::Error::other("it leads out of the recipe's directory"));
    }
    let file = fs::File::open(real)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}
