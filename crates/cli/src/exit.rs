//! What the exit codes of `kiln` mean.

use std::process::ExitCode;

/// How a run of `kiln` ended. The numbers are a contract: scripts decide by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// What was asked was tried and failed: a test, a bake step, a rollout.
    Failed,
    /// The command line, the recipe or the fleet is wrong; nothing was touched.
    Usage,
    /// Refused: the evidence for a release does not suffice.
    Refused,
    /// The host lacks something: rights, an ability of the kernel, space, the network.
    Host,
    /// The daemon cannot be reached, or did not answer in time.
    Unreachable,
    /// A mistake in Kiln.
    Internal,
    /// `kiln exec`: the code of the command.
    Command(u8),
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Host => 4,
            Self::Unreachable => 5,
            Self::Internal => 70,
            Self::Command(code) => code,
        }
    }

    /// The code that a daemon's answer stands for.
    pub fn from_code(code: u8) -> Self {
        [Self::Ok, Self::Failed, Self::Usage, Self::Refused, Self::Host, Self::Unreachable]
            .into_iter()
            .find(|exit| exit.code() == code)
            .unwrap_or(Self::Internal)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
