//! SBOMs of real trees: of databases that real tools made, compared with what these tools list, and checked with the official
//! schemas.

mod databases;
mod hostile;

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use kiln_model::ImageDigest;
use serde_json::Value;

use super::SbomFormat;
use crate::{
    bake::{
        self, BakeRequest,
        tests::{Bench, ChrootSandbox, cache, debian, request},
    },
    store::Store,
};

/// The packages of an image as `TYPE NAME VERSION`, which both documents must name, after both passed their schemas.
pub(super) fn listed(store: &Store, image: &ImageDigest) -> BTreeSet<String> {
    let (spdx, cyclonedx) = (document(store, image, SbomFormat::Spdx), document(store, image, SbomFormat::CycloneDx));
    let purls = |list: &Value, of: &dyn Fn(&Value) -> Value| -> BTreeSet<String> {
        let purls = list.as_array().expect("a list").iter().map(of);
        purls.filter_map(|purl| purl.as_str().map(str::to_owned)).filter(|purl| !purl.starts_with("pkg:oci/")).collect()
    };
    let ours = purls(&spdx["packages"], &|package| package["externalRefs"][0]["referenceLocator"].clone());
    assert_eq!(ours, purls(&cyclonedx["components"], &|component| component["purl"].clone()));
    let contained = spdx["relationships"].as_array().expect("a list").iter();
    let contained = contained.filter(|relation| relation["relationshipType"] == "CONTAINS").count();
    assert_eq!(contained, ours.len());
    let words = |package: &Value| {
        let purl = package["externalRefs"][0]["referenceLocator"].as_str().expect("a purl");
        let kind = purl.trim_start_matches("pkg:").split('/').next().expect("a type");
        let word = |key: &str| package[key].as_str().expect("a word").to_owned();
        format!("{kind} {} {}", word("name"), word("versionInfo"))
    };
    let packages = spdx["packages"].as_array().expect("a list").iter();
    packages.map(words).filter(|words| !words.starts_with("oci ")).collect()
}

/// A document, which is the same when it is made again, and which its schema accepts.
pub(super) fn document(store: &Store, image: &ImageDigest, format: SbomFormat) -> Value {
    let sbom = store.sbom(image, format).expect("made");
    assert_eq!(store.sbom(image, format).expect("made again"), sbom);
    let document = serde_json::from_slice(&sbom.bytes).expect("JSON");
    accepted(format, &document);
    document
}

fn accepted(format: SbomFormat, document: &Value) {
    let schema = |name: &str| -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas").join(name);
        serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON")
    };
    let name = match format {
        SbomFormat::Spdx => "spdx-2.3.schema.json",
        SbomFormat::CycloneDx => "bom-1.6.SNAPSHOT.schema.json",
    };
    let mut parts = jsonschema::Registry::new();
    for part in ["spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json"] {
        parts = parts.add(format!("http://cyclonedx.org/schema/{part}"), schema(part)).expect("a schema");
    }
    let parts = parts.prepare().expect("schemas");
    let validator = jsonschema::options().with_registry(&parts).should_validate_formats(true).build(&schema(name));
    let validator = validator.expect("a schema");
    let problems: Vec<_> =
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(problems.is_empty(), "{format}: {problems:#?}");
    // A schema that accepts everything would show nothing.
    let mut broken = document.clone();
    broken[if format == SbomFormat::Spdx { "packages" } else { "components" }][0]["name"] = Value::from(1);
    assert!(!validator.is_valid(&broken));
}

#[test]
fn root_the_sbom_of_a_debian_image_names_what_dpkg_lists() {
    let bench = Bench::new();
    let (recipe, dir, cache) = (debian(&["nginx-light"], Vec::new()), bench.recipe_dir(), cache());
    let request = BakeRequest { offline: false, cache: &cache, ..request(&recipe, &dir) };
    let image = bake::bake(&request, &bench.store, &ChrootSandbox, &|_| {}).expect("baked").image;
    let begun = std::time::Instant::now();
    bench.store.sbom(&image, SbomFormat::Spdx).expect("made");
    println!("{:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    let admin = bench.dir.path().join("admin");
    fs::create_dir_all(admin.join("updates")).expect("a directory");
    let tree = bench.store.tree(&image).expect("a tree");
    let status = tree.read(Path::new("/var/lib/dpkg/status"), u64::MAX).expect("readable").expect("there");
    fs::write(admin.join("status"), status).expect("written");
    let listing = Command::new("dpkg-query")
        .arg(format!("--admindir={}", admin.display()))
        .args(["--show", "--showformat=${db:Status-Status} deb ${Package} ${Version}\n"])
        .output()
        .expect("dpkg-query runs");
    let listing = String::from_utf8(listing.stdout).expect("UTF-8");
    let expected: BTreeSet<_> =
        listing.lines().filter_map(|line| line.strip_prefix("installed ")).map(str::to_owned).collect();
    assert!(expected.len() > 80 && expected.iter().any(|line| line.starts_with("deb nginx-light ")), "{expected:?}");
    assert_eq!(listed(&bench.store, &image), expected);
    let spdx = document(&bench.store, &image, SbomFormat::Spdx);
    assert_eq!(spdx["packages"][0]["checksums"][0]["checksumValue"], image.0.hex());
    let libc = |package: &&Value| package["name"] == "libc6";
    let libc = spdx["packages"].as_array().expect("a list").iter().find(libc).expect("libc6");
    let purl = libc["externalRefs"][0]["referenceLocator"].as_str().expect("a purl");
    assert!(purl.ends_with("?arch=amd64&distro=debian-12&upstream=glibc"), "{purl}");
    let known =
        spdx["packages"].as_array().expect("a list").iter().filter(|p| p["licenseDeclared"].is_string()).count();
    println!(
        "{known} licences of {}, {} bytes, {} bytes",
        expected.len(),
        spdx.to_string().len(),
        document(&bench.store, &image, SbomFormat::CycloneDx).to_string().len()
    );
    assert!(known > 10, "licences of {known} packages");
}
