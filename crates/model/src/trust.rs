//! The one place that decides whether a release may be launched.

use crate::{config::FrozenConfig, digest::SuiteDigest, release::Release};

/// A release that may be launched. Only this module can make one.
#[derive(Debug, Clone)]
pub struct VerifiedRelease {
    release: Release,
    config: FrozenConfig,
    suite: Option<SuiteDigest>,
    purpose: Purpose,
}

/// What a server is launched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To serve: evidence was checked.
    Serve,
    /// To be tested, on an isolated network, never behind the gateway: evidence is what it is launched to make.
    Test,
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
}

/// Admits a release to be tested: no evidence is needed, and the engine keeps it apart.
pub fn admit_for_test(release_image: crate::digest::ImageDigest, config: FrozenConfig) -> VerifiedRelease {
    VerifiedRelease {
        release: Release { image: release_image, config: config.digest() },
        config,
        suite: None,
        purpose: Purpose::Test,
    }
}
