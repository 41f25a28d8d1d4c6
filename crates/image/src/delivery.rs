//! Images on their way to another host and from one: pushed to a registry, pulled from it, saved to a file, loaded.
//!
//! What travels is the image as it is, byte for byte, with what is said of it: its reports, the suite that they are of, where
//! it comes from and what is in it ([`crate::oci`] says in which form). What comes is not believed: documents are bounded, every blob is checked against
//! its digest, and a layer is read entry by entry as the layer of a stranger's base is and written anew. Only if that gives
//! the same bytes is it a layer of a Kiln image, and the tree that servers get is what its manifest says. Whether an
//! image may be launched is not decided here: its reports are kept, and judged at each launch by `kiln_model::trust`.
//!
//! A transfer that was interrupted goes on: blobs that are there are not sent or fetched again, half of one is gone on with.

mod cosign;
mod error;
mod load;
mod outgoing;
mod pull;
mod push;
mod receive;
mod save;

#[cfg(test)]
mod tests;

use kiln_model::{ImageDigest, ImageName};

pub use error::DeliveryError;
pub use load::load;
pub use pull::{PullRequest, pull};
pub use push::{PushRequest, push};
pub use save::{Saved, save};

/// What happens on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryEvent {
    /// Bytes are sent or fetched.
    Transfer {
        /// So far.
        bytes: u64,
        /// In all.
        total: u64,
    },
    /// Layers are read into the store.
    Unpack {
        /// From 1.
        layer: usize,
        /// How many.
        count: usize,
    },
    /// Something a person should know.
    Warning(String),
}

/// Receives events, possibly from several threads.
pub type Events<'a> = &'a (dyn Fn(DeliveryEvent) + Sync);

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The image.
    pub image: ImageDigest,
    /// Blobs that were sent.
    pub sent: usize,
    /// Bytes of these.
    pub bytes: u64,
    /// Blobs taken from other repositories of the registry.
    pub mounted: usize,
    /// Blobs that were there.
    pub there: usize,
    /// Reports that are there now.
    pub reports: usize,
}

/// What was pulled or loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The image.
    pub image: ImageDigest,
    /// Its name, as its maker gave it.
    pub name: ImageName,
    /// Its layers.
    pub layers: usize,
    /// Those that were not here before.
    pub new_layers: usize,
    /// Bytes of these.
    pub bytes: u64,
    /// Reports that came with it.
    pub reports: usize,
    /// Suites that came with it.
    pub suites: usize,
    /// Statements of where it comes from that came with it.
    pub provenance: usize,
    /// SBOMs that came with it, and that are what Kiln makes of the image here.
    pub sboms: usize,
}
