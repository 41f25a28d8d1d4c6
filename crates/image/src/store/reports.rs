//! Reports, provenance and approvals as OCI referrers: an artifact manifest whose `subject` is the image and whose one layer is the
//! DSSE envelope.

use kiln_model::{
    Digest, ImageDigest,
    evidence::{Attestation, Envelope, PROVENANCE, is_approval},
};

use super::{
    Store, StoreError,
    error::Context as _,
    objects::{self, Batch},
};
use crate::oci::{Artifact, Manifest};

impl Store {
    /// Keeps something that somebody signed of an image (a report, where it comes from, an approval) beside what is there; the same
    /// twice is one. The digest is that of the artifact manifest.
    pub fn add_statement(&self, image: &ImageDigest, envelope: &Envelope) -> Result<Digest, StoreError> {
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

    /// The reports on an image, in no particular order: they carry their own times. What is neither provenance nor an approval is
    /// taken for one; whatever else it is, is for a report's reader to refuse.
    pub fn reports(&self, image: &ImageDigest) -> Result<Vec<Envelope>, StoreError> {
        self.statements_that(image, |envelope| !is_provenance(envelope) && !is_approval(envelope))
    }

    /// Where an image comes from, as its makers say it, in no particular order.
    pub fn provenance(&self, image: &ImageDigest) -> Result<Vec<Envelope>, StoreError> {
        self.statements_that(image, is_provenance)
    }

    /// Who says that an image may go to a channel, in no particular order.
    pub fn approvals(&self, image: &ImageDigest) -> Result<Vec<Envelope>, StoreError> {
        self.statements_that(image, is_approval)
    }

    fn statements_that(
        &self,
        image: &ImageDigest,
        wanted: impl Fn(&Envelope) -> bool,
    ) -> Result<Vec<Envelope>, StoreError> {
        Ok(self.statements(image)?.into_iter().filter(wanted).collect())
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

/// Whether an envelope says where an image comes from.
fn is_provenance(envelope: &Envelope) -> bool {
    Attestation::predicate_type(envelope).is_some_and(|kind| kind == PROVENANCE)
}
