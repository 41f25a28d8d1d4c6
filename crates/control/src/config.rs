//! The configuration of groups: asked of its sources, checked against the image, frozen.
//!
//! This is the only place that computes what a group's release is tested and launched with. A source is asked once; what it
//! said is in the frozen configuration from then on, so a registry that is away stops nothing that was frozen before.
//! Secrets go into the sealed store before anything names them.

mod again;
mod freezer;
mod origins;
mod secrets;
mod source;

pub use again::Again;
pub use freezer::{ConfigError, Freezer, without_secrets};
pub use origins::Origins;
pub use secrets::{SecretStore, SecretsError};
pub use source::{HostSources, SourceError, Sources};
