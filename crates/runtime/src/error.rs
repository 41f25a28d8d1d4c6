//! What can go wrong with servers on this host.

use std::path::PathBuf;

use kiln_model::{ImageDigest, ServerId};
use kiln_sys::{Outcome, SysError};

use crate::{network::NetworkError, shared::SharedError, values::ValueError, volume::VolumeError};

/// Any error, as a cause.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// What most functions of this crate return.
pub type Result<T> = std::result::Result<T, RuntimeError>;

/// Something about a server on this host failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A newer generation of this server is known.
    #[error("server {server} has generation {known}, which is newer than {asked}")]
    Stale {
        /// The server.
        server: ServerId,
        /// The generation asked for.
        asked: u64,
        /// The generation known.
        known: u64,
    },
    /// No such server.
    #[error("there is no server {0}")]
    Unknown(ServerId),
    /// The server does not run, so nothing can be asked of it.
    #[error("server {0} does not run")]
    NotRunning(ServerId),
    /// A resource of the host is used up.
    #[error("the host has no {0} left")]
    Exhausted(&'static str),
    /// The image's root could not be had.
    #[error("could not mount the root of image {}", image.short())]
    Root {
        /// The image.
        image: ImageDigest,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The manifest asks for something that this host cannot give.
    #[error("the image asks for {what}, which {why}")]
    Manifest {
        /// What it asks for.
        what: String,
        /// Why it cannot be had.
        why: &'static str,
    },
    /// PID 1 could not shape the server.
    #[error("PID 1 could not {action}")]
    Init {
        /// What it tried.
        action: String,
        /// Why the kernel refused.
        #[source]
        source: Outcome,
    },
    /// A configuration value is not at hand.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A template of the image could not be rendered.
    #[error("could not render the template {name}{}: {message}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Template {
        /// Which one, in the manifest's order.
        number: usize,
        /// The file's name in the recipe.
        name: String,
        /// The line, where it is known.
        line: Option<usize>,
        /// What is wrong.
        message: String,
    },
    /// PID 1 ended or fell silent before it answered.
    #[error("PID 1 of server {0} gave no answer")]
    NoAnswer(ServerId),
    /// PID 1 refused a request.
    #[error("server {server} refused: {reason}")]
    Refused {
        /// The server.
        server: ServerId,
        /// PID 1's words.
        reason: String,
    },
    /// A command's time was over.
    #[error("the command took longer than {} ms", .0.as_millis())]
    TimedOut(std::time::Duration),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] SysError),
    /// A volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A shared directory.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// The network failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A file of ours.
    #[error("could not {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Names the file in an input or output error.
pub(crate) trait OnFile<T> {
    fn on(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T> OnFile<T> for std::io::Result<T> {
    fn on(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| RuntimeError::File { action, path: path.into(), source })
    }
}

impl<T> OnFile<T> for rustix::io::Result<T> {
    fn on(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(std::io::Error::from).on(action, path)
    }
}
