//! Keys listed, added, rotated, revoked and exported.
//!
//! Each change is one rename, so that a crash leaves the old state or the new one; the order of the steps of a rotation is such
//! that what the old key signed is believed at every instant.

use std::path::{Path, PathBuf};

use kiln_model::{
    KeyName,
    evidence::{VerifyingKey, key_id},
    trust::{THIS_HOST, TrustedKey},
};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use super::{
    Keys, KeysError,
    files::{io_error, make, pem_files, public_pem, read_public, rename, write_new},
    this_host,
};

/// So many digits of a key's id are in file names.
const ID_DIGITS: usize = 16;
/// At least so many must be given to mean a key.
const LEAST_DIGITS: usize = 8;

/// A key that is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    /// Its name.
    pub name: KeyName,
    /// Its id: hex SHA-256 of the public key's 32 bytes.
    pub id: String,
    /// What it is here.
    pub state: KeyState,
}

/// What a key is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Reports are signed with it.
    Signing,
    /// Reports were signed with it here; they are still believed.
    Retired,
    /// Somebody else's, believed.
    Trusted,
    /// Believed no more.
    Revoked,
}

impl KeyState {
    /// A word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Retired => "retired",
            Self::Trusted => "trusted",
            Self::Revoked => "revoked",
        }
    }
}

impl Keys {
    /// Every key that is known here.
    pub fn list(&self) -> Result<Vec<KeyEntry>, KeysError> {
        let entry = |key: &TrustedKey, state| KeyEntry { name: key.name.clone(), id: key_id(&key.key), state };
        let own = TrustedKey { name: this_host(), key: self.signing()?.verifying_key() };
        let revoked = self.revoked_keys()?;
        let good = |key: &(PathBuf, TrustedKey)| !revoked.iter().any(|(_, revoked)| revoked.key == key.1.key);
        let mut all = vec![entry(&own, KeyState::Signing)];
        let retired: Vec<_> = self.retired()?.into_iter().filter(|(_, key)| key.key != own.key).collect();
        all.extend(retired.iter().filter(|key| good(key)).map(|(_, key)| entry(key, KeyState::Retired)));
        all.extend(self.trusted()?.iter().filter(|key| good(key)).map(|(_, key)| entry(key, KeyState::Trusted)));
        all.extend(revoked.iter().map(|(_, key)| entry(key, KeyState::Revoked)));
        Ok(all)
    }

    /// Believes a key from now on.
    pub fn add(&self, name: &KeyName, file: &Path) -> Result<KeyEntry, KeysError> {
        let _lock = self.lock()?;
        if name.as_str() == THIS_HOST {
            return Err(KeysError::OwnName);
        }
        let key = read_public(file)?;
        if let Some((path, known)) = self.revoked_keys()?.into_iter().find(|(_, known)| known.key == key) {
            return Err(KeysError::Revoked { name: known.name, path });
        }
        let own = [(PathBuf::new(), TrustedKey { name: this_host(), key: self.signing()?.verifying_key() })];
        for (_, known) in own.into_iter().chain(self.retired()?).chain(self.trusted()?) {
            if known.key == key {
                return Err(KeysError::Known { what: "this key", name: known.name });
            }
            if known.name == *name {
                return Err(KeysError::Known { what: "another key", name: known.name });
            }
        }
        let path = self.dir.join("trusted").join(format!("{name}.pem"));
        write_new(&path, public_pem(&key, &path)?.as_bytes(), 0o644)?;
        Ok(KeyEntry { name: name.clone(), id: key_id(&key), state: KeyState::Trusted })
    }

    /// Signs with a new key from now on. What the old one signed stays believed until it is revoked or expires.
    pub fn rotate(&self) -> Result<(KeyEntry, KeyEntry), KeysError> {
        let _lock = self.lock()?;
        let old = self.signing()?.verifying_key();
        // First of all, so that reports of the old key are believed whenever the power fails.
        let retired = self.dir.join("retired").join(format!("{}.pem", short(&key_id(&old))));
        write_new(&retired, public_pem(&old, &retired)?.as_bytes(), 0o644)?;
        let new = make(&self.dir.join("signing.pem"))?;
        self.publish(&new)?;
        let entry = |key: &VerifyingKey, state| KeyEntry { name: this_host(), id: key_id(key), state };
        Ok((entry(&old, KeyState::Retired), entry(&new.verifying_key(), KeyState::Signing)))
    }

    /// Believes a key no more, by its name or the beginning of its id.
    pub fn revoke(&self, which: &str) -> Result<KeyEntry, KeysError> {
        let _lock = self.lock()?;
        let is_meant = |key: &TrustedKey| {
            let by_name = key.name.as_str() == which && which != THIS_HOST;
            by_name || (which.len() >= LEAST_DIGITS && key_id(&key.key).starts_with(which))
        };
        let own = TrustedKey { name: this_host(), key: self.signing()?.verifying_key() };
        if which == THIS_HOST || is_meant(&own) {
            return Err(KeysError::InUse);
        }
        let mut known = self.trusted()?.into_iter().chain(self.retired()?);
        let found = known.find(|(_, key)| is_meant(key));
        let (path, key) = found.ok_or_else(|| KeysError::NoKey { name: which.to_owned() })?;
        let id = key_id(&key.key);
        rename(&path, &self.dir.join("revoked-keys").join(format!("{}.{}.pem", key.name, short(&id))))?;
        tracing::warn!(name = %key.name, key = id, "the key was revoked");
        Ok(KeyEntry { name: key.name, id, state: KeyState::Revoked })
    }

    /// A public key as a PEM text: the one that reports are signed with, or the trusted one of this name.
    pub fn export(&self, name: Option<&KeyName>) -> Result<String, KeysError> {
        let path = self.dir.join("signing.pub.pem");
        let own = || Ok(self.signing()?.verifying_key());
        let key = match name {
            None => own()?,
            Some(name) if name.as_str() == THIS_HOST => own()?,
            Some(name) => {
                let mut trusted = self.trusted()?.into_iter();
                let found = trusted.find(|(_, key)| key.name == *name);
                found.ok_or_else(|| KeysError::NoKey { name: name.to_string() })?.1.key
            }
        };
        public_pem(&key, &path)
    }

    pub(super) fn trusted(&self) -> Result<Vec<(PathBuf, TrustedKey)>, KeysError> {
        self.named("trusted", |stem| stem.parse().map_err(|e: kiln_model::id::InvalidName| e.to_string()))
    }
    pub(super) fn retired(&self) -> Result<Vec<(PathBuf, TrustedKey)>, KeysError> {
        self.named("retired", |_| Ok(this_host()))
    }
    pub(super) fn revoked_keys(&self) -> Result<Vec<(PathBuf, TrustedKey)>, KeysError> {
        let name = |stem: &str| stem.split('.').next().unwrap_or_default().parse();
        self.named("revoked-keys", |stem| name(stem).map_err(|e: kiln_model::id::InvalidName| e.to_string()))
    }

    fn named(
        &self,
        part: &str,
        name: impl Fn(&str) -> Result<KeyName, String>,
    ) -> Result<Vec<(PathBuf, TrustedKey)>, KeysError> {
        let read = |path: PathBuf| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let name = name(&stem).map_err(|reason| KeysError::NotAName { path: path.clone(), reason })?;
            let key = read_public(&path)?;
            Ok((path, TrustedKey { name, key }))
        };
        pem_files(&self.dir.join(part))?.into_iter().map(read).collect()
    }

    /// One change at a time.
    pub(super) fn lock(&self) -> Result<std::os::fd::OwnedFd, KeysError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&self.dir, flags, Mode::empty());
        let directory = opened.map_err(|e| io_error("open", &self.dir, e.into()))?;
        flock(&directory, FlockOperation::LockExclusive).map_err(|e| io_error("lock", &self.dir, e.into()))?;
        Ok(directory)
    }
}

fn short(id: &str) -> &str {
    id.get(..ID_DIGITS).unwrap_or(id)
}
