//! Why a live key could not be set.

use kiln_model::config::{ConfigKey, Unfit};

use crate::db::DbError;

/// Why a live key could not be set.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The image has no such key.
    #[error("the image has no configuration key `{key}`; its live keys are: {}", listed(.known))]
    NoKey {
        /// The key.
        key: ConfigKey,
        /// Its live keys.
        known: Vec<String>,
    },
    /// The key is part of the release.
    #[error("`{key}` is not live: it is part of the release that was tested, and changes with a new one")]
    NotLive {
        /// The key.
        key: ConfigKey,
    },
    /// The value does not fit.
    #[error("`{key}` {unfit}")]
    Unfit {
        /// The key.
        key: ConfigKey,
        /// What it must be.
        unfit: Unfit,
    },
    /// The state file.
    #[error("could not keep the live values")]
    Db(#[from] DbError),
}

fn listed(known: &[String]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}
