//! Packages' files into a tree, several packages at a time.
//!
//! The result does not depend on which thread comes first. A directory that several packages ship gets the owner, mode
//! and time of the first of them in unpack order, as when dpkg unpacks one after the other; one that was there before
//! keeps its own. A file that two packages ship goes to the one that says `Replaces`; without that it is an error.
//! Device nodes and pipes are refused, and no name leads out of the tree (see [`super::root`]).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{
    Event, Events, Progress,
    deb::{Deb, DebError},
    relation,
    root::Root,
};

mod claims;
mod writer;

use claims::{Claims, Directories};

/// Why packages could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The package file.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// Its data part is damaged.
    #[error("cannot read the files of package `{package}`")]
    Data {
        /// Name.
        package: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It holds something that Kiln does not put into a tree.
    #[error("package `{package}` holds {what}: `{path}`")]
    Refused {
        /// Name.
        package: String,
        /// As in the archive.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// A file could not be written.
    #[error("cannot write `{path}` of package `{package}`")]
    Write {
        /// Name.
        package: String,
        /// As in the archive.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Two packages ship the same file.
    #[error("packages `{package}` and `{other}` both ship `{path}`, and neither says that it replaces the other's")]
    Clash {
        /// Name.
        package: String,
        /// Name.
        other: String,
        /// As in the archive.
        path: String,
    },
    /// The tree itself.
    #[error("cannot use the tree")]
    Tree(#[source] io::Error),
}

/// What one package left in the tree.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Paths as dpkg lists them: `/.`, `/etc`, `/etc/motd`.
    pub list: Vec<String>,
    /// MD5 of the conffiles, and of every file where the package brings no `md5sums`; by path.
    pub md5: BTreeMap<String, String>,
}

/// What the tree says about where files go.
#[derive(Debug, Default)]
pub struct Rules {
    /// Path → its place for all packages but the named one (dpkg-divert).
    pub diversions: HashMap<String, (String, String)>,
    /// Path → owner, group and mode in place of the package's (dpkg-statoverride).
    pub overrides: HashMap<String, (u32, u32, u32)>,
    /// Keep a file that is there under a conffile's name, and put the package's beside it as `.dpkg-dist`.
    pub keep_conffiles: bool,
}

/// Unpacks packages into a tree. The order of `debs` is the unpack order.
pub fn unpack(debs: &[&Deb], root: &Root, rules: &Rules, events: Events<'_>) -> Result<Vec<Contents>, UnpackError> {
    let job = Job {
        debs,
        root,
        rules,
        claims: Claims::new(root).map_err(UnpackError::Tree)?,
        directories: Directories::default(),
        replaces: debs
            .iter()
            .map(|deb| relation::all(deb.control.text("Replaces")).map(|r| r.to_string()).collect())
            .collect(),
        results: debs.iter().map(|_| Mutex::default()).collect(),
        sizes: debs.iter().map(|deb| std::fs::metadata(&deb.path).map_or(0, |metadata| metadata.len())).collect(),
        next: AtomicUsize::new(0),
        stopped: AtomicBool::new(false),
        failure: Mutex::new(None),
        files: AtomicUsize::new(0),
        bytes: AtomicU64::new(0),
        events,
    };
    job.run()
}

struct Job<'a> {
    debs: &'a [&'a Deb],
    root: &'a Root,
    rules: &'a Rules,
    claims: Claims,
    directories: Directories,
    replaces: Vec<Vec<String>>,
    results: Vec<Mutex<Contents>>,
    sizes: Vec<u64>,
    next: AtomicUsize,
    stopped: AtomicBool,
    failure: Mutex<Option<(usize, UnpackError)>>,
    files: AtomicUsize,
    bytes: AtomicU64,
    events: Events<'a>,
}

impl Job<'_> {
    fn run(self) -> Result<Vec<Contents>, UnpackError> {
        let threads = std::thread::available_parallelism().map_or(2, usize::from).min(self.debs.len());
        let largest_first = self.largest_first();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| self.work_off(&largest_first));
            }
        });
        if let Some((_, failure)) = self.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(failure);
        }
        self.directories.finish(self.root).map_err(UnpackError::Tree)?;
        let results =
            self.results.into_iter().map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner));
        let mut results: Vec<Contents> = results.collect();
        for (package, path) in self.claims.taken_over() {
            results[package].list.retain(|listed| *listed != path);
            results[package].md5.remove(&path);
        }
        Ok(results)
    }

    /// So that no thread is left with a large one at the end.
    fn largest_first(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.debs.len()).collect();
        order.sort_by_key(|at| (std::cmp::Reverse(self.sizes[*at]), *at));
        order
    }

    fn work_off(&self, order: &[usize]) {
        while !self.stopped.load(Ordering::Relaxed) {
            let Some(at) = order.get(self.next.fetch_add(1, Ordering::Relaxed)).copied() else { return };
            match writer::package(self, at) {
                Ok(contents) => {
                    *self.results[at].lock().unwrap_or_else(PoisonError::into_inner) = contents;
                    self.report(self.sizes[at]);
                }
                Err(error) => self.fail(at, error),
            }
        }
    }

    /// Of several failures the one of the first package is told.
    fn fail(&self, at: usize, error: UnpackError) {
        self.stopped.store(true, Ordering::Relaxed);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.as_ref().is_none_or(|(other, _)| at < *other) {
            *failure = Some((at, error));
        }
    }

    fn report(&self, size: u64) {
        (self.events)(Event::Unpack(Progress {
            files: self.files.fetch_add(1, Ordering::Relaxed) + 1,
            files_total: self.debs.len(),
            bytes: self.bytes.fetch_add(size, Ordering::Relaxed) + size,
            bytes_total: self.sizes.iter().sum(),
        }));
    }

    /// Whether package `at` says that it replaces files of `other`.
    fn replaces(&self, at: usize, other: usize) -> bool {
        let other = self.debs[other];
        let relations = self.replaces[at].iter().filter_map(|text| relation::parse(text));
        let mut named = relations.filter(|relation| relation.name == other.name());
        named.any(|relation| relation.admits(other.version()))
    }

    fn conffiles(&self, at: usize) -> BTreeSet<String> {
        let text = self.debs[at].text("conffiles");
        text.lines().map(str::trim).filter(|line| line.starts_with('/')).map(str::to_owned).collect()
    }
}
