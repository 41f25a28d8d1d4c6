//! Forwarding: the host has to route between the bridge and the interfaces that lead out, and no others.
//!
//! The kernel asks the interface that a packet came in through, so forwarding is switched on for the bridge and for
//! the interfaces with a default route, not for the whole host. Several state directories need the same outgoing
//! interface: a file per interface below the shared directory remembers what was set before the first of them, and
//! who still needs it; the last to leave puts the old value back.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{NetworkError, error::failed, shared::write_whole};

#[derive(Debug, Serialize, Deserialize)]
struct Borrowed {
    /// The value before Kiln changed it.
    previous: String,
    /// The state directories that need it.
    users: BTreeSet<String>,
}

fn sysctl(interface: &str) -> PathBuf {
    // A dot inside an interface's name stays as it is: these are paths, not sysctl names.
    Path::new("/proc/sys/net/ipv4/conf").join(interface).join("forwarding")
}

/// The register of borrowed settings. The caller holds the shared directory's lock.
pub(super) struct Forwarding<'a> {
    /// Directory that every state directory of this host shares.
    pub(super) directory: &'a Path,
    /// Who borrows.
    pub(super) user: &'a str,
}

impl Forwarding<'_> {
    fn record_path(&self, interface: &str) -> PathBuf {
        self.directory.join(format!("forwarding-{interface}.json"))
    }

    fn read(&self, interface: &str) -> Result<Option<Borrowed>, NetworkError> {
        let path = self.record_path(interface);
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|source| NetworkError::Record { path, source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    fn write(&self, interface: &str, borrowed: &Borrowed) -> Result<(), NetworkError> {
        let path = self.record_path(interface);
        let bytes =
            serde_json::to_vec(borrowed).map_err(|source| NetworkError::Record { path: path.clone(), source })?;
        write_whole(&path, &bytes).map_err(failed("write", &path))
    }

    fn current(interface: &str) -> Result<String, NetworkError> {
        let path = sysctl(interface);
        Ok(fs::read_to_string(&path).map_err(failed("read", &path))?.trim().to_owned())
    }

    fn record(&self, interface: &str) -> Result<Borrowed, NetworkError> {
        match self.read(interface)? {
            Some(borrowed) => Ok(borrowed),
            None => Ok(Borrowed { previous: Self::current(interface)?, users: BTreeSet::new() }),
        }
    }

    /// Whether an outgoing interface forwards only because of Kiln, or would after [`Self::borrow`].
    pub(super) fn would_borrow(&self, interface: &str) -> Result<bool, NetworkError> {
        Ok(self.record(interface)?.previous == "0")
    }

    /// Switches forwarding on for an outgoing interface that does not forward by itself.
    pub(super) fn borrow(&self, interface: &str) -> Result<(), NetworkError> {
        let mut borrowed = self.record(interface)?;
        borrowed.users.insert(self.user.to_owned());
        // Recorded first: a crash in between leaves a record of a change not made, which is harmless.
        self.write(interface, &borrowed)?;
        self.switch_on_own(interface)
    }

    /// Switches forwarding on for an interface that goes when its user goes.
    pub(super) fn switch_on_own(&self, interface: &str) -> Result<(), NetworkError> {
        if Self::current(interface)? == "1" {
            return Ok(());
        }
        let path = sysctl(interface);
        fs::write(&path, "1").map_err(failed("switch forwarding on in", &path))
    }

    /// Gives back everything this user borrowed.
    pub(super) fn give_back(&self) -> Result<(), NetworkError> {
        let listing = fs::read_dir(self.directory).map_err(failed("list", self.directory))?;
        for entry in listing {
            let name = entry.map_err(failed("list", self.directory))?.file_name();
            let Some(name) = name.to_str() else { continue };
            let interface = name.strip_prefix("forwarding-").and_then(|rest| rest.strip_suffix(".json"));
            if let Some(interface) = interface {
                self.give_back_one(interface)?;
            }
        }
        Ok(())
    }

    fn give_back_one(&self, interface: &str) -> Result<(), NetworkError> {
        let Some(mut borrowed) = self.read(interface)? else { return Ok(()) };
        if !borrowed.users.remove(self.user) {
            return Ok(());
        }
        if !borrowed.users.is_empty() {
            return self.write(interface, &borrowed);
        }
        let path = sysctl(interface);
        match fs::write(&path, &borrowed.previous) {
            Ok(()) => {}
            // The interface is gone, and its setting with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("put the old value back in", &path)(error)),
        }
        let record = self.record_path(interface);
        fs::remove_file(&record).map_err(failed("remove", &record))
    }
}
