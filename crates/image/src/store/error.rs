//! What can go wrong in the store, and how a cause becomes one of these.

use std::{io, path::Path};

use kiln_model::ImageDigest;

/// A failure of the store. The store itself is as it was before the operation, or as it is after it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("the store failed to {action}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The file system of the store is full, or a quota is reached.
    #[error("the file system of the store is full (tried to {action}); `kiln gc` frees what no image needs")]
    Full {
        /// What was tried.
        action: String,
    },
    /// The composefs repository refused.
    #[error("the image store failed to {action}")]
    Repository {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no such image.
    #[error("image {0} is not in the store")]
    NotFound(ImageDigest),
    /// What is stored is not what its digest says, or cannot be read as what it should be.
    #[error("{what} in the store is damaged: {detail}; `kiln verify` names everything that is")]
    Damaged {
        /// Which thing.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The kernel cannot mount images from the store's file system.
    #[error(
        "images cannot be mounted from the store's file system: put the state directory on ext4, XFS or btrfs, not on \
         tmpfs or overlayfs, on a kernel with file-backed EROFS (6.12 or later)"
    )]
    FileSystem,
    /// Another process holds the store for longer than this operation waits.
    #[error("the store is in use by another process ({holder}); waited {seconds} s")]
    Busy {
        /// What the other process is doing.
        holder: &'static str,
        /// How long this operation waited.
        seconds: u64,
    },
}

impl StoreError {
    /// Whether the cause is a full file system.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
    pub(crate) fn damaged(what: impl Into<String>, detail: impl ToString) -> Self {
        Self::Damaged { what: what.into(), detail: detail.to_string() }
    }
}

/// Whether an error, or one of its causes, says that a file system is full.
pub(crate) fn says_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let full = error
            .downcast_ref::<io::Error>()
            .is_some_and(|e| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
            || error
                .downcast_ref::<rustix::io::Errno>()
                .is_some_and(|e| matches!(*e, rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT));
        if full {
            return true;
        }
        next = error.source();
    }
    false
}

/// Names what was tried when a call fails.
pub(crate) trait Context<T> {
    /// `action` completes "failed to …".
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, StoreError>;
}

impl<T> Context<T> for kiln_sys::Result<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, StoreError> {
        self.map_err(|source| match source.outcome {
            kiln_sys::Outcome::NoSpace => StoreError::Full { action: action() },
            _ => StoreError::Io { action: action(), source: io::Error::other(source) },
        })
    }
}

impl<T> Context<T> for io::Result<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, StoreError> {
        self.map_err(|source| match says_full(&source) {
            true => StoreError::Full { action: action() },
            false => StoreError::Io { action: action(), source },
        })
    }
}
impl<T> Context<T> for rustix::io::Result<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, StoreError> {
        self.map_err(io::Error::from).doing(action)
    }
}
impl<T> Context<T> for anyhow::Result<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, StoreError> {
        self.map_err(|error| {
            let source: Box<dyn std::error::Error + Send + Sync> = error.into();
            match says_full(source.as_ref()) {
                true => StoreError::Full { action: action() },
                false => StoreError::Repository { action: action(), source },
            }
        })
    }
}

/// For messages about a path.
pub(crate) fn at(verb: &str, path: &Path) -> String {
    format!("{verb} {}", path.display())
}
