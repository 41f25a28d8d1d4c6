//! Throwaway services for the test servers of this host.
//!
//! A service listens at the host's address on Kiln's bridge. The packet filter lets isolated servers, and only them, connect to
//! its port, from before the server starts until the service ends.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use kiln_runtime::Runtime;

use super::{Kind, Throwaway, ThrowawayError, sweep};

/// Where throwaways are started.
#[derive(Debug)]
pub struct Throwaways {
    runtime: Arc<Runtime>,
    directory: PathBuf,
}

/// A service that is lent to a test. Dropping it ends the service, and with it the way to it. Blocks then.
#[derive(Debug)]
pub struct Lent {
    /// The service.
    pub service: Throwaway,
    runtime: Arc<Runtime>,
}

impl Throwaways {
    /// Those of a runtime, below its run directory. What an earlier daemon left there is ended and removed.
    pub fn open(runtime: Arc<Runtime>, run_dir: &Path) -> io::Result<Self> {
        let directory = run_dir.join("throwaway");
        sweep(&directory)?;
        // The services' users must pass through to their own directory, and see no other.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o711))?;
        Ok(Self { runtime, directory })
    }

    /// Starts a service for a test server that is launched afterwards. Blocks until it answers.
    pub fn lend(&self, kind: Kind) -> Result<Lent, ThrowawayError> {
        let network = self.runtime.network().ok_or(ThrowawayError::NoNetwork { kind: kind.word() })?;
        let service = Throwaway::start(kind, IpAddr::V4(network.subnet().gateway()), &self.directory)?;
        network.offer_to_tests(service.address.port())?;
        Ok(Lent { service, runtime: self.runtime.clone() })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(network) = self.runtime.network() else { return };
        if let Err(error) = network.withdraw_from_tests(self.service.address.port()) {
            tracing::warn!(%error, "the way to a throwaway service could not be closed");
        }
    }
}
