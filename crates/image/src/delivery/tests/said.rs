//! What is said of an image beside its reports: provenance and SBOMs, also through a registry that lists referrers itself.

use std::fmt::Write as _;

use kiln_model::{ImageDigest, Recipe};

use super::{Elsewhere, Sample, cosign::add_provenance, same, suite};
use crate::{
    bake::tests::{copy, over},
    oci::{self, Artifact},
    registry::{docker::DockerRegistry, strict::StrictRegistry},
    sbom::SbomFormat,
};

#[test]
fn root_a_registry_with_the_referrers_api_lists_what_is_said_of_an_image() {
    let (sample, registry) = (Sample::new(), StrictRegistry::start());
    let envelope = add_provenance(&sample, sample.image);
    let at = format!("{}/sample:v1", registry.address);
    sample.push(&sample.image, &at).expect("pushed");
    let mut listed = registry.listed(&sample.image.to_string());
    listed.sort();
    let sboms = SbomFormat::ALL.map(SbomFormat::media_type);
    assert_eq!(listed, [sboms[0], sboms[1], oci::IN_TOTO, oci::IN_TOTO, oci::SUITE].map(str::to_owned));
    let other = Elsewhere::new();
    let pulled = other.pull(&at).expect("pulled");
    assert_eq!((pulled.reports, pulled.suites, pulled.provenance, pulled.sboms), (1, 1, 1, 2), "{pulled:?}");
    same(&sample, &other.store, &sample.image);
    assert_eq!(other.store.provenance(&sample.image).expect("read"), [envelope]);
    for format in SbomFormat::ALL {
        let sbom = |store: &crate::Store| store.sbom(&sample.image, format).expect("made").bytes;
        assert_eq!(sbom(&other.store), sbom(&sample.bench.store));
    }
    let again = sample.push(&sample.image, &at).expect("pushed");
    assert_eq!((again.sent, again.bytes), (0, 0), "{again:?}");
    // The API was asked, and no list was written beside it.
    let asked = registry.asked();
    assert!(asked.iter().any(|line| line.starts_with("GET /v2/sample/referrers/sha256:")), "{asked:#?}");
    assert!(!asked.iter().any(|line| line.contains("manifests/sha256-")), "{asked:#?}");
    assert_eq!(registry.listed(&sample.image.to_string()).len(), 5);
}

#[test]
fn root_an_sbom_that_lies_and_statements_of_other_kinds_are_left_out() {
    let (sample, registry) = (Sample::new(), DockerRegistry::start());
    let at = format!("{}/sample:v1", registry.address);
    sample.push(&sample.image, &at).expect("pushed");
    let subject = sample.bench.store.subject(&sample.image).expect("a subject");
    let lie = Artifact::sbom(subject.clone(), SbomFormat::Spdx, b"{\"spdxVersion\":\"SPDX-2.3\"}".to_vec());
    let key = kiln_model::evidence::SigningKey::from_bytes(&[1; 32]);
    let scan = kiln_model::evidence::Attestation {
        name: "sample".into(),
        image: sample.image,
        predicate_type: "https://cosign.sigstore.dev/attestation/vuln/v1".into(),
        predicate: serde_json::json!({}),
    };
    let scan = Artifact::statement(subject, &scan.seal(&key));
    let to = super::reference(&at);
    let limits = crate::debian::http::Limits::default();
    let repository =
        crate::registry::Repository::to_write(&to, crate::bake::tests::no_registries(), limits).expect("open");
    for artifact in [&lie, &scan] {
        repository.send_bytes(&artifact.content).expect("sent");
        repository.send_manifest(&artifact.digest().to_string(), oci::MANIFEST, &artifact.manifest).expect("sent");
        let entry = crate::registry::Referrer {
            media_type: oci::MANIFEST.to_owned(),
            digest: artifact.digest(),
            size: artifact.manifest.len() as u64,
            artifact_type: Some(artifact.kind.to_owned()),
            annotations: Default::default(),
        };
        repository.list_referrer(&sample.image.0, &entry).expect("listed");
    }
    let other = Elsewhere::new();
    let warnings = std::sync::Mutex::new(Vec::new());
    let cache = other.cache();
    let request = crate::delivery::PullRequest {
        from: &to,
        registries: crate::bake::tests::no_registries(),
        cache: &cache,
        limits: kiln_model::recipe::ImportLimits::default(),
        now: jiff::Timestamp::now(),
    };
    let pulled = crate::delivery::pull(&other.store, &request, &|event| {
        if let crate::delivery::DeliveryEvent::Warning(text) = event {
            warnings.lock().expect("no panic").push(text);
        }
    });
    let pulled = pulled.expect("pulled");
    assert_eq!((pulled.reports, pulled.provenance, pulled.sboms), (1, 0, 2), "{pulled:?}");
    let warnings = warnings.into_inner().expect("no panic");
    assert!(warnings.iter().any(|text| text.starts_with("an SBOM (spdx) that came")), "{warnings:?}");
    assert_eq!(other.store.statements(&sample.image).expect("read").len(), 1, "the scan is not kept");
}

#[test]
fn root_a_list_of_what_is_said_that_comes_in_pages_is_read_to_its_end() {
    let (sample, registry) = (Sample::new(), StrictRegistry::start());
    add_provenance(&sample, sample.image);
    let at = format!("{}/sample:v1", registry.address);
    registry.in_pages_of(2);
    sample.push(&sample.image, &at).expect("pushed");
    let other = Elsewhere::new();
    let pulled = other.pull(&at).expect("pulled");
    assert_eq!((pulled.reports, pulled.suites, pulled.provenance, pulled.sboms), (1, 1, 1, 2), "{pulled:?}");
    let asked = |part: &str| registry.asked().iter().filter(|line| line.contains(part)).count();
    assert_eq!(asked("?from=4"), 1, "{:#?}", registry.asked());
    // What stands on the last page is known to be there.
    let again = sample.push(&sample.image, &at).expect("pushed");
    assert_eq!((again.sent, again.bytes), (0, 0), "{again:?}");
    assert_eq!(registry.listed(&sample.image.to_string()).len(), 5);
}

/// An image with so many packages and this page.
fn packaged(sample: &Sample, packages: u32, page: &str) -> ImageDigest {
    let mut status = String::new();
    for at in 0..packages {
        let head =
            format!("Package: package-{at}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.{at}-1\n");
        writeln!(status, "{head}Maintainer: Some Body <some.body@packages.example.org>\n").expect("memory");
    }
    sample.bench.write("status", &status);
    sample.bench.write("page.html", page);
    let steps = vec![copy("status", "/var/lib/dpkg/"), copy("page.html", "/var/www/")];
    let image = sample.bench.bake(&Recipe { suite: suite(), ..over(sample.base, steps) }).expect("baked").image;
    sample.report(&image, 1);
    image
}

#[test]
fn root_sboms_go_over_once_for_all_images_with_the_same_packages() {
    let (sample, registry) = (Sample::new(), DockerRegistry::start());
    let at = format!("{}/sample", registry.address);
    let (first, second) = (packaged(&sample, 90, "one\n"), packaged(&sample, 90, "two\n"));
    let bytes = |image| sample.bench.store.travelling_sboms(image).expect("made").map(|sbom| sbom.bytes);
    assert_eq!(bytes(&first), bytes(&second));
    let sboms: usize = bytes(&first).iter().map(Vec::len).sum();
    let named = |image| sample.bench.store.sbom(image, SbomFormat::Spdx).expect("made").bytes;
    assert_ne!(named(&first), named(&second), "one on somebody's desk says of which image it is");
    let other = Elsewhere::new();
    sample.push(&first, &at).expect("pushed");
    assert_eq!(other.pull(&at).expect("pulled").sboms, 2);
    let pushed = sample.push(&second, &at).expect("pushed");
    println!("SBOMs of {sboms} bytes; a changed page: {} bytes", pushed.bytes);
    assert!(sboms > 60_000 && pushed.bytes < 12_000, "{sboms}: {pushed:?}");
    let pulled = other.pull(&at).expect("pulled");
    assert_eq!((pulled.image, pulled.new_layers, pulled.sboms), (second, 1, 2));
    // Each is listed as what it is of its own image.
    let third = packaged(&sample, 91, "two\n");
    assert_ne!(bytes(&second), bytes(&third));
    assert!(sample.push(&third, &at).expect("pushed").bytes > 60_000);
    assert_eq!(other.pull(&at).expect("pulled").sboms, 2);
}
