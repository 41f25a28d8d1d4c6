//! What travels with an image: its reports and its suite, each an artifact manifest whose `subject` is the image
//! (image-spec 1.1 `manifest.md`, "Guidelines for Artifact Usage").
//!
//! The same thing always gives the same bytes, so that what is there already is known by its digest. What comes from outside
//! is read as what it must be and never kept as it came.

use kiln_model::{
    Digest, Suite,
    evidence::{self, Envelope, MAX_ENVELOPE_BYTES},
};

use super::{
    Descriptor, IN_TOTO, Manifest, SUITE,
    foreign::{Described, ForeignManifest},
    render,
};

/// A suite holds its scripts, at most 1 MiB each (bytes).
const MAX_SUITE: u64 = 64 << 20;

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
    Suite(Suite),
}

impl Artifact {
    pub(crate) fn report(subject: Descriptor, envelope: &Envelope) -> Self {
        Self::new(IN_TOTO, subject, evidence::render(envelope))
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
    entry.artifact_type.as_deref().is_none_or(|kind| matches!(kind, IN_TOTO | SUITE))
}

/// Which blob of an artifact is to be read, and how long it may be; none if it is nothing of Kiln's.
pub(crate) fn wanted(manifest: &ForeignManifest, image: &Digest) -> Option<(Descriptor, u64)> {
    let about = manifest.subject.as_ref().is_some_and(|subject| subject.digest == *image);
    let [layer] = manifest.layers.as_slice() else { return None };
    let kind = manifest.artifact_type.as_deref().unwrap_or(&manifest.config.media_type);
    let limit = match kind {
        IN_TOTO => MAX_ENVELOPE_BYTES as u64,
        SUITE => MAX_SUITE,
        _ => return None,
    };
    let fits = about && layer.media_type == kind && layer.size <= limit;
    fits.then(|| (Descriptor { media_type: kind.to_owned(), digest: layer.digest, size: layer.size }, limit))
}

/// What the content of an artifact of this kind says; none if it cannot be read as that.
pub(crate) fn said(kind: &str, content: &[u8]) -> Option<Said> {
    match kind {
        IN_TOTO => evidence::parse(content).ok().map(|envelope| Said::Report(Box::new(envelope))),
        SUITE => serde_json::from_slice(content).ok().map(Said::Suite),
        _ => None,
    }
}
