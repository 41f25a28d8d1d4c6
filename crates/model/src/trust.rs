//! The one place that decides whether a release may be launched.
//!
//! [`admit`] is the only maker of a [`VerifiedRelease`] that serves, and an engine's launch takes nothing else. It
//! wants a report that a trusted key signed, for exactly this image, this configuration and the required suite, which
//! passed and is not too old. Why a release was not admitted is a [`Refusal`], one variant for each reason.
//!
//! ```compile_fail
//! // There is no way around: the fields are private, and there is neither `Default` nor `Deserialize`.
//! let release = kiln_model::VerifiedRelease::default();
//! ```
//! ```compile_fail
//! let release: kiln_model::VerifiedRelease = serde_json::from_str("{}").unwrap();
//! ```
//! ```compile_fail
//! fn forge(release: kiln_model::Release, config: kiln_model::FrozenConfig) -> kiln_model::VerifiedRelease {
//!     let purpose = kiln_model::trust::Purpose::Serve;
//!     kiln_model::VerifiedRelease { release, config, suite: None, purpose, warnings: vec![], expires_at: None }
//! }
//! ```

mod admit;
mod refusal;

use std::{collections::BTreeSet, time::Duration};

pub use admit::{CLOCK_SKEW, Request, admit};
use jiff::Timestamp;
pub use refusal::Refusal;

use crate::{
    config::FrozenConfig,
    digest::{ImageDigest, SuiteDigest},
    evidence::VerifyingKey,
    fleet::{EvidencePolicy, OnExpiry},
    release::Release,
};

/// A release that may be launched. Only this module can make one.
#[derive(Debug, Clone)]
pub struct VerifiedRelease {
    release: Release,
    config: FrozenConfig,
    suite: Option<SuiteDigest>,
    purpose: Purpose,
    expires_at: Option<Timestamp>,
    warnings: Vec<String>,
}

/// What a server is launched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To serve: evidence was checked.
    Serve,
    /// To be tested, on an isolated network, never behind the gateway: evidence is what it is launched to make.
    Test,
}

/// Why a release is to be launched, which decides what an expired report means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchUse {
    /// The group moves to this release, forwards or back: the report must not have expired.
    Rollout,
    /// The group is on this release already and a server of it is replaced or added.
    Heal,
}

/// A key whose reports are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// For people: where the key comes from.
    pub name: String,
    /// The public key.
    pub key: VerifyingKey,
}

/// What is believed, and for how long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustPolicy {
    /// The keys whose reports are believed.
    pub keys: Vec<TrustedKey>,
    /// Images that are never launched again, whatever was seen of them.
    pub revoked: BTreeSet<ImageDigest>,
    /// How old a report may be, and what its expiry means to healing.
    pub evidence: EvidencePolicy,
}

impl TrustPolicy {
    /// A report older than this has expired.
    pub fn max_age(&self) -> Duration {
        self.evidence.max_age
    }
    /// Whether healing goes on after that.
    pub fn on_expiry(&self) -> OnExpiry {
        self.evidence.on_expiry
    }
}

impl VerifiedRelease {
    /// The image and configuration.
    pub fn release(&self) -> Release {
        self.release
    }
    /// The frozen configuration.
    pub fn config(&self) -> &FrozenConfig {
        &self.config
    }
    /// The suite that passed; none for a test server.
    pub fn suite(&self) -> Option<SuiteDigest> {
        self.suite
    }
    /// Why it is launched.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }
    /// When its report expires; none for a test server.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }
    /// What must be said loudly although the release was admitted.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Admits a release to be tested: no evidence is needed, and the engine keeps it apart.
pub fn admit_for_test(image: ImageDigest, config: FrozenConfig) -> VerifiedRelease {
    VerifiedRelease {
        release: Release { image, config: config.digest() },
        config,
        suite: None,
        purpose: Purpose::Test,
        expires_at: None,
        warnings: Vec::new(),
    }
}
