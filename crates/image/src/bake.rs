//! From a recipe to an image.
//!
//! A bake is a chain of steps: the base, the recipe's steps in order, and `mount points`, which makes sure that
//! everything the runtime mounts over exists. Each step is one layer, found again by its key: the SHA-256 of the parent's
//! key, the step's definition, the content of its inputs, and the layer format's number ([`key`]). A step whose key is
//! known is not run. Steps that only change files Kiln knows (`copy`, `remove`, `mount points`) edit the tree in memory;
//! steps that run programs ([`run`], `packages`, a Debian base) do so in the sandbox over an overlay.
//!
//! Everything a bake wrote is durable when it returns. Two bakes at once share what they have in common: the second
//! one waits for a step that the first is running.

mod chain;
mod containerfile;
mod copy;
mod error;
mod inputs;
mod key;
pub mod lock;
mod mount_points;
mod oci;
mod over;
mod owner;
mod packages;
mod provision;
mod remove;
mod reproducible;
mod resolve;
mod run;
mod secrets;
mod source;

#[cfg(test)]
pub(crate) mod tests;

use std::{path::Path, time::Instant};

use kiln_model::{ImageDigest, ImageName, Recipe, SuiteDigest, evidence::BakeInputs};

use chain::{Chain, Manner};
pub use containerfile::would_run;
pub use error::BakeError;
pub use lock::LockProblem;
#[cfg(any(test, fuzzing))]
pub(crate) use provision::fuzz as fuzz_provision;
pub use provision::{Resource, State};
pub use reproducible::{Difference, How, Reproducibility, check_reproducible};

use crate::{
    registry::Registries,
    sandbox::{Sandbox, Stream},
    store::Store,
    survey::{self, EnabledService},
};

/// What to do about `kiln.lock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Use it; resolve and write it where it is missing or is for other packages than the recipe's.
    Use,
    /// Resolve again and write it.
    Update,
    /// Use it; fail where it is missing or is for other packages than the recipe's.
    Frozen,
}

/// Which bake.
#[derive(Debug, Clone, Copy)]
pub struct BakeRequest<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// The recipe's directory: sources of `copy`, and `kiln.lock`.
    pub directory: &'a Path,
    /// Where downloads are kept.
    pub cache: &'a Path,
    /// What to do about `kiln.lock`.
    pub lock: LockMode,
    /// What is known of registries.
    pub registries: &'a Registries,
    /// Nothing may be downloaded.
    pub offline: bool,
    /// Run every step, also those whose layer is known.
    pub fresh: bool,
    /// Open a shell in the tree of a step that failed.
    pub shell_on_failure: bool,
    /// The time now.
    pub now: jiff::Timestamp,
}

/// What happens during a bake.
#[derive(Debug, Clone)]
pub enum BakeEvent {
    /// A step begins.
    Started {
        /// From 0.
        index: usize,
        /// How many steps there are.
        count: usize,
        /// Its name.
        name: String,
    },
    /// A step wrote something.
    Output {
        /// Where to.
        stream: Stream,
        /// What.
        bytes: Vec<u8>,
    },
    /// Packages are found, fetched or installed.
    Debian(crate::debian::Event),
    /// Layers of the base come from a registry.
    Download {
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A configuration tool did something, or could not.
    Resource {
        /// The first run, or the second, which must change nothing.
        run: u32,
        /// What.
        resource: Resource,
    },
    /// Something the user should know, in words.
    Warning(String),
    /// A step is done.
    Done(StepOutcome),
}

/// A finished step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutcome {
    /// Its name.
    pub name: String,
    /// Whether its layer was there already.
    pub cached: bool,
    /// How long it took, seconds.
    pub seconds: f64,
}

/// A finished bake.
#[derive(Debug, Clone, PartialEq)]
pub struct Baked {
    /// The image.
    pub image: ImageDigest,
    /// The recipe's name.
    pub name: ImageName,
    /// The recipe's tests.
    pub suite: SuiteDigest,
    /// How long it took, seconds.
    pub seconds: f64,
    /// Every step.
    pub steps: Vec<StepOutcome>,
    /// The packages that the recipe asks for, by their names: not those that they need.
    pub packages: Vec<String>,
    /// What went into the image.
    pub inputs: BakeInputs,
}

/// Receives events, possibly from several threads.
pub type Events<'a> = &'a (dyn Fn(BakeEvent) + Sync);

/// Bakes the recipe. When it fails, the finished steps stay and the next bake goes on from there.
pub fn bake(
    request: &BakeRequest<'_>,
    store: &Store,
    sandbox: &dyn Sandbox,
    events: Events<'_>,
) -> Result<Baked, BakeError> {
    let started = Instant::now();
    let writing = store.writing()?;
    let mut chain = Chain::start(request, store, sandbox, events, Manner::USUAL)?;
    chain.all_steps()?;
    let (inputs, packages) = (chain.inputs(), chain.asked_for());
    let (image, suite, steps) = chain.finish()?;
    writing.settled()?;
    let name = request.recipe.name.clone();
    Ok(Baked { image, name, suite, seconds: started.elapsed().as_secs_f64(), steps, packages, inputs })
}

/// The service units that packages bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Units {
    /// Those of the packages that the recipe asks for.
    pub asked: Vec<EnabledService>,
    /// Where these bring none, those of the packages that they need and the base has not.
    pub needed: Vec<EnabledService>,
}

/// Carries out the recipe's steps, which are known to the next bake, and says which service units its packages bring: what a
/// recipe without `[service]` could run.
pub fn units(
    request: &BakeRequest<'_>,
    store: &Store,
    sandbox: &dyn Sandbox,
    events: Events<'_>,
) -> Result<Units, BakeError> {
    let writing = store.writing()?;
    let mut chain = Chain::start(request, store, sandbox, events, Manner::USUAL)?;
    chain.steps()?;
    let (packages, needed) = (chain.asked_for(), chain.needed());
    let position = chain.position()?;
    writing.settled()?;
    let tree = store.stored_tree(&position.tree)?;
    let asked = survey::units(&tree, &packages)?;
    let needed = if asked.is_empty() { survey::units(&tree, &needed)? } else { Vec::new() };
    Ok(Units { asked, needed })
}
