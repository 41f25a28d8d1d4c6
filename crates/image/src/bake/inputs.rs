//! What goes into a bake, by digest: what its provenance says.

use kiln_model::{
    Digest, ImageDigest, ImageName, Lock,
    evidence::{BakeInputs, Material},
    lock::{LockedArchive, LockedOci, LockedPackage},
    recipe::deb_file,
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
        let networked = recipe.steps.iter().filter(|step| step.kind.runs_programs() && step.network);
        BakeInputs {
            source_date_epoch: self.epoch,
            architecture: oci::architecture().to_owned(),
            materials: [Material::new("image.toml", recipe.text)].into_iter().chain(self.materials.clone()).collect(),
            networked: self.networked.iter().cloned().chain(networked.map(|step| step.name.clone())).collect(),
        }
    }
}

impl Chain<'_> {
    /// The packages that the recipe asks for, by their names.
    pub(super) fn asked_for(&self) -> Vec<String> {
        let mut names = Vec::new();
        for set in self.lock.iter().flat_map(|lock| &lock.sets) {
            for wanted in &set.wanted {
                let name = match deb_file(wanted) {
                    Some(path) => set.packages.iter().find(|package| package.is_file() && package.filename == path),
                    None => None,
                };
                let named = || wanted.split('=').next().unwrap_or(wanted).to_owned();
                names.extend(
                    name.map(|package| package.name.clone()).or_else(|| deb_file(wanted).is_none().then(named)),
                );
            }
        }
        names
    }

    /// Every other package that was installed for them.
    pub(super) fn needed(&self) -> Vec<String> {
        let asked = self.asked_for();
        let all = self.lock.iter().flat_map(|lock| &lock.sets).flat_map(|set| &set.packages);
        all.map(|package| package.name.clone()).filter(|name| !asked.contains(name)).collect()
    }
}

/// The lock, as Kiln writes it, and everything that it names.
pub(super) fn of_lock(lock: &Lock) -> Vec<Material> {
    let file = Material::new(lock::FILE, Digest::of(lock.render().as_bytes()));
    let archives = lock.archives.iter().map(|archive| Material::new(of_archive(archive), archive.in_release));
    let packages = lock.sets.iter().chain(&lock.tools).flat_map(|set| &set.packages).map(of_package);
    [file].into_iter().chain(lock.oci.iter().chain(&lock.images).map(of_oci)).chain(archives).chain(packages).collect()
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

/// Debian's suites are known by their names, and others by their own.
fn of_archive(archive: &LockedArchive) -> String {
    let (name, suite) = (&archive.name, &archive.suite);
    match archive.is_of_base() {
        true => format!("InRelease of {suite}"),
        false => format!("release file of {name} {suite}"),
    }
}

fn of_package(package: &LockedPackage) -> Material {
    if package.is_file() {
        return Material::new(package.filename.clone(), package.sha256);
    }
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

/// Files by path and SHA-256, as one directory.
pub(super) fn of_files(from: &str, files: Vec<(&Vec<u8>, &[u8; 32])>) -> Material {
    Material::directory(from, dir_hash(files))
}

/// Go's `Hash1` (in-toto `digest_set.md`, `dirHash`): of the lines of `sha256sum` over all files, sorted by name.
fn directory(source: &Source) -> Digest {
    let files = source.items.iter().filter_map(|item| match &item.kind {
        ItemKind::File { sha256, .. } => Some((&item.path, sha256)),
        ItemKind::Directory | ItemKind::Symlink(_) => None,
    });
    dir_hash(files.collect())
}

fn dir_hash(mut files: Vec<(&Vec<u8>, &[u8; 32])>) -> Digest {
    files.sort();
    let add = |sha: Sha256, (path, sum): (&Vec<u8>, &[u8; 32])| {
        sha.chain_update(hex::encode(sum)).chain_update("  ").chain_update(path).chain_update("\n")
    };
    Digest::from_bytes(files.into_iter().fold(Sha256::new(), add).finalize().into())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, process::Command};

    use kiln_model::recipe::Step;

    use crate::bake::tests::{Bench, copy, over, shell};

    fn said(command: &str, directory: &std::path::Path) -> String {
        let done = Command::new("sh").args(["-c", command]).current_dir(directory).output().expect("a shell");
        String::from_utf8(done.stdout).expect("UTF-8").split_whitespace().next().expect("a digest").to_owned()
    }

    #[test]
    fn root_the_inputs_of_a_bake_are_named_by_digests_that_others_can_make() {
        let bench = Bench::new();
        let base = bench.shell_base();
        bench.write("page.html", "hello\n");
        for name in ["b", "a-b", "a/c"] {
            bench.write(&format!("site/{name}"), name);
        }
        let steps = || {
            let networked = Step { network: true, ..shell("touch /etc/fetched") };
            vec![copy("page.html", "/var/www/"), copy("site", "/srv"), networked]
        };
        let first = bench.bake(&over(base, steps())).expect("baked").inputs;
        let digests: BTreeMap<_, _> = first.materials.iter().map(|m| (m.name.as_str(), &m.digest)).collect();
        assert_eq!(digests[&*format!("sample@{base}")]["sha256"], base.0.hex());
        assert_eq!(digests["page.html"]["sha256"], said("sha256sum page.html", &bench.recipe_dir()));
        let all = "find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum | sha256sum";
        assert_eq!(digests["site"]["dirHash"], said(all, &bench.recipe_dir().join("site")));
        assert_eq!(
            (first.materials[0].name.as_str(), first.networked.as_slice()),
            ("image.toml", &["touch /etc/fetched".to_owned()][..])
        );
        assert_eq!(bench.bake(&over(base, steps())).expect("baked").inputs, first, "also where every step is known");
        bench.write("site/b", "other");
        assert_ne!(bench.bake(&over(base, steps())).expect("baked").inputs, first);
    }
}
