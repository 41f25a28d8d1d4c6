//! Which repositories are known to have a blob: a hint for mounting instead of sending, never more.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use kiln_model::{Digest, oci::OciReference};

use super::RegistryError;

/// So many repositories are remembered for a blob.
const MAX_PLACES: usize = 4;
/// A file is at most this long, bytes.
const MAX_FILE: u64 = 4096;

/// What is remembered.
pub(crate) struct Places {
    directory: PathBuf,
}

impl Places {
    /// Below the directory of downloads.
    pub(crate) fn open(downloads: &Path) -> Result<Self, RegistryError> {
        let directory = downloads.join("oci/places");
        let made = fs::create_dir_all(&directory);
        made.map_err(|source| RegistryError::Settings { path: directory.clone(), source })?;
        Ok(Self { directory })
    }

    /// Repositories of the same registry that had the blob, newest first.
    pub(crate) fn of(&self, blob: &Digest, at: &OciReference) -> Vec<String> {
        let prefix = format!("{}/", at.registry);
        self.read(blob).iter().filter_map(|place| place.strip_prefix(&prefix)).map(str::to_owned).collect()
    }

    /// A repository has the blob.
    pub(crate) fn remember(&self, blob: &Digest, at: &OciReference) {
        let place = format!("{}/{}", at.registry, at.repository);
        let mut places = self.read(blob);
        if places.first() == Some(&place) {
            return;
        }
        places.retain(|known| *known != place);
        places.insert(0, place);
        places.truncate(MAX_PLACES);
        if let Err(error) = self.write(blob, &places) {
            tracing::debug!(%error, "where a blob is could not be remembered");
        }
    }

    fn read(&self, blob: &Digest) -> Vec<String> {
        let mut text = String::new();
        let read = fs::File::open(self.directory.join(blob.hex()))
            .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
        // What cannot be read is not known.
        if read.is_err() { Vec::new() } else { text.lines().map(str::to_owned).collect() }
    }

    fn write(&self, blob: &Digest, places: &[String]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        file.write_all(places.join("\n").as_bytes())?;
        file.persist(self.directory.join(blob.hex()))?;
        Ok(())
    }
}
