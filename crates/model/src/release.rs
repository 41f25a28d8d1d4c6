//! A release: an image and a configuration that were tested together.

use serde::{Deserialize, Serialize};

use crate::digest::{ConfigDigest, Digest, ImageDigest, ReleaseId};

/// What is launched, rolled out and rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Release {
    /// The image.
    pub image: ImageDigest,
    /// The frozen configuration.
    pub config: ConfigDigest,
}

impl Release {
    /// The hash of the pair.
    pub fn id(&self) -> ReleaseId {
        ReleaseId(Digest::of(format!("kiln-release-v1\0{}\0{}", self.image, self.config).as_bytes()))
    }
}
