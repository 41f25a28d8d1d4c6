//! Packages over an image that somebody made before: which archive they come from, and what is installed already.
//!
//! The image's own tree says both: `/etc/os-release` which suite it is, dpkg's database what is there. What the recipe says of
//! archives counts as for a Debian base. The lock holds for this very image: another one may have other packages.

use std::{collections::VecDeque, path::Path, sync::Arc};

use kiln_model::{
    Digest, Lock,
    lock::wanted,
    recipe::{DebianBase, Distribution, Sources},
};

use super::{
    BakeError, BakeRequest, Events, LockProblem,
    chain::{Chain, Manner},
    lock, resolve,
};
use crate::{
    debian::{Installed, database},
    sandbox::{Job, Outcome, Sandbox, SandboxError, Stream},
    sbom::Distro,
    store::Store,
    tree::ImageTree,
};

const STATUS: &str = "/var/lib/dpkg/status";
const STATUS_LIMIT: u64 = 64 << 20;

/// The lock of packages over an image, whose layers are taken in to see what it has.
pub(super) fn lock(request: &BakeRequest<'_>, store: &Store, events: Events<'_>) -> Result<Option<Lock>, BakeError> {
    let writing = store.writing()?;
    let mut chain = Chain::start(request, store, &NoPrograms, events, Manner::USUAL)?;
    chain.position()?;
    writing.settled()?;
    Ok(chain.lock)
}

/// Taking in and resolving run no program.
struct NoPrograms;

impl Sandbox for NoPrograms {
    fn run(&self, job: Job, _: &mut dyn FnMut(Stream, &[u8])) -> Result<Outcome, SandboxError> {
        let action = format!("run {}", job.command.join(" "));
        Err(SandboxError { action, source: "nothing is run while packages are resolved".into() })
    }
}

impl Chain<'_> {
    /// Makes the recipe's `packages` steps ready: as locked, or as they are resolved now beside what the image has.
    pub(super) fn packages_over(&mut self, named: &str, over: Over) -> Result<(), BakeError> {
        let recipe = self.request.recipe;
        if wanted(recipe).is_empty() {
            return Ok(());
        }
        let hex = self.stored()?;
        let ground = Ground::read(&self.store.stored_tree(&hex)?, &recipe.sources, named)?;
        let suite = Some(ground.base.suite.clone());
        let known = match &over {
            Over::Image(image) => lock::usable(self.request, Some(*image), self.events)?,
            Over::Oci(lock) => Some((**lock).clone()).filter(|lock| !lock.sets.is_empty()),
        };
        let lock = match known.filter(|lock| lock.suite == suite) {
            Some(lock) => lock,
            None => {
                let fresh = resolve::fresh(self.request, &ground.base, &ground.installed, self.events)?;
                let lock = match over {
                    Over::Image(image) => Lock { suite, over: Some(image), ..fresh },
                    Over::Oci(locked) => Lock { suite, oci: locked.oci, ..fresh },
                };
                lock::write_lock(self.request, &lock)?;
                lock
            }
        };
        self.debian = Some((Arc::new(ground.base), VecDeque::from(lock.sets.clone())));
        self.lock = Some(lock);
        Ok(())
    }
}

/// What packages are installed over.
pub(super) enum Over {
    /// An image of this host.
    Image(Digest),
    /// An image of others, with its lock so far.
    Oci(Box<Lock>),
}

/// What the tree of an image says.
struct Ground {
    base: DebianBase,
    installed: Vec<Installed>,
}

impl Ground {
    fn read(tree: &ImageTree, sources: &Sources, named: &str) -> Result<Self, BakeError> {
        let unfit = |reason: String| LockProblem::NoArchive { base: format!("`{named}`"), reason };
        let distro = Distro::of(tree)?.ok_or_else(|| unfit("it does not say what it is (/etc/os-release)".into()))?;
        let title = distro.title.clone().unwrap_or_else(|| distro.id.clone());
        let distribution = match distro.id.as_str() {
            "debian" => Distribution::Debian,
            "ubuntu" => Distribution::Ubuntu,
            _ => return Err(unfit(format!("it is {title}")).into()),
        };
        let suite = distro.codename.filter(|name| Distribution::is_code_name(name));
        let suite = suite.ok_or_else(|| unfit(format!("it is {title}, without a code name of a suite")))?;
        let status = tree.read(Path::new(STATUS), STATUS_LIMIT)?.unwrap_or_default();
        let installed = database::installed(&String::from_utf8_lossy(&status));
        if installed.is_empty() {
            return Err(unfit(format!("it has no dpkg database ({STATUS}), as small images have none")).into());
        }
        Ok(Self { base: sources.of(distribution, suite, Vec::new()), installed })
    }
}
