//! Which configuration keys test servers have read through metadata: `reads/HEX.json` of the state directory, a list of keys
//! for each image, for `kiln config lint`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use kiln_model::ImageDigest;

/// Keys that were read, by image.
pub struct KeyReads {
    directory: PathBuf,
    known: Mutex<BTreeMap<ImageDigest, BTreeSet<String>>>,
}

impl KeyReads {
    /// Those of a state directory.
    pub fn of_state(state_dir: &Path) -> Self {
        Self { directory: state_dir.join("reads"), known: Mutex::default() }
    }

    /// The keys of an image that were read, in any test.
    pub fn of_image(&self, image: &ImageDigest) -> BTreeSet<String> {
        let bytes = fs::read(self.path(image)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Remembers that a key was read.
    pub fn note(&self, image: &ImageDigest, key: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = known.entry(*image).or_insert_with(|| self.of_image(image));
        if keys.insert(key.to_owned())
            && let Err(error) = self.write(image, keys)
        {
            tracing::warn!(%error, "could not note that a configuration key was read");
        }
    }

    fn path(&self, image: &ImageDigest) -> PathBuf {
        self.directory.join(format!("{}.json", image.0.hex()))
    }

    fn write(&self, image: &ImageDigest, keys: &BTreeSet<String>) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let (path, partial) = (self.path(image), self.path(image).with_extension("partial"));
        fs::write(&partial, serde_json::to_vec(keys)?)?;
        fs::rename(partial, path)
    }
}
