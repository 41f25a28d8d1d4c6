//! An image as it leaves the store: its documents, its layers, and what is said of it.

use std::io::{self, Cursor, Read};

use kiln_model::{Digest, ImageDigest};

use super::DeliveryError;
use crate::{
    oci::{self, Artifact, Descriptor},
    store::Store,
};

/// An image with everything that travels with it.
pub(super) struct Outgoing {
    store: Store,
    pub(super) image: ImageDigest,
    pub(super) manifest: Vec<u8>,
    /// Reports and the suite.
    pub(super) artifacts: Vec<Artifact>,
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
        let mut artifacts = store.report_artifacts(image)?;
        if let Some(suite) = store.suite(&record.suite)? {
            artifacts.push(Artifact::suite(store.subject(image)?, &suite));
        }
        let mut blobs = vec![OutgoingBlob::here(store.config_bytes(&documents.manifest.config.digest)?)];
        blobs.extend(documents.manifest.layers.iter().map(OutgoingBlob::layer));
        if !artifacts.is_empty() {
            blobs.push(OutgoingBlob::here(oci::EMPTY_BYTES.to_vec()));
            blobs.extend(artifacts.iter().map(|artifact| OutgoingBlob::here(artifact.content.clone())));
        }
        blobs.sort_by_key(|blob| blob.digest);
        blobs.dedup_by_key(|blob| blob.digest);
        let manifest = store.manifest_bytes(image)?;
        Ok(Self { store: store.clone(), image: *image, manifest, artifacts, blobs })
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

    pub(super) fn reports(&self) -> usize {
        self.artifacts.iter().filter(|artifact| artifact.kind == oci::IN_TOTO).count()
    }
}

impl OutgoingBlob {
    fn here(bytes: Vec<u8>) -> Self {
        Self { digest: Digest::of(&bytes), size: bytes.len() as u64, bytes: Bytes::Here(bytes) }
    }
    fn layer(layer: &Descriptor) -> Self {
        Self { digest: layer.digest, size: layer.size, bytes: Bytes::Layer }
    }
}
