//! What the exit codes of `kiln` mean.

use std::process::ExitCode;

/// How a run of `kiln` ended. The numbers are a contract: scripts decide by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// What was asked was tried and failed: a test, a bake step, a rollout.
    Failed = 1,
    /// The command line, the recipe or the fleet is wrong; nothing was touched.
    Usage = 2,
    /// Refused: the evidence for a release does not suffice.
    Refused = 3,
    /// The host lacks something: rights, an ability of the kernel, space, the network.
    Host = 4,
    /// The daemon cannot be reached, or did not answer in time.
    Unreachable = 5,
    /// A mistake in Kiln.
    Internal = 70,
}

impl Exit {
    /// The code that a daemon's answer stands for.
    pub fn from_code(code: u8) -> Self {
        [Self::Ok, Self::Failed, Self::Usage, Self::Refused, Self::Host, Self::Unreachable]
            .into_iter()
            .find(|exit| *exit as u8 == code)
            .unwrap_or(Self::Internal)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
