//! Descriptors of the kernel that the runtime waits for.

use std::{io, os::fd::OwnedFd};

use tokio::io::unix::AsyncFd;

/// Hands a descriptor to the runtime.
pub(crate) fn awaited(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // Its successor is unsafe because a descriptor might be closed while it is registered; this one is owned.
    #[expect(deprecated, reason = "safe for an owned descriptor")]
    AsyncFd::new(descriptor)
}
