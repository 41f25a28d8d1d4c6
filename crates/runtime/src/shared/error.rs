//! Why a shared directory cannot be handed to servers.

use std::path::PathBuf;

use kiln_model::{SharedName, shared::HostDirectory};
use kiln_sys::SysError;
use rustix::io::Errno;

/// A shared directory cannot be handed to a server.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// It is not there.
    #[error("the directory {0} is not there: make it, and give it to the user that writes there (`mkdir`, `chown`)")]
    NotThere(HostDirectory),
    /// It is something else.
    #[error("{0} is not a directory")]
    NotADirectory(HostDirectory),
    /// A symbolic link is on the way.
    #[error("a symbolic link is on the way to {path}: {}", instead(leads_to.as_ref()))]
    SymbolicLink {
        /// What the fleet says.
        path: HostDirectory,
        /// Where it leads, as far as that is known.
        leads_to: Option<PathBuf>,
    },
    /// It is Kiln's own, or above or below.
    #[error("{path} cannot be shared: Kiln keeps its own files in {}", own.display())]
    Own {
        /// What the fleet says.
        path: HostDirectory,
        /// Kiln's directory.
        own: PathBuf,
    },
    /// Nothing can be written there.
    #[error("{0} is mounted read-only on this host: say `read_only = true`, or mount it for writing")]
    ReadOnly(HostDirectory),
    /// It could not be looked at.
    #[error("could not look at {path}")]
    Unreadable {
        /// What the fleet says.
        path: HostDirectory,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its file system does not let owners be mapped.
    #[error(
        "the file system of the shared directory `{0}` cannot show its owners to a server (ext4, XFS, btrfs and tmpfs can, \
         overlayfs, FUSE and network file systems cannot); what is on an NFS server is bound with `nfs = \"server:/export\"`"
    )]
    NoOwners(SharedName),
    /// NFS.
    #[error("{0}: NFS is not supported yet")]
    NotYet(String),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] SysError),
}

impl SharedError {
    pub(super) fn unreadable(path: &HostDirectory, error: Errno) -> Self {
        Self::Unreadable { path: path.clone(), source: error.into() }
    }
}

fn instead(leads_to: Option<&PathBuf>) -> String {
    match leads_to {
        Some(path) => format!("write where it leads, {}", path.display()),
        None => "it leads nowhere".to_owned(),
    }
}
