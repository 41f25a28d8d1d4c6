//! The secrets of configurations, sealed in the state directory.
//!
//! | file | holds |
//! | --- | --- |
//! | `keys/secrets.key` | 64 random bytes, mode 0600, made at first use: the key of the hashes, then the key of the seal |
//! | `secrets/HEX` | one value, named by its keyed hash: a nonce, then its JSON under ChaCha20-Poly1305 (RFC 8439) with the name as associated data |
//!
//! A secret is here before anything on disk names it, so that healing, rollback and a daemon that was killed find it. What
//! the database, events and reports hold of it is the keyed hash.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit as _, Nonce,
    aead::{Aead as _, Payload},
};
use kiln_model::{
    FrozenConfig,
    config::{ConfigValue, HashKey, SecretHash, Secrets},
};

const NONCE: usize = 12;

/// Why secrets could not be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A file operation failed.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key can be read by others, or is not one.
    #[error("{} is not a key of 64 bytes that only its owner can read", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// A sealed value was changed, or sealed with another key.
    #[error("the secret {} cannot be opened: it was changed, or sealed with another key", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
    },
}

/// The sealed secrets of a state directory.
pub struct SecretStore {
    directory: PathBuf,
    hashes: HashKey,
    seal: ChaCha20Poly1305,
}

impl std::fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretStore").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl SecretStore {
    /// Opens the store of a state directory; makes it and its key at first use.
    pub fn open(state_dir: &Path) -> Result<Self, SecretsError> {
        let (directory, keys) = (state_dir.join("secrets"), state_dir.join("keys"));
        for path in [&directory, &keys] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(failed("create", path))?;
        }
        let key = key(&keys.join("secrets.key"))?;
        let (hashes, seal) = key.split_at(32);
        let hashes = HashKey::new(hashes.try_into().expect("the first half has 32 bytes"));
        let seal = ChaCha20Poly1305::new_from_slice(seal).expect("the second half has 32 bytes");
        Ok(Self { directory, hashes, seal })
    }

    /// The key of the hashes.
    pub fn hash_key(&self) -> &HashKey {
        &self.hashes
    }

    /// Keeps secrets. They are on disk when this returns.
    pub fn keep(&self, secrets: &Secrets) -> Result<(), SecretsError> {
        secrets.0.iter().try_for_each(|(hash, value)| self.keep_one(hash, value))
    }

    /// Seals one value that belongs to this place. It is on disk when this returns.
    pub(crate) fn seal(&self, place: &str, value: &ConfigValue) -> Result<SecretHash, SecretsError> {
        let hash = self.hashes.hash(place, value);
        self.keep_one(&hash, value).map(|()| hash)
    }

    fn keep_one(&self, hash: &SecretHash, value: &ConfigValue) -> Result<(), SecretsError> {
        let path = self.path(hash);
        if let Ok(file) = fs::File::open(&path) {
            // It is wanted again from now on: see `collect`.
            return file.set_modified(SystemTime::now()).map_err(failed("mark", &path));
        }
        let nonce: [u8; NONCE] = rand::random();
        let text = serde_json::to_vec(value).expect("a value always serialises");
        let name = hash.0.to_string();
        let payload = Payload { msg: &text, aad: name.as_bytes() };
        let sealed = self.seal.encrypt(&Nonce::from(nonce), payload).expect("a value is far below the cipher's limit");
        write_new(&self.directory, &path, &[&nonce[..], &sealed].concat()).map_err(failed("write", &path))
    }

    /// The secrets that a configuration names.
    pub fn of(&self, config: &FrozenConfig) -> Result<Secrets, SecretsError> {
        config.secrets().map(|hash| Ok((hash.clone(), self.open_one(hash)?))).collect::<Result<_, _>>().map(Secrets)
    }

    pub(crate) fn open_one(&self, hash: &SecretHash) -> Result<ConfigValue, SecretsError> {
        let path = self.path(hash);
        let bytes = fs::read(&path).map_err(failed("read", &path))?;
        let broken = || SecretsError::Broken { path: path.clone() };
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>().ok_or_else(broken)?;
        let name = hash.0.to_string();
        let payload = Payload { msg: sealed, aad: name.as_bytes() };
        let text = self.seal.decrypt(&Nonce::from(*nonce), payload).map_err(|_| broken())?;
        serde_json::from_slice(&text).map_err(|_| broken())
    }

    /// Removes every secret that is not to be kept and was not wanted again for so long: before that, a release that names it
    /// may be under test. Returns how many.
    pub fn collect(&self, keep: &BTreeSet<SecretHash>, older_than: Duration) -> Result<u64, SecretsError> {
        let keep: BTreeSet<_> = keep.iter().map(|hash| hash.0.hex()).collect();
        let mut removed = 0;
        for entry in fs::read_dir(&self.directory).map_err(failed("list", &self.directory))? {
            let path = entry.map_err(failed("list", &self.directory))?.path();
            let wanted = fs::metadata(&path).and_then(|status| status.modified()).map_err(failed("look at", &path))?;
            let old = wanted.elapsed().is_ok_and(|age| age >= older_than);
            if old && path.file_name().and_then(|name| name.to_str()).is_none_or(|name| !keep.contains(name)) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The error for a sealed value that is not what it should be.
    pub(crate) fn broken(&self, hash: &SecretHash) -> SecretsError {
        SecretsError::Broken { path: self.path(hash) }
    }

    fn path(&self, hash: &SecretHash) -> PathBuf {
        self.directory.join(hash.0.hex())
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SecretsError {
    let path = path.to_owned();
    move |source| SecretsError::Io { action, path, source }
}

fn key(path: &Path) -> Result<[u8; 64], SecretsError> {
    match fs::read(path) {
        Ok(bytes) => {
            let mode = fs::metadata(path).map_err(failed("look at", path))?.mode();
            let private = mode & 0o077 == 0;
            bytes.try_into().ok().filter(|_| private).ok_or_else(|| SecretsError::NotAKey { path: path.to_owned() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key: [u8; 64] = std::array::from_fn(|_| rand::random());
            write_new(path.parent().unwrap_or(path), path, &key).map_err(failed("write", path))?;
            Ok(key)
        }
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Whole or not at all, also after a power cut.
fn write_new(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension(format!("{:08x}", rand::random::<u32>()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use kiln_model::Digest;

    use super::*;

    fn secrets(text: &str) -> (SecretHash, Secrets) {
        let hash = SecretHash(Digest::of(text.as_bytes()));
        (hash.clone(), Secrets([(hash, ConfigValue::Text(text.to_owned()))].into()))
    }

    fn config(hash: &SecretHash) -> FrozenConfig {
        let value = kiln_model::config::Frozen::Secret(hash.clone());
        FrozenConfig { values: [("password".parse().unwrap(), value)].into(), ..FrozenConfig::default() }
    }

    #[test]
    fn host_secrets_are_found_again_by_another_process_and_never_lie_in_clear() {
        let state = tempfile::tempdir().unwrap();
        let (hash, kept) = secrets("correct horse battery staple");
        SecretStore::open(state.path()).unwrap().keep(&kept).unwrap();
        let again = SecretStore::open(state.path()).unwrap();
        assert_eq!(again.of(&config(&hash)).unwrap(), kept);
        let sealed = fs::read(again.path(&hash)).unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"battery"));
        assert_eq!(fs::metadata(again.path(&hash)).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn host_a_sealed_secret_that_was_changed_or_renamed_is_refused() {
        let state = tempfile::tempdir().unwrap();
        let store = SecretStore::open(state.path()).unwrap();
        let ((one, kept), (two, _)) = (secrets("one"), secrets("two"));
        store.keep(&kept).unwrap();
        fs::copy(store.path(&one), store.path(&two)).unwrap();
        assert!(matches!(store.of(&config(&two)), Err(SecretsError::Broken { .. })));
        let mut bytes = fs::read(store.path(&one)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(store.path(&one), bytes).unwrap();
        assert!(matches!(store.of(&config(&one)), Err(SecretsError::Broken { .. })));
    }

    #[test]
    fn host_what_nothing_names_is_collected_and_a_key_that_others_can_read_is_refused() {
        let state = tempfile::tempdir().unwrap();
        let store = SecretStore::open(state.path()).unwrap();
        let ((one, kept), (two, also)) = (secrets("one"), secrets("two"));
        store.keep(&kept).and_then(|()| store.keep(&also)).unwrap();
        let day = Duration::from_secs(86_400);
        assert_eq!(store.collect(&[one.clone()].into(), day).unwrap(), 0, "it may be under test");
        let long_ago = SystemTime::now() - 2 * day;
        fs::File::open(store.path(&two)).unwrap().set_modified(long_ago).unwrap();
        store.keep(&also).unwrap();
        assert_eq!(store.collect(&[one.clone()].into(), day).unwrap(), 0, "it was wanted again");
        for hash in [&one, &two] {
            fs::File::open(store.path(hash)).unwrap().set_modified(long_ago).unwrap();
        }
        assert_eq!(store.collect(&[one.clone()].into(), day).unwrap(), 1);
        assert!(store.of(&config(&one)).is_ok());
        assert!(store.of(&config(&two)).is_err());
        let key = state.path().join("keys/secrets.key");
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(SecretStore::open(state.path()), Err(SecretsError::NotAKey { .. })));
    }
}
