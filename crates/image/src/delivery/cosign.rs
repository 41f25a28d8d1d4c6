//! What Kiln signed, where cosign looks for it: an image under the tag `sha256-HEX.att`, each of whose layers is a DSSE
//! envelope (cosign `specs/ATTESTATION_SPEC.md`). cosign 2 does not ask for referrers.
//!
//! Envelopes stand there without the id of their key, as cosign writes them: an id is a hint, and cosign leaves out a signature
//! whose hint is not of its own form. Attestations of others under the same tag stay.

use kiln_model::{
    Digest,
    evidence::{Attestation, Envelope, Signature},
};
use serde_json::{Value, json};

use super::outgoing::Outgoing;
use crate::{
    oci::{self, Descriptor},
    registry::{RegistryError, Repository},
};

/// How often the list is written again that another writer replaced.
const ATTEMPTS: usize = 5;
/// cosign wants this annotation, which is empty for attestations.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// The layers of the image that cosign reads.
pub(super) struct Attestations {
    layers: Vec<Value>,
}

impl Attestations {
    /// The statements that travel with an image, and these; their bytes travel with it from then on.
    pub(super) fn of(outgoing: &mut Outgoing, more: &[Envelope]) -> Self {
        let statements: Vec<_> = outgoing.statements.iter().chain(more).map(without_hint).collect();
        let layers = statements.iter().map(|envelope| layer(outgoing, envelope)).collect();
        Self { layers }
    }

    /// The manifest with these layers and what others put there, and its configuration.
    fn manifest(&self, others: &[Value]) -> (Vec<u8>, Vec<u8>) {
        let mut layers = others.to_vec();
        layers.extend(
            self.layers.iter().filter(|layer| others.iter().all(|known| known["digest"] != layer["digest"])).cloned(),
        );
        let digests: Vec<_> = layers.iter().map(|layer| &layer["digest"]).collect();
        let config = oci::render(&json!({
            "architecture": "", "os": "", "created": "0001-01-01T00:00:00Z", "config": {},
            "rootfs": { "type": "layers", "diff_ids": digests },
        }));
        let manifest = oci::render(&json!({
            "schemaVersion": 2,
            "mediaType": oci::MANIFEST,
            "config": Descriptor::of(oci::CONFIG, &config),
            "layers": layers,
        }));
        (manifest, config)
    }
}

fn layer(outgoing: &mut Outgoing, envelope: &Envelope) -> Value {
    let mut layer = json!(outgoing.add(envelope));
    let kind = Attestation::predicate_type(envelope).unwrap_or_default();
    layer["annotations"] = json!({ SIGNATURE: "", "predicateType": kind });
    layer
}

fn without_hint(envelope: &Envelope) -> Envelope {
    let signatures = envelope.signatures.iter().map(|s| Signature { keyid: String::new(), sig: s.sig.clone() });
    Envelope { signatures: signatures.collect(), ..envelope.clone() }
}

impl Repository {
    /// Adds attestations to those that are there.
    pub(super) fn add_attestations(&self, image: &Digest, attestations: &Attestations) -> Result<(), RegistryError> {
        let tag = format!("sha256-{}.att", image.hex());
        for _ in 0..ATTEMPTS {
            let there = self.layers(&tag)?;
            if attestations.layers.iter().all(|layer| there.iter().any(|known| known["digest"] == layer["digest"])) {
                return Ok(());
            }
            let (manifest, config) = attestations.manifest(&there);
            self.send_bytes(&config)?;
            self.send_manifest(&tag, oci::MANIFEST, &manifest)?;
        }
        Err(self.contended(tag))
    }

    /// The layers of the image under a tag, as they are described there; none if it is not there.
    fn layers(&self, tag: &str) -> Result<Vec<Value>, RegistryError> {
        let Some(bytes) = self.tagged(tag)? else { return Ok(Vec::new()) };
        let mut manifest: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match manifest["layers"].take() {
            Value::Array(layers) => Ok(layers),
            _ => Ok(Vec::new()),
        }
    }
}
