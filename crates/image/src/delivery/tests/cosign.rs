//! Debian's cosign believes what Kiln signed, with the public key alone.

use std::{fs, path::PathBuf, process::Command};

use kiln_model::{
    ImageDigest,
    evidence::{self, Attestation, BakeInputs, Envelope, PROVENANCE, Provenance, SigningKey, TEST_RESULT},
};
use serde_json::Value;

use super::{Elsewhere, Sample, reference};
use crate::{
    bake::tests::no_registries,
    delivery::{PushRequest, push},
    registry::docker::DockerRegistry,
    sbom::SbomFormat,
};

/// The key that [`Sample::report`] signs with.
fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

/// `SubjectPublicKeyInfo` of an ed25519 key (RFC 8410), which is what `kiln key export` prints.
fn pem(key: &SigningKey) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let head = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let info = [&head[..], key.verifying_key().as_bytes()].concat();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(info))
}

fn signed_sboms(sample: &Sample) -> Vec<Envelope> {
    let sign = |format: SbomFormat| {
        let sbom = sample.bench.store.sbom(&sample.image, format).expect("made");
        let predicate = serde_json::from_slice(&sbom.bytes).expect("JSON");
        let (name, predicate_type) = ("sample".to_owned(), format.predicate_type().to_owned());
        Attestation { name, image: sample.image, predicate_type, predicate }.seal(&key())
    };
    SbomFormat::ALL.map(sign).to_vec()
}

pub(super) fn add_provenance(sample: &Sample, image: ImageDigest) -> Envelope {
    let name = "sample".parse().expect("a name");
    let id = evidence::key_id(&key().verifying_key());
    let provenance = Provenance { name: &name, image, inputs: &BakeInputs::default(), builder: &id, version: "0.1.0" };
    let envelope = provenance.attestation().seal(&key());
    sample.bench.store.add_statement(&image, &envelope).expect("kept");
    envelope
}

struct Cosign {
    program: PathBuf,
    home: tempfile::TempDir,
    image: String,
}

impl Cosign {
    fn new(image: String) -> Self {
        let program = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools/cosign"));
        Self { program, home: tempfile::tempdir().expect("a directory"), image }
    }

    /// The statements of a type that cosign accepts with this key; what it says where it accepts none.
    fn verify(&self, key: &SigningKey, kind: &str) -> Result<Vec<Value>, String> {
        let path = self.home.path().join("key.pem");
        fs::write(&path, pem(key)).expect("written");
        let mut cosign = Command::new(&self.program);
        cosign.args(["verify-attestation", "--insecure-ignore-tlog", "--allow-http-registry", "--type", kind, "--key"]);
        let done = cosign.arg(path).arg(&self.image).env_clear().env("HOME", self.home.path()).output();
        let done = done.expect("cosign is there: `cargo xtask test` fetches it");
        if !done.status.success() {
            return Err(String::from_utf8_lossy(&done.stderr).into_owned());
        }
        let out = String::from_utf8(done.stdout).expect("UTF-8");
        let payload = |line: &str| {
            let envelope: Envelope = serde_json::from_str(line).expect("an envelope");
            let said = Attestation::peek(&envelope).expect("a statement");
            serde_json::from_slice(&said.render()).expect("JSON")
        };
        Ok(out.lines().filter(|line| line.starts_with('{')).map(payload).collect())
    }
}

#[test]
fn root_cosign_verifies_what_kiln_signed() {
    let (sample, registry) = (Sample::new(), DockerRegistry::start());
    add_provenance(&sample, sample.image);
    let (at, cache) = (format!("{}/some/sample:v1", registry.address), sample.bench.dir.path().join("cache"));
    let (to, sboms) = (reference(&at), signed_sboms(&sample));
    let request =
        PushRequest { image: sample.image, to: &to, registries: no_registries(), cache: &cache, cosign: Some(&sboms) };
    push(&sample.bench.store, &request, &|_| {}).expect("pushed");
    let cosign = Cosign::new(at.clone());
    for (kind, predicate) in [
        (TEST_RESULT, TEST_RESULT),
        ("slsaprovenance1", PROVENANCE),
        ("spdxjson", "https://spdx.dev/Document"),
        ("cyclonedx", "https://cyclonedx.org/bom"),
    ] {
        let said = cosign.verify(&key(), kind).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(said.len(), 1, "{kind}: {said:?}");
        assert_eq!(said[0]["predicateType"], predicate);
        assert_eq!(said[0]["subject"][0]["digest"]["sha256"], sample.image.0.hex());
        let error = cosign.verify(&SigningKey::from_bytes(&[9; 32]), kind).expect_err("another key");
        assert!(error.contains("no matching attestations"), "{kind}: {error}");
    }
    cosign.verify(&key(), "vuln").expect_err("nothing of that type was said");
    // The same again adds nothing; a further report is added to what is there, and pulled as ever.
    sample.report(&sample.image, 4);
    push(&sample.bench.store, &request, &|_| {}).expect("pushed");
    assert_eq!(cosign.verify(&key(), TEST_RESULT).expect("still").len(), 1);
    assert_eq!(cosign.verify(&SigningKey::from_bytes(&[4; 32]), TEST_RESULT).expect("added").len(), 1);
    let pulled = Elsewhere::new().pull(&at).expect("pulled");
    assert_eq!((pulled.reports, pulled.provenance, pulled.sboms), (2, 1, 2));
}

#[test]
fn root_cosign_refuses_attestations_of_another_image() {
    let (sample, registry) = (Sample::new(), DockerRegistry::start());
    let other = sample.changed();
    let (at, cache) = (format!("{}/some/sample:v1", registry.address), sample.bench.dir.path().join("cache"));
    let to = reference(&at);
    // Somebody files the provenance of another image under this one.
    let envelope = add_provenance(&sample, other);
    sample.bench.store.add_statement(&sample.image, &envelope).expect("kept");
    let request =
        PushRequest { image: sample.image, to: &to, registries: no_registries(), cache: &cache, cosign: Some(&[]) };
    push(&sample.bench.store, &request, &|_| {}).expect("pushed");
    let cosign = Cosign::new(at);
    cosign.verify(&key(), TEST_RESULT).expect("the report is of this image");
    cosign.verify(&key(), "slsaprovenance1").expect_err("the provenance is of another");
}
