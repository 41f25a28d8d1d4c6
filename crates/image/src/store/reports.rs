//! Reports and provenance as OCI referrers: an artifact manifest whose `subject` is the image and whose one layer is the
//! DSSE envelope.

use kiln_model::{
    Digest, ImageDigest,
    evidence::{Attestation, Envelope, PROVENANCE},
};

use super::{
    Store, StoreError,
    error::Context as _,
    objects::{self, Batch},
};
use crate::oci::{Artifact, Manifest};

impl Store {
    /// Keeps a report on an image; the same report twice is one. The digest is that of the artifact manifest.
    pub fn add_report(&self, image: &ImageDigest, envelope: &Envelope) -> Result<Digest, StoreError> {
        self.add_statement(image, envelope)
    }

    /// Keeps a statement of where an image comes from, beside those that are there.
    pub fn add_provenance(&self, image: &ImageDigest, envelope: &Envelope) -> Result<Digest, StoreError> {
        self.add_statement(image, envelope)
    }

    fn add_statement(&self, image: &ImageDigest, envelope: &Envelope) -> Result<Digest, StoreError> {
        let statement = Artifact::statement(self.subject(image)?, envelope);
        if self.statement_digests(image)?.contains(&statement.digest()) {
            return Ok(statement.digest());
        }
        let writing = self.writing()?;
        self.write_statement(image, &statement)?;
        writing.settled()?;
        Ok(statement.digest())
    }

    /// The digest that a statement of an image has, kept or not.
    pub(crate) fn statement_digest(&self, image: &ImageDigest, envelope: &Envelope) -> Result<Digest, StoreError> {
        Ok(Artifact::statement(self.subject(image)?, envelope).digest())
    }

    fn write_statement(&self, image: &ImageDigest, report: &Artifact) -> Result<(), StoreError> {
        let mut batch = Batch::new(&self.inner.repo);
        let (empty, layer, digest) = (Digest::of(b"{}"), Digest::of(&report.content), report.digest());
        let config = batch.document(objects::config_stream(&empty), objects::CONFIG_STREAM, b"{}", &[])?;
        let blob = batch.document(objects::blob_stream(&layer), objects::BLOB_STREAM, &report.content, &[])?;
        let refers_to = [(format!("config:{empty}"), config), (layer.to_string(), blob)];
        let name = objects::manifest_stream(&digest);
        batch.document(name.clone(), objects::MANIFEST_STREAM, &report.manifest, &refers_to)?;
        batch.reference(format!("oci-referrers/{}/{digest}", image.0), name);
        batch.publish()
    }

    /// The reports on an image, in no particular order: they carry their own times.
    pub fn reports(&self, image: &ImageDigest) -> Result<Vec<Envelope>, StoreError> {
        Ok(self.statements(image)?.into_iter().filter(|envelope| !is_provenance(envelope)).collect())
    }

    /// Where an image comes from, as its makers say it, in no particular order.
    pub fn provenance(&self, image: &ImageDigest) -> Result<Vec<Envelope>, StoreError> {
        Ok(self.statements(image)?.into_iter().filter(is_provenance).collect())
    }

    /// Everything that somebody signed of an image.
    pub(crate) fn statements(&self, image: &ImageDigest) -> Result<Vec<Envelope>, StoreError> {
        self.statement_digests(image)?.iter().map(|digest| self.statement(digest)).collect()
    }

    pub(crate) fn statement_digests(&self, image: &ImageDigest) -> Result<Vec<Digest>, StoreError> {
        let doing = || format!("list the reports on {image}");
        let subject = image.0.to_string().parse().map_err(|e| StoreError::damaged(format!("digest {image}"), e))?;
        let referrers = composefs_oci::list_referrers(&self.inner.repo, &subject).doing(doing)?;
        Ok(referrers.iter().filter_map(|(digest, _)| digest.to_string().parse().ok()).collect())
    }

    fn statement(&self, digest: &Digest) -> Result<Envelope, StoreError> {
        let name = objects::manifest_stream(digest);
        let missing = |name: &str| StoreError::damaged(name, "it is missing");
        let manifest = objects::read_document(&self.inner.repo, &name, objects::MANIFEST_STREAM, digest)?
            .ok_or_else(|| missing(&name))?;
        let manifest: Manifest = serde_json::from_slice(&manifest).map_err(|e| StoreError::damaged(&name, e))?;
        let layer = manifest.layers.first().ok_or_else(|| StoreError::damaged(&name, "it has no layer"))?;
        let name = objects::blob_stream(&layer.digest);
        let blob = objects::read_document(&self.inner.repo, &name, objects::BLOB_STREAM, &layer.digest)?
            .ok_or_else(|| missing(&name))?;
        serde_json::from_slice(&blob).map_err(|e| StoreError::damaged(&name, e))
    }
}

/// Whether an envelope says where an image comes from. Whatever else it is, is for a report's reader to refuse.
fn is_provenance(envelope: &Envelope) -> bool {
    Attestation::predicate_type(envelope).is_some_and(|kind| kind == PROVENANCE)
}
