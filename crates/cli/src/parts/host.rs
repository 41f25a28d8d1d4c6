//! Where things of a state directory are on this host.

use std::{
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use kiln_runtime::{RuntimeOptions, network::Network};

use crate::failure::Failure;

/// The places of one state directory.
pub(crate) struct HostPlaces {
    /// The state directory, without symbolic links.
    pub state: PathBuf,
    /// Sockets and records that need not outlive a reboot.
    pub run: PathBuf,
    /// Eight hexadecimal digits that stand for the state directory in names of interfaces, tables and control groups.
    pub id: String,
    options: RuntimeOptions,
}

impl HostPlaces {
    /// The places of a state directory, which is made (mode 0700) if it is not there.
    pub fn of(state: &Path) -> Result<Self, Failure> {
        let failed = |source| Failure::Write { path: state.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(failed)?;
        let options =
            RuntimeOptions::for_state(state).map_err(|error| Failure::host("find the state directory", error))?;
        let (state, run, id) = (options.state_dir.clone(), options.run_dir.clone(), options.id.clone());
        Ok(Self { state, run, id, options })
    }

    /// The image store.
    pub fn store(&self) -> PathBuf {
        self.state.join("store")
    }
    /// Downloads.
    pub fn cache(&self) -> PathBuf {
        self.state.join("cache")
    }

    /// Opens the network of the state directory, making what is missing; none where servers have none.
    pub fn network(&self) -> Result<Option<Arc<Network>>, Failure> {
        std::fs::create_dir_all(&self.run).map_err(|source| Failure::Write { path: self.run.clone(), source })?;
        let opened = self.options.network.clone().map(Network::open).transpose();
        Ok(opened.map_err(|error| Failure::host("make the network of the servers", error))?.map(Arc::new))
    }
}
