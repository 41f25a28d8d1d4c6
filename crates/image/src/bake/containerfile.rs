//! A Containerfile as the base: its stages one after the other, those that the wanted one needs.
//!
//! Each instruction that changes files is a step like any other: one layer, known by the parent's key, its words with their
//! variables filled in, and the content of what it reads. Stages share one chain, which goes from one to the other
//! ([`Position`]), so that what they have in common is done once. How the image is run (`CMD`, `ENV` and the like) is kept
//! beside it, as in OCI images, and goes into the image's configuration.

mod archive;
mod context;
mod copy;
mod files;
mod mounts;
mod place;
mod remote;
mod run;
mod settings;
mod stage;
mod user;
mod would_run;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use kiln_model::{
    Lock,
    containerfile::{Instruction, Kind, Planned, StageBase},
    evidence::Material,
    fleet::ImageRef,
    lock::LockedOci,
    oci::OciSource,
    recipe::ContainerfileBase,
};

pub use self::would_run::would_run;
use self::{context::Context, stage::Stage};
use super::{
    BakeError, BakeRequest, Events,
    chain::{Chain, Position},
    inputs, lock as lock_file,
    oci::{self as images, Opened},
};
use crate::oci::Execution;

/// An image that was found, by the file's words for it.
type Image = (OciSource, Opened);

/// The images that the Containerfile names, as the lock says or as they are now, which is locked then.
pub(super) fn lock(
    request: &BakeRequest<'_>,
    base: &ContainerfileBase,
    events: Events<'_>,
) -> Result<(Vec<Image>, Option<Lock>), BakeError> {
    let wanted = base.plan.images();
    if wanted.is_empty() {
        return Ok((Vec::new(), None));
    }
    let locked = lock_file::usable(request, None, events)?;
    let mut found = Vec::new();
    for (index, source) in wanted.into_iter().enumerate() {
        let expected = locked.as_ref().and_then(|lock| lock.images.get(index)).map(|image| image.manifest);
        let opened = images::find(request, &source, expected)
            .map_err(|error| BakeError::Oci { base: source.to_string(), source: Box::new(error) })?;
        found.push((source, opened));
    }
    let lock = match locked {
        Some(lock) => lock,
        None => {
            let of = |(source, opened): &Image| LockedOci { source: source.to_string(), manifest: opened.found.id };
            let images = found.iter().map(of).collect();
            let version = kiln_model::lock::VERSION;
            let (archives, sets, tools) = (Vec::new(), Vec::new(), Vec::new());
            let lock = Lock { version, suite: None, over: None, oci: None, images, archives, sets, tools };
            lock_file::write_lock(request, &lock)?;
            lock
        }
    };
    Ok((found, Some(lock)))
}

/// Builds the wanted stage; the chain goes on from there.
pub(super) fn build<'a>(mut chain: Chain<'a>, base: &'a ContainerfileBase) -> Result<Chain<'a>, BakeError> {
    let (opened, lock) = lock(chain.request, base, chain.events)?;
    chain.materials.push(Material::new(base.path.as_str(), base.text));
    chain.materials.extend(lock.iter().flat_map(inputs::of_lock));
    let context = Context::open(chain.request.directory, base)?;
    let needed = base.plan.stages.iter().flat_map(|stage| &base.file.stages[stage.index].instructions);
    chain.count += needed.filter(|instruction| changes_files(instruction)).count();
    let mut build = Build { chain, base, context, opened, images: BTreeMap::new(), stages: BTreeMap::new() };
    let mut execution = Execution::default();
    for (at, planned) in base.plan.stages.iter().enumerate() {
        execution = build.stage(planned)?;
        if at + 1 < base.plan.stages.len() {
            let position = build.chain.position()?;
            build.stages.insert(planned.index, Known { position, execution: execution.clone() });
        }
    }
    let mut chain = build.chain;
    chain.remember_tree()?;
    chain.start_environment(images::environment(&execution.env));
    chain.say_what_would_run(&execution);
    chain.execution = Some(execution);
    Ok(chain)
}

/// What a build knows.
struct Build<'a> {
    chain: Chain<'a>,
    base: &'a ContainerfileBase,
    context: Context,
    opened: Vec<Image>,
    /// Images that were taken in, by their names.
    images: BTreeMap<String, Known>,
    /// Stages that are finished, by number.
    stages: BTreeMap<usize, Known>,
}

/// A tree that is there, and how it would be run.
#[derive(Clone)]
struct Known {
    position: Position,
    execution: Execution,
}

impl<'a> Build<'a> {
    fn stage(&mut self, planned: &'a Planned) -> Result<Execution, BakeError> {
        let mut others = BTreeMap::new();
        for (name, base) in &planned.others {
            if let Some(known) = self.known(base)? {
                others.insert(name.as_str(), known.position);
            }
        }
        let execution = match self.known(&planned.base)? {
            Some(known) => {
                self.chain.go_to(&known.position);
                known.execution
            }
            None => {
                self.chain.go_to_nothing(0);
                Execution::default()
            }
        };
        let written = &self.base.file.stages[planned.index];
        let several = self.base.plan.stages.len() > 1;
        let label = several.then(|| written.name.clone().unwrap_or_else(|| planned.index.to_string()));
        let mut stage = Stage::new(self, label, others, execution);
        written.instructions.iter().try_for_each(|instruction| stage.instruction(instruction))?;
        Ok(stage.finish())
    }

    /// A tree that a stage starts from or takes files from; `scratch` has none.
    fn known(&mut self, base: &StageBase) -> Result<Option<Known>, BakeError> {
        let name = match base {
            StageBase::Scratch => return Ok(None),
            StageBase::Stage(index) => return Ok(self.stages.get(index).cloned()),
            StageBase::Kiln(image) => format!("kiln:{image}"),
            StageBase::Oci(source) => source.to_string(),
        };
        if let Some(known) = self.images.get(&name) {
            return Ok(Some(known.clone()));
        }
        let execution = match base {
            StageBase::Kiln(image) => self.kiln_image(image)?,
            _ => self.oci_image(&name)?,
        };
        let known = Known { position: self.chain.position()?, execution };
        self.images.insert(name, known.clone());
        Ok(Some(known))
    }

    fn kiln_image(&mut self, reference: &ImageRef) -> Result<Execution, BakeError> {
        let store = self.chain.store;
        let image = store.resolve(reference)?.ok_or_else(|| BakeError::NoBaseImage(reference.to_string()))?;
        self.chain.go_to_image(&image.digest)?;
        would_run::of_image(store, &image.digest)
    }

    fn oci_image(&mut self, name: &str) -> Result<Execution, BakeError> {
        let at = self.opened.iter().position(|(source, _)| source.to_string() == name);
        let (source, opened) =
            self.opened.swap_remove(at.expect("every image of the plan was opened, and is taken in once"));
        let config = opened.found.config.config.clone().unwrap_or_default();
        if let Some(trigger) = config.on_build.iter().flatten().next() {
            let reason = format!(
                "it wants `{}` to be done by what starts from it (ONBUILD): write that into the Containerfile, and start from the image that it was made from",
                trigger.escape_debug()
            );
            return Err(BakeError::Oci {
                base: name.to_owned(),
                source: Box::new(crate::oci::OciError::document("configuration", reason)),
            });
        }
        self.chain.go_to_nothing(opened.found.config.created.map_or(0, |created| created.as_second().max(0)));
        self.chain.stored()?;
        self.chain.count += opened.found.layers.len();
        self.chain.oci_layers(&source, self.base.limits, &opened)?;
        Ok(config.execution())
    }
}

fn changes_files(instruction: &Instruction) -> bool {
    matches!(instruction.kind, Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_))
}
