//! What travels with an image: its reports, its suite, where it comes from and what is in it, each an artifact manifest whose
//! `subject` is the image (image-spec 1.1 `manifest.md`, "Guidelines for Artifact Usage").
//!
//! The same thing always gives the same bytes, so that what is there already is known by its digest. What comes from outside
//! is read as what it must be and never kept as it came.

use kiln_model::{
    Digest, Suite,
    evidence::{self, Attestation, Envelope, MAX_ENVELOPE_BYTES, PROVENANCE, TEST_RESULT},
};

use super::{
    Descriptor, IN_TOTO, Manifest, SUITE,
    foreign::{Described, ForeignManifest},
    render,
};
use crate::sbom::SbomFormat;

/// A suite holds its scripts, at most 1 MiB each (bytes).
const MAX_SUITE: u64 = 64 << 20;
/// An SBOM of more bytes is not read.
const MAX_SBOM: u64 = 64 << 20;

/// Something that is said of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Artifact {
    pub(crate) kind: &'static str,
    pub(crate) manifest: Vec<u8>,
    pub(crate) content: Vec<u8>,
}

/// What an artifact says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Report(Box<Envelope>),
    Provenance(Box<Envelope>),
    Suite(Suite),
    Sbom(SbomFormat, Vec<u8>),
}

impl Artifact {
    /// Something that somebody signed.
    pub(crate) fn statement(subject: Descriptor, envelope: &Envelope) -> Self {
        Self::new(IN_TOTO, subject, evidence::render(envelope))
    }
    pub(crate) fn sbom(subject: Descriptor, format: SbomFormat, document: Vec<u8>) -> Self {
        Self::new(format.media_type(), subject, document)
    }
    pub(crate) fn suite(subject: Descriptor, suite: &Suite) -> Self {
        Self::new(SUITE, subject, render(suite))
    }
    fn new(kind: &'static str, subject: Descriptor, content: Vec<u8>) -> Self {
        let manifest = render(&Manifest::artifact(kind, subject, &content));
        Self { kind, manifest, content }
    }
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

/// Whether a list says that something may be Kiln's.
pub(crate) fn may_be_ours(entry: &Described) -> bool {
    entry.artifact_type.as_deref().is_none_or(|kind| matches!(kind, IN_TOTO | SUITE) || sbom(kind).is_some())
}

/// Which blob of an artifact is to be read, and how long it may be; none if it is nothing of Kiln's.
pub(crate) fn wanted(manifest: &ForeignManifest, image: &Digest) -> Option<(Descriptor, u64)> {
    let about = manifest.subject.as_ref().is_some_and(|subject| subject.digest == *image);
    let [layer] = manifest.layers.as_slice() else { return None };
    let kind = manifest.artifact_type.as_deref().unwrap_or(&manifest.config.media_type);
    let limit = match kind {
        IN_TOTO => MAX_ENVELOPE_BYTES as u64,
        SUITE => MAX_SUITE,
        other => sbom(other).map(|_| MAX_SBOM)?,
    };
    let fits = about && layer.media_type == kind && layer.size <= limit;
    fits.then(|| (Descriptor { media_type: kind.to_owned(), digest: layer.digest, size: layer.size }, limit))
}

/// What the content of an artifact of this kind says; none if it cannot be read as that.
pub(crate) fn said(kind: &str, content: &[u8]) -> Option<Said> {
    match kind {
        IN_TOTO => evidence::parse(content).ok().and_then(statement),
        SUITE => serde_json::from_slice(content).ok().map(Said::Suite),
        other => sbom(other).map(|format| Said::Sbom(format, content.to_owned())),
    }
}

/// What an envelope is, by what it says that it is; others attach statements of other kinds.
fn statement(envelope: Envelope) -> Option<Said> {
    match Attestation::predicate_type(&envelope)?.as_str() {
        TEST_RESULT => Some(Said::Report(Box::new(envelope))),
        PROVENANCE => Some(Said::Provenance(Box::new(envelope))),
        _ => None,
    }
}

fn sbom(kind: &str) -> Option<SbomFormat> {
    SbomFormat::ALL.into_iter().find(|format| format.media_type() == kind)
}
