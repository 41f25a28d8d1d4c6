//! The one place that decides whether a release may be launched.
//!
//! [`admit`] is the only maker of a [`VerifiedRelease`] that serves, and an engine's launch takes nothing else. It
//! wants reports for exactly this image, this configuration and the required suite, which passed and are not too old, by as
//! many keys as the policy's rule for the image's name wants ([`TrustRule`]). Why a release was not admitted is a
//! [`Refusal`], one variant for each reason.
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
pub(crate) mod file;
mod judge;
mod refusal;
mod rule;

use std::collections::BTreeMap;

pub use admit::{Request, admit, suite_of, vouched};
use jiff::Timestamp;
pub use judge::CLOCK_SKEW;
pub use refusal::Refusal;
pub use rule::{ImagePattern, Rules, TrustRule};

use crate::{
    config::FrozenConfig,
    digest::{ImageDigest, SuiteDigest},
    evidence::{Report, VerifyingKey},
    fleet::{EvidencePolicy, OnExpiry},
    id::{ImageName, KeyName},
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
    report: Option<Box<Report>>,
}

/// The name of the key that this host signs with.
pub const THIS_HOST: &str = "this-host";

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
    /// Whose it is. What one name signed counts once, whichever of its keys it was.
    pub name: KeyName,
    /// The public key.
    pub key: VerifyingKey,
}

/// What is believed, and for how long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustPolicy {
    /// The keys whose reports are believed, as far as the rules let them.
    pub keys: Vec<TrustedKey>,
    /// Keys whose reports are believed no more.
    pub revoked_keys: Vec<TrustedKey>,
    /// Who may say what.
    pub rules: Rules,
    /// Images that are never launched again, whatever was seen of them, and why.
    pub revoked: BTreeMap<ImageDigest, String>,
    /// How old a report may be, and what its expiry means to healing.
    pub evidence: EvidencePolicy,
}

impl TrustPolicy {
    /// Whether a report by this key would count for images of this name.
    pub fn counts(&self, image: &ImageName, key: &KeyName) -> bool {
        self.rules.rule(image).is_some_and(|rule| rule.may_sign(key))
    }
    /// The refusal of an image that was revoked.
    pub fn revocation(&self, image: ImageDigest) -> Option<Refusal> {
        self.revoked.get(&image).map(|reason| Refusal::Revoked { image, reason: reason.clone() })
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
    /// The newest report that admitted it; none for a test server.
    pub fn report(&self) -> Option<&Report> {
        self.report.as_deref()
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
        report: None,
    }
}
