//! Why an image did not arrive.

use std::{io, path::PathBuf};

use kiln_model::{Digest, ImageDigest};

use crate::{
    import::ImportError,
    layer::apply::ApplyError,
    oci::OciError,
    registry::RegistryError,
    store::{StoreError, WorkError},
};

/// Why an image did not arrive. What arrived of it before stays, so that the next attempt goes on.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry did not do what was asked.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What is there is no image that can be read.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// A layer is not taken in.
    #[error("its layer {layer} is not taken in")]
    Layer {
        /// The layer.
        layer: Digest,
        /// Why.
        #[source]
        source: ImportError,
    },
    /// A layer is not as Kiln writes layers.
    #[error("its layer {layer} is not as Kiln writes layers: somebody made it by hand, or another version of Kiln did")]
    ForeignLayer {
        /// The layer.
        layer: Digest,
    },
    /// A layer does not fit those below it.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A directory could not be made or removed.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// It was not made by Kiln.
    #[error("it is no image of Kiln ({why})")]
    NotKiln {
        /// What tells.
        why: String,
    },
    /// Another image was asked for than the one to be pushed.
    #[error("{image} cannot be pushed as {asked}: a digest is the image's own")]
    OtherDigest {
        /// The image.
        image: ImageDigest,
        /// What the reference says.
        asked: Digest,
    },
    /// A file could not be written.
    #[error("could not write {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl DeliveryError {
    /// Whether the fault is the host's or the network's rather than the image's.
    pub fn is_host(&self) -> bool {
        match self {
            Self::Store(error) => error.is_full(),
            Self::Registry(_) | Self::Work(_) | Self::File { .. } => true,
            Self::Oci(error) => matches!(error, OciError::File { .. } | OciError::Registry(_)),
            Self::Layer { .. }
            | Self::ForeignLayer { .. }
            | Self::Apply(_)
            | Self::NotKiln { .. }
            | Self::OtherDigest { .. } => false,
        }
    }
}
