//! Debian packages as a step: the base of a Debian image, and the `packages` step over one.

use std::{
    cell::Cell,
    error::Error,
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use composefs::{mount::FsHandle, mountcompat::overlayfs_set_fd};
use kiln_model::{Digest, lock::LockedPackage, recipe::DebianBase};
use rustix::{
    fs::{Mode, OFlags, open},
    mount::{FsMountFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount},
};

use super::{
    BakeError, BakeEvent, LockProblem,
    chain::Chain,
    key::Key,
    lock,
    run::{self, Made, Tail},
};
use crate::{
    debian::{self, Script, install::Options},
    layer::scan::Leftovers,
    sandbox::{Job, Network, Outcome, Tmp},
    store::Work,
};

/// Every script of a package installation ends within this time.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(1800);

/// Packages to install.
pub(super) struct Packages<'a> {
    pub(super) step: &'a str,
    pub(super) base: &'a DebianBase,
    pub(super) set: &'a [LockedPackage],
}

/// Whether there is a tree below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Below {
    Nothing,
    Tree,
}

impl Packages<'_> {
    pub(super) fn key(&self, parent: &Digest) -> Digest {
        let exact = self.set.iter().map(|p| format!("{} {} {} {}", p.name, p.version, p.architecture, p.sha256));
        Key::new("packages", Some(parent)).parts(exact.collect::<Vec<_>>()).done()
    }

    /// Installs them over the tree with this metadata image.
    pub(super) fn layer(&self, chain: &Chain<'_>, lower: &str, below: Below) -> Result<Made, BakeError> {
        let forward = |event| (chain.events)(BakeEvent::Debian(event));
        let network = lock::network(chain.request);
        for package in self.set.iter().filter(|package| package.is_file()) {
            debian::local::keep(chain.request.directory, package, chain.request.cache)
                .map_err(|source| LockProblem::Local(Box::new(source)))?;
        }
        let debs = debian::fetch(self.set, self.base, chain.request.cache, network, &forward)
            .map_err(|source| BakeError::Fetch { step: self.step.to_owned(), source: Box::new(source) })?;
        let work = Work::new(chain.store)?;
        let clamp = run::clamp(chain.epoch);
        let tree = Tree { chain, lower, work: &work, below, full: Cell::new(false) };
        let options = Options { source_date_epoch: chain.epoch };
        let installed = debian::install(&debs, &tree, &options, &forward);
        if installed.is_err() && (tree.full.get() || run::full(&work)) {
            let (step, directory) = (self.step.to_owned(), work.path().to_owned());
            return Err(BakeError::StepFull { step, directory, output: String::new() });
        }
        installed.map_err(|e| BakeError::Install { step: self.step.to_owned(), source: Box::new(e) })?;
        run::made(self.step, work, clamp, Leftovers::Drop)
    }
}

/// The tree that packages are installed into.
struct Tree<'a> {
    chain: &'a Chain<'a>,
    lower: &'a str,
    work: &'a Work,
    below: Below,
    full: Cell<bool>,
}

impl debian::Tree for Tree<'_> {
    fn open(&self) -> io::Result<OwnedFd> {
        match self.below {
            Below::Nothing => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                Ok(open(self.work.upper(), flags, Mode::empty())?)
            }
            Below::Tree => self.overlay(),
        }
    }

    fn run(&self, script: &Script) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut tail = Tail::default();
        let outcome = self.chain.sandbox.run(self.job(script), &mut |stream, bytes| {
            tail.push(bytes);
            (self.chain.events)(BakeEvent::Output { stream, bytes: bytes.to_vec() });
        })?;
        if outcome == Outcome::Exited(0) {
            return Ok(());
        }
        let output = tail.text();
        self.full.set(output.contains("No space left on device"));
        let status = run::status(outcome, TIME_LIMIT);
        Err(BakeError::StepFailed { step: script.name.clone(), status, output }.into())
    }
}

impl Tree<'_> {
    fn job(&self, script: &Script) -> Job {
        Job {
            root: run::root(self.chain, self.lower, self.work),
            command: script.command.clone(),
            environment: script.environment.clone(),
            working_directory: "/".to_owned(),
            network: Network::Off,
            binds: Vec::new(),
            trees: Vec::new(),
            user: None,
            tmp: Tmp::Memory,
            memory: Vec::new(),
            hostname: self.chain.manner.hostname.to_owned(),
            time_limit: TIME_LIMIT,
            interactive: false,
        }
    }

    /// The parent's tree with the changes so far, writable and seen by nobody else.
    fn overlay(&self) -> io::Result<OwnedFd> {
        let lower = self.chain.store.mount_tree(self.lower, None).map_err(io::Error::other)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let upper = open(self.work.upper(), flags, Mode::empty())?;
        let work = open(self.work.overlay_work(), flags, Mode::empty())?;
        let overlay = FsHandle::open("overlay")?;
        for (name, value) in [("metacopy", "off"), ("redirect_dir", "nofollow"), ("index", "off")] {
            fsconfig_set_string(overlay.as_fd(), name, value)?;
        }
        overlayfs_set_fd(overlay.as_fd(), "lowerdir+", lower.as_fd())?;
        overlayfs_set_fd(overlay.as_fd(), "upperdir", upper.as_fd())?;
        overlayfs_set_fd(overlay.as_fd(), "workdir", work.as_fd())?;
        fsconfig_create(overlay.as_fd())?;
        let mount = fsmount(overlay.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        Ok(rustix::fs::openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }
}
