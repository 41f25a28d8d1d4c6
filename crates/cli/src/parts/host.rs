//! Where things of a state directory are on this host.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use kiln_model::Digest;
use kiln_runtime::network::{Network, NetworkOptions};

use crate::failure::Failure;

/// What all state directories of a host share.
const SHARED: &str = "/run/kiln";

/// The places of one state directory.
#[derive(Debug, Clone)]
pub(crate) struct HostPlaces {
    /// The state directory, without symbolic links.
    pub state: PathBuf,
    /// Eight hexadecimal digits that stand for it in names of interfaces, tables and control groups.
    pub id: String,
    /// Sockets and records that need not outlive a reboot.
    pub run: PathBuf,
}

impl HostPlaces {
    /// The places of a state directory, which is made (mode 0700) if it is not there.
    pub fn of(state: &Path) -> Result<Self, Failure> {
        use std::os::unix::fs::DirBuilderExt as _;
        let failed = |source| Failure::Write { path: state.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(failed)?;
        let state = std::fs::canonicalize(state).map_err(failed)?;
        let id = Digest::of(state.as_os_str().as_bytes()).hex()[..8].to_owned();
        let run = Path::new(SHARED).join(&id);
        Ok(Self { state, id, run })
    }

    /// The image store.
    pub fn store(&self) -> PathBuf {
        self.state.join("store")
    }
    /// Downloads.
    pub fn cache(&self) -> PathBuf {
        self.state.join("cache")
    }

    /// Opens the network of the state directory, making what is missing.
    pub fn network(&self) -> Result<Arc<Network>, Failure> {
        let options = NetworkOptions {
            id: self.id.clone(),
            run_dir: self.run.clone(),
            shared_dir: SHARED.into(),
            subnet: None,
            offered_ports: Vec::new(),
        };
        std::fs::create_dir_all(&self.run).map_err(|source| Failure::Write { path: self.run.clone(), source })?;
        Network::open(options).map(Arc::new).map_err(|error| Failure::host("make the network of the servers", error))
    }
}
