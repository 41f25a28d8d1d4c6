//! A Debian base without host tools.
//!
//! [`Archives::refresh`] reads the verified package indexes of a suite, [`resolve`] finds the packages that a recipe
//! needs, [`fetch()`] brings them into the cache, and [`install()`] unpacks and configures them in a tree, as apt and dpkg
//! would have. None of it needs anything of the host but a kernel; the packages' own scripts run in the caller's
//! sandbox, through [`Tree`].

use std::{io, os::fd::OwnedFd};

use jiff::Timestamp;

pub mod archive;
mod cleanup;
pub mod control;
pub mod database;
pub mod deb;
pub mod fetch;
pub mod http;
pub mod index;
pub mod install;
pub mod keys;
pub mod local;
pub mod phases;
pub mod relation;
pub mod release;
pub mod resolve;
pub mod root;
pub mod signed;
pub mod unpack;
pub mod version;

pub use archive::{Archive, ArchiveError, Archives, KeyFiles};
pub use fetch::{FetchError, fetch};
pub use install::{InstallError, Options, install};
pub use local::{Local, LocalError};
pub use resolve::{Installed, ResolveError, resolve};

/// What images are for.
const ARCHITECTURE: &str = "amd64";

/// Whether packages of this architecture can be in an image.
pub(crate) fn is_ours(architecture: &str) -> bool {
    [ARCHITECTURE, "all"].contains(&architecture)
}

/// What happens, for people to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An archive cannot be reached; what was seen last is used.
    Away {
        /// Mirror and suite.
        archive: String,
        /// Date of the release file that is used.
        since: Timestamp,
        /// Why it cannot be reached.
        reason: String,
    },
    /// A package index is fetched.
    Index {
        /// Mirror and suite.
        archive: String,
        /// Relative to the suite.
        path: String,
        /// In bytes.
        size: u64,
    },
    /// Packages are fetched. Sent at every change, from several threads.
    Fetch(Progress),
    /// Packages are unpacked. Bytes are of the packages, packed.
    Unpack(Progress),
    /// The packages' scripts run.
    Configure {
        /// Number of packages.
        packages: usize,
    },
}

/// How far something is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files done.
    pub files: usize,
    /// Files in all.
    pub files_total: usize,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes in all.
    pub bytes_total: u64,
}

/// Receives events, from several threads.
pub type Events<'a> = &'a (dyn Fn(Event) + Sync);

/// Whether the network may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Yes; what is in the cache is still taken from there.
    Network,
    /// No: everything comes from the cache, or it is an error.
    CacheOnly,
}

/// A command to run over the tree, in the build sandbox, without network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// What it does, for people.
    pub name: String,
    /// Program (absolute, in the tree) and arguments.
    pub command: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
}

/// The tree that packages are installed into: an empty directory, or a view over an image's tree that collects changes.
/// Owners are as in the image: 0 is root.
pub trait Tree {
    /// The tree as one directory: reading shows what is there, writing changes it. For an empty base that is the
    /// directory itself; over a parent it is an overlay mount. Given back before [`Tree::run`].
    fn open(&self) -> io::Result<OwnedFd>;

    /// Runs a script to its end. Anything but exit code 0 is an error, and holds the end of its output.
    fn run(&self, script: &Script) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}
