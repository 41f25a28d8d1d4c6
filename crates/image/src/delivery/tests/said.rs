//! What is said of an image beside its reports: provenance and SBOMs, also through a registry that lists referrers itself.

use super::{Elsewhere, Sample, cosign::add_provenance, same};
use crate::{
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
