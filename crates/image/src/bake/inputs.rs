//! What goes into a bake, by digest: what its provenance says.

use kiln_model::{
    Digest, ImageDigest, ImageName, Lock,
    evidence::{BakeInputs, Material},
    lock::{LockedOci, LockedPackage},
    recipe::StepKind,
};
use sha2::{Digest as _, Sha256};

use super::{
    chain::Chain,
    lock,
    source::{ItemKind, Source},
};
use crate::{oci, sbom::purl::Purl};

impl Chain<'_> {
    /// Everything that went into the image, the recipe first.
    pub(super) fn inputs(&self) -> BakeInputs {
        let recipe = self.request.recipe;
        let networked = recipe.steps.iter().filter(|step| matches!(step.kind, StepKind::Run { .. }) && step.network);
        BakeInputs {
            source_date_epoch: self.epoch,
            architecture: oci::architecture().to_owned(),
            materials: [Material::new("image.toml", recipe.text)].into_iter().chain(self.materials.clone()).collect(),
            networked: networked.map(|step| step.name.clone()).collect(),
        }
    }
}

/// The lock, as Kiln writes it, and everything that it names.
pub(super) fn of_lock(lock: &Lock) -> Vec<Material> {
    let file = Material::new(lock::FILE, Digest::of(lock.render().as_bytes()));
    let archives = lock
        .archives
        .iter()
        .map(|archive| Material::new(format!("InRelease of {}", archive.suite), archive.in_release));
    let packages = lock.sets.iter().flat_map(|set| &set.packages).map(of_package);
    [file].into_iter().chain(lock.oci.iter().map(of_oci)).chain(archives).chain(packages).collect()
}

/// The image that a recipe starts from.
pub(super) fn of_image(name: &ImageName, image: &ImageDigest) -> Material {
    let purl = Purl::new("oci", name.as_str(), &image.to_string());
    Material::new(format!("{name}@{image}"), image.0).at(purl.to_string())
}

fn of_oci(base: &LockedOci) -> Material {
    let name = base.source.split('@').next().unwrap_or_default();
    Material::new(format!("{name}@{}", base.manifest), base.manifest)
}

fn of_package(package: &LockedPackage) -> Material {
    let purl = Purl::new("deb", &package.name, &package.version).namespace(Some("debian"));
    let purl = purl.qualifier("arch", &package.architecture);
    Material::new(package.name.clone(), package.sha256).at(purl.to_string())
}

/// What a step copies: a file, or a directory.
pub(super) fn of_source(from: &str, source: &Source) -> Material {
    match source.items.as_slice() {
        [item] => match &item.kind {
            ItemKind::File { sha256, .. } => Material::new(from, Digest::from_bytes(*sha256)),
            _ => Material::directory(from, directory(source)),
        },
        _ => Material::directory(from, directory(source)),
    }
}

/// Go's `Hash1` (in-toto `digest_set.md`, `dirHash`): of the lines of `sha256sum` over all files, sorted by name.
fn directory(source: &Source) -> Digest {
    let files = source.items.iter().filter_map(|item| match &item.kind {
        ItemKind::File { sha256, .. } => Some((&item.path, sha256)),
        ItemKind::Directory | ItemKind::Symlink(_) => None,
    });
    let mut files: Vec<_> = files.collect();
    files.sort();
    let add = |sha: Sha256, (path, sum): (&Vec<u8>, &[u8; 32])| {
        sha.chain_update(hex::encode(sum)).chain_update("  ").chain_update(path).chain_update("\n")
    };
    Digest::from_bytes(files.into_iter().fold(Sha256::new(), add).finalize().into())
}
