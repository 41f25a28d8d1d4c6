//! An image as it leaves the store: its documents, its layers, and what is said of it.

use std::io::{self, Cursor, Read};

use kiln_model::{
    Digest, ImageDigest,
    evidence::{self, Envelope},
};

use super::DeliveryError;
use crate::{
    oci::{self, Artifact, Descriptor},
    sbom::SbomFormat,
    store::Store,
};

/// An image with everything that travels with it.
pub(super) struct Outgoing {
    store: Store,
    pub(super) image: ImageDigest,
    pub(super) manifest: Vec<u8>,
    /// Reports, provenance, the suite and the SBOMs.
    pub(super) artifacts: Vec<Artifact>,
    /// Reports and provenance, as they were signed.
    pub(super) statements: Vec<Envelope>,
    /// How many of them are reports.
    pub(super) reports: usize,
    /// Everything that manifests refer to, each once.
    pub(super) blobs: Vec<OutgoingBlob>,
}

/// A blob of the image, or of what is said of it.
pub(super) struct OutgoingBlob {
    pub(super) digest: Digest,
    pub(super) size: u64,
    bytes: Bytes,
}

enum Bytes {
    Here(Vec<u8>),
    Layer,
}

impl Outgoing {
    pub(super) fn read(store: &Store, image: &ImageDigest) -> Result<Self, DeliveryError> {
        let documents = store.documents(image)?;
        let record = store.image(image)?.ok_or(crate::StoreError::NotFound(*image))?;
        let subject = store.subject(image)?;
        let statements = store.statements(image)?;
        let mut artifacts: Vec<_> = statements.iter().map(|said| Artifact::statement(subject.clone(), said)).collect();
        if let Some(suite) = store.suite(&record.suite)? {
            artifacts.push(Artifact::suite(subject.clone(), &suite));
        }
        for (format, sbom) in SbomFormat::ALL.into_iter().zip(store.travelling_sboms(image)?) {
            artifacts.push(Artifact::sbom(subject.clone(), format, sbom.bytes));
        }
        let reports = store.reports(image)?.len();
        let mut blobs = vec![OutgoingBlob::here(store.config_bytes(&documents.manifest.config.digest)?)];
        blobs.extend(documents.manifest.layers.iter().map(OutgoingBlob::layer));
        blobs.push(OutgoingBlob::here(oci::EMPTY_BYTES.to_vec()));
        blobs.extend(artifacts.iter().map(|artifact| OutgoingBlob::here(artifact.content.clone())));
        blobs.sort_by_key(|blob| blob.digest);
        blobs.dedup_by_key(|blob| blob.digest);
        let manifest = store.manifest_bytes(image)?;
        Ok(Self { store: store.clone(), image: *image, manifest, artifacts, statements, reports, blobs })
    }

    /// Opens a blob from a byte on.
    pub(super) fn open(&self, blob: &OutgoingBlob, from: u64) -> io::Result<Box<dyn Read + Send>> {
        match &blob.bytes {
            Bytes::Here(bytes) => {
                let mut reader = Cursor::new(bytes.clone());
                reader.set_position(from);
                Ok(Box::new(reader))
            }
            Bytes::Layer => Ok(self.store.read_stream(&blob.digest, from)?),
        }
    }

    /// Takes along what else was signed, which nothing but a list for cosign refers to.
    pub(super) fn add(&mut self, envelope: &Envelope) -> Descriptor {
        let blob = OutgoingBlob::here(evidence::render(envelope));
        let described = Descriptor { media_type: oci::DSSE.to_owned(), digest: blob.digest, size: blob.size };
        if self.blobs.iter().all(|known| known.digest != blob.digest) {
            self.blobs.push(blob);
        }
        described
    }
}

impl OutgoingBlob {
    pub(super) fn here(bytes: Vec<u8>) -> Self {
        Self { digest: Digest::of(&bytes), size: bytes.len() as u64, bytes: Bytes::Here(bytes) }
    }
    fn layer(layer: &Descriptor) -> Self {
        Self { digest: layer.digest, size: layer.size, bytes: Bytes::Layer }
    }
}
