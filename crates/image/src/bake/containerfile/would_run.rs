//! How the image of a recipe would be run, asked before anything of it is made.

use kiln_model::{
    ImageDigest,
    containerfile::StageBase,
    fleet::ImageRef,
    oci::OciSource,
    recipe::{Base, ContainerfileBase},
};

use super::settings::Settings;
use crate::{
    Store,
    bake::{BakeError, BakeRequest, oci},
    oci::Execution,
};

/// What the recipe's base says of how it is run. Documents are fetched, and no layers; nothing is locked.
pub fn would_run(request: &BakeRequest<'_>, store: &Store) -> Result<Execution, BakeError> {
    match &request.recipe.base {
        Base::Debian(_) => Ok(Execution::default()),
        Base::Image(image) => of_kiln(store, image),
        Base::Oci(base) => of_oci(request, &base.source),
        Base::Containerfile(base) => of_stages(request, store, base),
    }
}

fn of_kiln(store: &Store, reference: &ImageRef) -> Result<Execution, BakeError> {
    let image = store.resolve(reference)?.ok_or_else(|| BakeError::NoBaseImage(reference.to_string()))?;
    of_image(store, &image.digest)
}

/// How an image of this host is run by other runtimes. Its label says what it is, and nothing of what is made from it.
pub(super) fn of_image(store: &Store, image: &ImageDigest) -> Result<Execution, BakeError> {
    let mut execution = store.documents(image)?.config.config.clone();
    execution.labels.remove(kiln_model::manifest::LABEL);
    Ok(execution)
}

fn of_oci(request: &BakeRequest<'_>, source: &OciSource) -> Result<Execution, BakeError> {
    let opened = oci::find(request, source, None);
    let opened = opened.map_err(|error| BakeError::Oci { base: source.to_string(), source: Box::new(error) })?;
    Ok(opened.found.config.config.unwrap_or_default().execution())
}

fn of_stages(request: &BakeRequest<'_>, store: &Store, base: &ContainerfileBase) -> Result<Execution, BakeError> {
    let mut below = Vec::new();
    let mut wanted = base.plan.stages.last();
    let mut execution = Execution::default();
    while let Some(stage) = wanted.take() {
        below.push(stage);
        match &stage.base {
            StageBase::Scratch => {}
            StageBase::Stage(index) => wanted = base.plan.stages.iter().find(|stage| stage.index == *index),
            StageBase::Kiln(image) => execution = of_kiln(store, image)?,
            StageBase::Oci(source) => execution = of_oci(request, source)?,
        }
    }
    for stage in below.iter().rev() {
        let mut settings = Settings::new(&base.plan.scope, execution);
        for instruction in &base.file.stages[stage.index].instructions {
            settings.apply(&instruction.kind).map_err(|reason| BakeError::Instruction {
                file: base.path.clone(),
                line: instruction.place.line,
                instruction: instruction.text.clone(),
                reason,
            })?;
        }
        execution = settings.execution;
    }
    Ok(execution)
}
