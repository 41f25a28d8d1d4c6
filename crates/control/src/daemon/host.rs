//! What Kiln made on this host, as far as the daemon needs it: a list, and its removal.

use kiln_api::host::HostItem;

/// What Kiln made on the host could not be listed or removed.
#[derive(Debug, thiserror::Error)]
#[error("could not {action}")]
pub struct HostError {
    /// What was tried.
    pub action: String,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What Kiln made on this host for one state directory. Calls block.
pub trait Host: Send + Sync + 'static {
    /// Everything.
    fn inventory(&self) -> Result<Vec<HostItem>, HostError>;
    /// Removes everything but the state directory. Servers have been destroyed before.
    fn purge(&self) -> Result<(), HostError>;
}
