//! The small files that give images names: which images there are, what the channels point to, the suites, and which
//! layer each finished step left.
//!
//! One file holds one fact, and every write is a new file renamed over the old one, so that a reader (in this process
//! or another) sees the old fact or the new one, and a crash at any instant leaves one of the two. Nothing here is
//! needed to know what an image *is*: that follows from its digest.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use kiln_model::{ChannelName, Digest, ImageDigest, ImageName, Suite, SuiteDigest};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::error::{Context as _, StoreError, at};

/// A file of the index longer than this is not read (a suite holds its scripts, at most 1 MiB each).
const MAX_BYTES: u64 = 64 << 20;

/// What the index says of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageEntry {
    /// Format: 1.
    pub(crate) version: u32,
    /// The image.
    pub(crate) image: ImageDigest,
    /// Its name.
    pub(crate) name: ImageName,
    /// The suite of the newest bake that gave this image.
    pub(crate) suite: SuiteDigest,
    /// When it was baked last.
    pub(crate) baked_at: jiff::Timestamp,
    /// Object (hex) of its metadata image.
    pub(crate) tree: String,
    /// Bytes of its files.
    pub(crate) size: u64,
    /// Names of the steps, one for each layer.
    pub(crate) steps: Vec<String>,
    /// Where it was fetched from; none if it was baked here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fetched_from: Option<String>,
    /// Suites that came with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) suites: Vec<SuiteDigest>,
}

/// What a finished step left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StepEntry {
    /// Format: 1.
    pub(crate) version: u32,
    /// The step's name when it was run, for people.
    pub(crate) name: String,
    /// Its layer.
    pub(crate) layer: Digest,
    /// Bytes of its layer.
    pub(crate) layer_size: u64,
    /// Object (hex) of the metadata image of the tree after the step.
    pub(crate) tree: Option<String>,
    /// When it was run.
    pub(crate) run_at: jiff::Timestamp,
}

/// The index of a store.
#[derive(Debug)]
pub(crate) struct Index {
    dir: PathBuf,
}

impl Index {
    pub(crate) fn open(dir: PathBuf) -> Result<Self, StoreError> {
        for part in ["images", "channels", "suites", "steps"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).doing(|| at("create", &path))?;
        }
        Ok(Self { dir })
    }

    pub(crate) fn images(&self) -> Result<Vec<ImageEntry>, StoreError> {
        let mut all: Vec<ImageEntry> = self.all("images")?;
        all.sort_by(|a, b| b.baked_at.cmp(&a.baked_at).then(a.image.cmp(&b.image)));
        Ok(all)
    }
    pub(crate) fn image(&self, image: &ImageDigest) -> Result<Option<ImageEntry>, StoreError> {
        read(&self.image_path(image))
    }
    pub(crate) fn put_image(&self, entry: &ImageEntry) -> Result<(), StoreError> {
        write(&self.image_path(&entry.image), &json(entry))
    }
    pub(crate) fn remove_image(&self, image: &ImageDigest) -> Result<(), StoreError> {
        remove(&self.image_path(image))
    }

    pub(crate) fn channels(&self, name: &ImageName) -> Result<Vec<(ChannelName, ImageDigest)>, StoreError> {
        let dir = self.dir.join("channels").join(name.as_str());
        let mut found = Vec::new();
        for path in list(&dir)? {
            let channel = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok());
            if let (Some(channel), Some(image)) = (channel, read::<ImageDigest>(&path)?) {
                found.push((channel, image));
            }
        }
        Ok(found)
    }
    /// The image of every channel of every name.
    pub(crate) fn all_channels(&self) -> Result<Vec<ImageDigest>, StoreError> {
        let names = list(&self.dir.join("channels"))?;
        let names = names.iter().filter_map(|p| p.file_name()?.to_str()?.parse::<ImageName>().ok());
        let mut found = Vec::new();
        for name in names {
            found.extend(self.channels(&name)?.into_iter().map(|(_, image)| image));
        }
        Ok(found)
    }
    pub(crate) fn put_channel(
        &self,
        name: &ImageName,
        channel: &ChannelName,
        image: &ImageDigest,
    ) -> Result<(), StoreError> {
        let dir = self.dir.join("channels").join(name.as_str());
        fs::create_dir_all(&dir).doing(|| at("create", &dir))?;
        write(&dir.join(channel.as_str()), &json(image))
    }

    pub(crate) fn suite(&self, suite: &SuiteDigest) -> Result<Option<Suite>, StoreError> {
        let path = self.suite_path(suite);
        let found: Option<Suite> = read(&path)?;
        match found {
            Some(found) if found.digest() != *suite => {
                Err(StoreError::damaged(format!("suite {suite}"), "its digest is another"))
            }
            found => Ok(found),
        }
    }
    pub(crate) fn put_suite(&self, suite: &Suite) -> Result<SuiteDigest, StoreError> {
        let digest = suite.digest();
        let path = self.suite_path(&digest);
        if !matches!(read::<Suite>(&path), Ok(Some(found)) if found.digest() == digest) {
            write(&path, &json(suite))?;
        }
        Ok(digest)
    }

    /// Removes the suites that are not to be kept.
    pub(crate) fn retain_suites(
        &self,
        keep: &std::collections::BTreeSet<std::ffi::OsString>,
    ) -> Result<(), StoreError> {
        for path in list(&self.dir.join("suites"))? {
            if !path.file_name().is_some_and(|name| keep.contains(name)) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// What a step left. An entry that a power cut damaged is none: the step is run again.
    pub(crate) fn step(&self, key: &Digest) -> Result<Option<StepEntry>, StoreError> {
        match read(&self.step_path(key)) {
            Err(StoreError::Damaged { .. }) => Ok(None),
            read => read,
        }
    }
    pub(crate) fn steps(&self) -> Result<Vec<(Digest, StepEntry)>, StoreError> {
        let mut found = Vec::new();
        for path in list(&self.dir.join("steps"))? {
            let key = path.file_name().and_then(|n| format!("sha256:{}", n.to_str()?).parse().ok());
            if let Some(key) = key
                && let Some(entry) = self.step(&key)?
            {
                found.push((key, entry));
            }
        }
        Ok(found)
    }
    pub(crate) fn put_step(&self, key: &Digest, entry: &StepEntry) -> Result<(), StoreError> {
        replace(&self.step_path(key), &json(entry), Sync::Later)
    }
    pub(crate) fn remove_step(&self, key: &Digest) -> Result<(), StoreError> {
        remove(&self.step_path(key))
    }

    fn all<T: DeserializeOwned>(&self, part: &str) -> Result<Vec<T>, StoreError> {
        let paths = list(&self.dir.join(part))?;
        paths.iter().filter_map(|path| read(path).transpose()).collect()
    }
    fn image_path(&self, image: &ImageDigest) -> PathBuf {
        self.dir.join("images").join(image.0.hex())
    }
    fn suite_path(&self, suite: &SuiteDigest) -> PathBuf {
        self.dir.join("suites").join(suite.0.hex())
    }
    fn step_path(&self, key: &Digest) -> PathBuf {
        self.dir.join("steps").join(key.hex())
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data always serialises")
}

/// The files of a directory, without those that a crash left half written.
fn list(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.doing(|| at("list", dir))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.doing(|| at("list", dir))?.path();
        if !path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b".")) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let meta = match fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        meta => meta.doing(|| at("read", path))?,
    };
    if meta.len() > MAX_BYTES {
        return Err(StoreError::damaged(path.display().to_string(), format!("it is {} bytes long", meta.len())));
    }
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.doing(|| at("read", path))?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| StoreError::damaged(path.display().to_string(), e))
}

/// Whether a write waits for the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    Now,
    Later,
}

/// Replaces a file: durable when it returns, and never seen half written.
fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    replace(path, bytes, Sync::Now)
}

fn replace(path: &Path, bytes: &[u8], sync: Sync) -> Result<(), StoreError> {
    let dir = path.parent().expect("files of the index are in directories");
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir).doing(|| at("create a file in", dir))?;
    file.write_all(bytes).doing(|| at("write", path))?;
    if sync == Sync::Now {
        file.as_file().sync_all().doing(|| at("write", path))?;
    }
    file.persist(path).map_err(|e| e.error).doing(|| at("replace", path))?;
    match sync {
        Sync::Now => fs::File::open(dir).and_then(|dir| dir.sync_all()).doing(|| at("write", dir)),
        Sync::Later => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done.doing(|| at("remove", path)),
    }
}
