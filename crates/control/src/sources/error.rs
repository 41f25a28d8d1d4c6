//! The ways in which a source can fail, each with whose fault it is and what to try.

use kiln_model::duration;

use super::MAX_BYTES;

/// Why a source gave no value. Nothing was changed because of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// A file cannot be read.
    #[error("the file {path} cannot be read: {reason}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// A variable was not put in its place by the caller.
    #[error("the variable {name} is not set where `kiln` was called")]
    Unset {
        /// The variable.
        name: String,
    },
    /// A program could not be started, or ended badly.
    #[error("the command {program} {how}")]
    Command {
        /// The program.
        program: String,
        /// What became of it, and the end of what it said on standard error.
        how: String,
    },
    /// No server of a registry can be reached.
    #[error("{what}: no server can be reached ({reason})")]
    Down {
        /// The registry and the key.
        what: String,
        /// What was seen at each server.
        reason: String,
    },
    /// Something accepted the connection, or runs, and says nothing.
    #[error("{what}: no answer within {}", duration::format(*limit))]
    Silent {
        /// What was asked.
        what: String,
        /// The time it had.
        limit: std::time::Duration,
    },
    /// The connection cannot be encrypted so that both sides are believed.
    #[error("{what}: the encrypted connection failed: {reason}")]
    Tls {
        /// The registry and the key, or the file.
        what: String,
        /// What rustls or the file says.
        reason: String,
    },
    /// The registry does not let this user read this key.
    #[error("{what}: not authorised: {reason}")]
    Unauthorised {
        /// The registry and the key.
        what: String,
        /// What it said.
        reason: String,
    },
    /// There is no such key.
    #[error("{what}: there is no such key")]
    Missing {
        /// The registry and the key.
        what: String,
    },
    /// The value is too long.
    #[error("{what}: the value has {bytes} bytes or more, at most {MAX_BYTES} are possible")]
    TooLarge {
        /// What was asked.
        what: String,
        /// Bytes seen or announced.
        bytes: u64,
    },
    /// The value is not UTF-8.
    #[error("{what}: the value is not text: byte {at} is not UTF-8")]
    NotText {
        /// What was asked.
        what: String,
        /// The first wrong byte, from 0.
        at: usize,
    },
    /// What answers is not what was expected.
    #[error("{what}: what answers does not speak as it should: {reason}")]
    Broken {
        /// The registry and the key.
        what: String,
        /// What was seen.
        reason: String,
    },
}

/// Whose fault it is that a source gave no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The fleet names something that is not there or not allowed.
    Fleet,
    /// The registry, or the way to it.
    Registry,
    /// What somebody put into the source.
    Value,
}

impl SourceError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::File { .. }
            | Self::Unset { .. }
            | Self::Command { .. }
            | Self::Unauthorised { .. }
            | Self::Missing { .. } => Fault::Fleet,
            Self::Down { .. } | Self::Silent { .. } | Self::Tls { .. } | Self::Broken { .. } => Fault::Registry,
            Self::TooLarge { .. } | Self::NotText { .. } => Fault::Value,
        }
    }

    /// What to try.
    pub fn help(&self) -> &'static str {
        match self {
            Self::File { .. } => {
                "see that the path is right (it is relative to the fleet's directory) and root may read it"
            }
            Self::Unset { .. } => "set it, or name a file",
            Self::Command { .. } => {
                "run it by hand in the fleet's directory; it gets no variables but PATH, HOME and LANG, and its standard \
                 output is the value"
            }
            Self::Down { .. } => "see whether the registry runs and its address and port are right; what runs goes on",
            Self::Silent { .. } => {
                "the other side is overloaded, has no quorum, or is something else; try again, or ask its operator"
            }
            Self::Tls { .. } => {
                "see that `tls.ca` is the authority of the registry's certificate, that the certificate is good for the \
                 host's name, and that the port is the encrypted one"
            }
            Self::Unauthorised { .. } => "see that `user` and `password` are right and that this user may read the key",
            Self::Missing { .. } => "create the key, or correct its path (the chroot is the front of the path)",
            Self::TooLarge { .. } => "put large data into the image or a volume, and its name here",
            Self::NotText { .. } => "store UTF-8 text there",
            Self::Broken { .. } => "see that the port is the registry's own client port, and whether it needs `tls`",
        }
    }

    /// Whether asking again later may succeed although nobody changes the fleet.
    pub fn may_pass(&self) -> bool {
        self.fault() != Fault::Fleet || matches!(self, Self::Missing { .. })
    }
}
