//! What control needs of images and their evidence: the store and the keys, or a fake.
//!
//! Implementations may read files; control calls them from blocking threads.

use std::sync::Arc;

use jiff::Timestamp;
use kiln_model::{
    ImageDigest, ImageManifest, ImageName, SuiteDigest, VerifiedRelease,
    evidence::Envelope,
    fleet::{EvidencePolicy, ImageRef},
    trust::{self, Refusal, TrustPolicy},
};

/// What is known of an image.
#[derive(Debug, Clone)]
pub struct ImageInfo {
    /// Its digest.
    pub digest: ImageDigest,
    /// Its name.
    pub name: ImageName,
    /// Its services and writable paths.
    pub manifest: Arc<ImageManifest>,
    /// What must have passed before a rollout: the newest suite baked for it, or, where it came from elsewhere, that of the
    /// newest report that counts.
    pub suite: SuiteDigest,
    /// Where it comes from.
    pub origin: ImageOrigin,
}

/// Where an image comes from, which decides whether Kiln tests it by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageOrigin {
    /// It was baked here, from a recipe that somebody here chose.
    Baked,
    /// It was pulled or loaded: only evidence that the policy accepts, or somebody who asks for a test, vouches for it.
    Fetched,
}

/// Why an image or its evidence could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReleasesError {
    /// No such image here.
    #[error("there is no image `{image}` on this host")]
    NotFound {
        /// What was asked for.
        image: String,
    },
    /// The store failed.
    #[error("could not read the image store")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The keys or the trust policy cannot be read.
    #[error("it cannot be read whom this host trusts")]
    Trust(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a release was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum NotAdmitted {
    /// The evidence does not suffice.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The evidence could not be read.
    #[error("the evidence cannot be read")]
    Unreadable(#[from] ReleasesError),
}

/// Images and their evidence.
pub trait Releases: Send + Sync + 'static {
    /// The image that a reference names now.
    fn resolve(&self, image: &ImageRef) -> Result<ImageInfo, ReleasesError>;
    /// An image by its digest.
    fn image(&self, image: &ImageDigest) -> Result<ImageInfo, ReleasesError>;
    /// Every report filed under an image.
    fn reports(&self, image: &ImageDigest) -> Result<Vec<Envelope>, ReleasesError>;
    /// The keys that are trusted here and the images revoked; the fleet's rules for age come from `evidence`.
    fn policy(&self, evidence: EvidencePolicy) -> Result<TrustPolicy, ReleasesError>;
    /// The only way to a release that serves: [`trust::admit`] over the reports of the image.
    fn admit(
        &self,
        request: &trust::Request<'_>,
        evidence: EvidencePolicy,
        now: Timestamp,
    ) -> Result<VerifiedRelease, NotAdmitted> {
        let reports = self.reports(&request.image)?;
        Ok(trust::admit(request, &reports, &self.policy(evidence)?, now)?)
    }
    /// Whether an image passed its suite with any configuration.
    fn vouched(&self, image: &ImageInfo, now: Timestamp) -> Result<(), NotAdmitted> {
        let (reports, policy) = (self.reports(&image.digest)?, self.policy(EvidencePolicy::default())?);
        Ok(trust::vouched(image.digest, &image.name, image.suite, &reports, &policy, now).map(drop)?)
    }
}
