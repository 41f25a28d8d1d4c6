//! Reading what an image is, from its digest down: manifest, configuration, label. Every document is hashed when it is
//! read, so a record is never made from damaged bytes.

use std::sync::Arc;

use kiln_model::{Digest, ImageDigest, ImageManifest, ImageName, SuiteDigest, manifest};

use super::{ImageEntry, Store, StoreError, objects};
use crate::oci;

/// An image of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// The digest of its OCI manifest.
    pub digest: ImageDigest,
    /// The recipe's name.
    pub name: ImageName,
    /// Its services and writable paths.
    pub manifest: Arc<ImageManifest>,
    /// The suite of the newest bake that gave this image.
    pub suite: SuiteDigest,
    /// When it was baked last.
    pub created_at: jiff::Timestamp,
    /// Bytes of its files.
    pub size: u64,
    /// Its layers, lowest first.
    pub layers: Vec<Digest>,
    /// Where it was fetched from; none if it was baked here.
    pub fetched_from: Option<String>,
}

/// The documents of an image, checked against their digests.
#[derive(Debug)]
pub(crate) struct Documents {
    pub(crate) manifest: oci::Manifest,
    pub(crate) manifest_size: u64,
    pub(crate) config: oci::Config,
    pub(crate) label: Arc<ImageManifest>,
}

impl Store {
    pub(super) fn record(&self, entry: ImageEntry) -> Result<ImageRecord, StoreError> {
        let documents = self.documents(&entry.image)?;
        Ok(ImageRecord {
            digest: entry.image,
            name: entry.name,
            manifest: documents.label.clone(),
            suite: entry.suite,
            created_at: entry.baked_at,
            size: entry.size,
            layers: documents.config.rootfs.diff_ids.clone(),
            fetched_from: entry.fetched_from,
        })
    }

    /// The documents of an image, read once per process.
    pub(crate) fn documents(&self, image: &ImageDigest) -> Result<Arc<Documents>, StoreError> {
        if let Some(found) = self.inner.records.lock().expect("no holder panics").get(image) {
            return Ok(found.clone());
        }
        let read = Arc::new(self.read_documents(image)?);
        self.inner.records.lock().expect("no holder panics").insert(*image, read.clone());
        Ok(read)
    }

    /// The documents of an image, read now.
    pub(crate) fn read_documents(&self, image: &ImageDigest) -> Result<Documents, StoreError> {
        let name = objects::manifest_stream(&image.0);
        let bytes = self.manifest_bytes(image)?;
        let manifest: oci::Manifest = serde_json::from_slice(&bytes).map_err(|e| StoreError::damaged(&name, e))?;
        let digest = manifest.config.digest;
        let name = objects::config_stream(&digest);
        let config = self.config_bytes(&digest)?;
        let config: oci::Config = serde_json::from_slice(&config).map_err(|e| StoreError::damaged(&name, e))?;
        let label = config.config.labels.get(manifest::LABEL);
        let label = label.ok_or_else(|| StoreError::damaged(&name, "it has no label `dev.kiln.manifest`"))?;
        let label = serde_json::from_str(label).map_err(|e| StoreError::damaged(&name, e))?;
        Ok(Documents { manifest, manifest_size: bytes.len() as u64, config, label: Arc::new(label) })
    }

    /// An image's manifest, byte for byte.
    pub(crate) fn manifest_bytes(&self, image: &ImageDigest) -> Result<Vec<u8>, StoreError> {
        let name = objects::manifest_stream(&image.0);
        let bytes = objects::read_document(&self.inner.repo, &name, objects::MANIFEST_STREAM, &image.0)?;
        bytes.ok_or(StoreError::NotFound(*image))
    }

    /// A configuration, byte for byte.
    pub(crate) fn config_bytes(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let name = objects::config_stream(digest);
        let bytes = objects::read_document(&self.inner.repo, &name, objects::CONFIG_STREAM, digest)?;
        bytes.ok_or_else(|| StoreError::damaged(&name, "it is missing"))
    }

    /// A description of an image's manifest, for what refers to it.
    pub(crate) fn subject(&self, image: &ImageDigest) -> Result<oci::Descriptor, StoreError> {
        let size = self.documents(image)?.manifest_size;
        Ok(oci::Descriptor { media_type: oci::MANIFEST.to_owned(), digest: image.0, size })
    }
}
