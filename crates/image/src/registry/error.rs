//! Why a registry did not do what was asked.

use std::{io, path::PathBuf, time::Duration};

use kiln_model::Digest;

use crate::debian::http::HttpError;

/// Why a registry did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The connection, the transfer, or what came.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The registry wants to know who asks.
    #[error("{registry} does not let this host {action} `{repository}`: {why}")]
    Unauthorized {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// `read`, `write`.
        action: &'static str,
        /// Whether there are credentials, and where they were looked for.
        why: String,
    },
    /// There is no such thing.
    #[error("{registry} has no {what}")]
    NotFound {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
    },
    /// An answer that is none.
    #[error("{url} answered {status}{}", said(.message))]
    Answer {
        /// Address.
        url: String,
        /// HTTP status.
        status: u16,
        /// The registry's words, shortened.
        message: String,
        /// After how long it may be asked again, it says.
        pause: Option<Duration>,
    },
    /// The registry sends the request where it must not go.
    #[error("{url} leads to {target}, which is not followed: {reason}")]
    Redirect {
        /// Address.
        url: String,
        /// Where to.
        target: String,
        /// Why not.
        reason: &'static str,
    },
    /// The answer breaks the rules of the API.
    #[error("{url} does not speak the registry API: {reason}")]
    Protocol {
        /// Address.
        url: String,
        /// Which rule.
        reason: String,
    },
    /// What was to be sent cannot be read.
    #[error("what was to be sent cannot be read")]
    Source {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was sent is not what the registry has.
    #[error("{registry} has {found} where {expected} was sent")]
    Altered {
        /// The registry.
        registry: String,
        /// What was sent.
        expected: Digest,
        /// What it says it has.
        found: String,
    },
    /// Others write the list of what refers to an image all the time.
    #[error(
        "{registry} loses what is added to the list `{tag}` of `{repository}`: somebody else writes it at the same time"
    )]
    Contended {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// The tag of the list.
        tag: String,
    },
    /// The credentials cannot be read.
    #[error("the credentials for {registry} cannot be read: {reason}")]
    Credentials {
        /// The registry.
        registry: String,
        /// Why.
        reason: String,
    },
    /// A file of the settings cannot be used.
    #[error("{} cannot be used", .path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing may be downloaded, and it is not there.
    #[error("{what} is not in the cache, and nothing may be downloaded")]
    Offline {
        /// What was asked for.
        what: String,
    },
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
