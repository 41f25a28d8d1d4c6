//! SBOMs of real trees: of databases that real tools made, compared with what these tools list, and checked with the official
//! schemas.

mod databases;
mod hostile;

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use kiln_model::{
    ImageDigest,
    evidence::{self, Provenance, SigningKey},
};
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
    travels(store, image, format, &document);
    document
}

/// What travels passes the schema, says the same of the packages, and does not say of which image it is.
fn travels(store: &Store, image: &ImageDigest, format: SbomFormat, named: &Value) {
    let sboms = SbomFormat::ALL.into_iter().zip(store.travelling_sboms(image).expect("made"));
    let bytes = sboms.filter(|(of, _)| *of == format).map(|(_, sbom)| sbom.bytes).next().expect("each format");
    let text = String::from_utf8(bytes).expect("UTF-8");
    assert!(!text.contains(&image.0.hex()), "{text}");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    accepted(format, &document);
    let packages = |document: &Value| match format {
        SbomFormat::Spdx => document["packages"].as_array().expect("a list")[1..].to_vec(),
        SbomFormat::CycloneDx => document["components"].as_array().expect("a list").clone(),
    };
    assert_eq!(packages(&document), packages(named));
    let id = |document: &Value| {
        document[if format == SbomFormat::Spdx { "documentNamespace" } else { "serialNumber" }].clone()
    };
    assert_ne!(id(&document), id(named), "they are two documents");
}

/// Checks a document of standard input against a schema, whose parts in other files stand beside it.
const VALIDATE: &str = "
import json, os, sys
import jsonschema
name, *parts = sys.argv[1:]
load = lambda path: json.load(open(path))
schema, document = load(name), json.load(sys.stdin)
store = {'http://cyclonedx.org/schema/' + os.path.basename(part): load(part) for part in parts}
resolver = jsonschema.RefResolver.from_schema(schema, store=store)
checker = jsonschema.Draft7Validator(schema, resolver=resolver, format_checker=jsonschema.FormatChecker())
problems = ['/'.join(map(str, e.path)) + ': ' + e.message[:300] for e in checker.iter_errors(document)]
print('\\n'.join(problems[:5]))
";

/// The problems that the official schema of a format finds in a document.
fn problems(format: SbomFormat, document: &Value) -> String {
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas");
    let names: &[&str] = match format {
        SbomFormat::Spdx => &["spdx-2.3.schema.json"],
        SbomFormat::CycloneDx => {
            &["bom-1.6.SNAPSHOT.schema.json", "spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json"]
        }
    };
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-W", "ignore", "-c", VALIDATE]).args(names.iter().map(|name| schemas.join(name)));
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python runs");
    child.stdin.take().expect("piped").write_all(document.to_string().as_bytes()).expect("written");
    let done = child.wait_with_output().expect("it ends");
    assert!(done.status.success(), "python3-jsonschema is not here");
    String::from_utf8(done.stdout).expect("UTF-8").trim().to_owned()
}

fn accepted(format: SbomFormat, document: &Value) {
    assert_eq!(problems(format, document), "", "{format}");
    // A schema that accepts everything would show nothing.
    let mut broken = document.clone();
    broken[if format == SbomFormat::Spdx { "packages" } else { "components" }][0]["name"] = Value::from(1);
    assert!(!problems(format, &broken).is_empty(), "{format}");
}

/// The version of a package URL of Debian's.
fn version(uri: &str) -> String {
    let version = uri.split('@').nth(1).and_then(|rest| rest.split('?').next()).expect("a version");
    version.replace("%3A", ":").replace("%2B", "+")
}

/// Bytes of the SBOMs and the provenance of an image.
fn said(store: &Store, baked: &bake::Baked) -> usize {
    let key = SigningKey::from_bytes(&[1; 32]);
    let (image, id) = (baked.image, evidence::key_id(&key.verifying_key()));
    let provenance = Provenance { name: &baked.name, image, inputs: &baked.inputs, builder: &id, version: "0.1.0" };
    let sboms = store.sboms(&image, SbomFormat::ALL).expect("made").map(|sbom| sbom.bytes.len());
    sboms.iter().sum::<usize>() + evidence::render(&provenance.attestation().seal(&key)).len()
}

#[test]
fn root_the_sbom_of_a_debian_image_names_what_dpkg_lists() {
    let bench = Bench::new();
    let (recipe, dir, cache) = (debian(&["nginx-light"], Vec::new()), bench.recipe_dir(), cache());
    let request = BakeRequest { offline: false, cache: &cache, ..request(&recipe, &dir) };
    let baked = bake::bake(&request, &bench.store, &ChrootSandbox, &|_| {}).expect("baked");
    let image = baked.image;
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
    // Every package is an input, by the digest that the archive's index has, and what is said of all of them is not much.
    let debs =
        baked.inputs.materials.iter().filter_map(|input| Some((&input.name, input.uri.as_ref()?, &input.digest)));
    let debs = debs.filter(|(_, uri, digest)| uri.starts_with("pkg:deb/") && digest["sha256"].len() == 64);
    let lines: BTreeSet<_> = debs.map(|(name, uri, _)| format!("deb {name} {}", version(uri))).collect();
    assert_eq!(lines, expected);
    let said = said(&bench.store, &baked);
    println!("{said} bytes are said of {} packages", expected.len());
    assert!(said < 100 << 10, "{said} bytes");
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
