//! Why a layer is not taken in.

use std::io;

use kiln_model::{ByteSize, Digest};

/// Why a layer is not taken in. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The bytes cannot be read or unpacked.
    #[error("its bytes cannot be read")]
    Read(#[source] io::Error),
    /// The contents cannot be written.
    #[error("its files cannot be written")]
    Write(#[source] io::Error),
    /// It is no tar archive.
    #[error("it is no tar archive that can be read: {0}")]
    Archive(String),
    /// An entry is not taken in.
    #[error("its entry `{path}` is refused: {reason}")]
    Entry {
        /// The path as the layer has it, control characters escaped.
        path: String,
        /// Why, and what is possible.
        reason: &'static str,
    },
    /// There are more bytes than the limit.
    #[error("it unpacks to more than {limit}: `max_size` in `[base]`, or `--max-size`, sets the limit")]
    TooLarge {
        /// The limit of the whole image.
        limit: ByteSize,
    },
    /// There are more entries than the limit.
    #[error("it has more than {limit} entries: `max_files` in `[base]`, or `--max-files`, sets the limit")]
    TooMany {
        /// The limit of the whole image.
        limit: u64,
    },
    /// Names, links and attributes are longer than the limit.
    #[error(
        "its names, links and attributes need more than {limit} bytes: `max_files` in `[base]`, or `--max-files`, sets the limit, 256 for each"
    )]
    TooWordy {
        /// The limit of the whole image, bytes.
        limit: u64,
    },
    /// It unpacks to far more than it is packed.
    #[error("it unpacks to more than {limit} times its size: `max_ratio` in `[base]` sets the limit")]
    TooDense {
        /// The limit.
        limit: u64,
    },
    /// The size is another than its manifest says.
    #[error("it should have {expected} bytes and has {found}")]
    WrongSize {
        /// In the manifest.
        expected: u64,
        /// Found, or at least so many.
        found: u64,
    },
    /// The content is another than its manifest says.
    #[error("its {what} should have the digest {expected} and has {found}")]
    WrongDigest {
        /// `packed bytes`, `unpacked bytes`.
        what: &'static str,
        /// In the manifest or configuration.
        expected: Digest,
        /// Found.
        found: Digest,
    },
}

impl ImportError {
    /// The error that a reader passed through `std::io`, or a failed read.
    pub(super) fn of_read(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(inner) => inner,
            Err(error) => Self::Read(error),
        }
    }
}

impl From<ImportError> for io::Error {
    fn from(error: ImportError) -> Self {
        Self::other(error)
    }
}
