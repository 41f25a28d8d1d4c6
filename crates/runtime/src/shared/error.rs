//! Why a shared directory cannot be handed to servers.

use std::{path::PathBuf, time::Duration};

use kiln_model::{
    SharedName,
    duration::format,
    shared::{Export, HostDirectory},
};
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
    /// The kernel has no NFS client.
    #[error(
        "this host has no NFS client for version {version}: its kernel lacks the module {module} (Debian and Ubuntu have it in \
         `linux-image-…`; kernels of clouds and small ones often leave it out)"
    )]
    NoClient {
        /// The version asked for.
        version: &'static str,
        /// The module.
        module: &'static str,
    },
    /// The NFS server's name leads nowhere.
    #[error("the address of the NFS server {server} was not found: {why}")]
    NoAddress {
        /// The server.
        server: String,
        /// What was said.
        why: String,
    },
    /// The NFS server did not answer.
    #[error("the NFS server of {export} does not answer (tried for {}); see whether it runs and can be reached", format(*waited))]
    Silent {
        /// What was asked for.
        export: Export,
        /// For so long.
        waited: Duration,
    },
    /// The NFS server refused.
    #[error("{export} cannot be mounted: {why}")]
    Refused {
        /// What was asked for.
        export: Export,
        /// What was said.
        why: String,
    },
    /// Users of servers can do nothing there.
    #[error(
        "users of servers may not {} {export}: Linux does not shift owners over NFS, so the NFS server must take everybody for the \
         owner of the files: export it with `all_squash,anonuid=…,anongid=…`{}",
        if *writes { "write to" } else { "read" },
        if *writes { ", or say `read_only = true`" } else { "" }
    )]
    NotTheirs {
        /// What was asked for.
        export: Export,
        /// Whether they must be able to write.
        writes: bool,
    },
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
