//! The keys of a state directory: the one that reports are signed with here, and those that are believed.
//!
//! | below `keys/` | holds |
//! | --- | --- |
//! | `signing.pem` | this host's ed25519 key, PKCS#8 PEM, mode 0600, made at first use |
//! | `signing.pub.pem` | its public half, for other hosts' `trusted/` and for `cosign verify-attestation --key` |
//! | `identity.pem` | the key that servers' identity tokens are signed with ([`crate::metadata`]), the same way |
//! | `trusted/*.pem` | public keys of others whose reports are believed here |
//! | `revoked` | digests of images that are never launched again, one to a line; `#` begins a comment |
//!
//! What is trusted and revoked is read anew each time it is asked for, so a change holds from the next launch on.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
    spki::der::pem::LineEnding,
};
use kiln_model::{
    ImageDigest,
    evidence::{SigningKey, VerifyingKey, key_id},
    fleet::EvidencePolicy,
    trust::{TrustPolicy, TrustedKey},
};

/// A key file or a list is at most this long, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why keys could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file operation failed.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The private key can be read by others.
    #[error("{} has mode {mode:04o}: others may have read the key; make it 0600, or remove it to get a new one", path.display())]
    Exposed {
        /// The key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file does not hold an ed25519 key in PEM.
    #[error("{} does not hold an ed25519 key in PEM form: {reason}", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A line of `revoked` is not an image digest.
    #[error("line {line} of {} is not an image digest: {reason}", path.display())]
    NotADigest {
        /// The list.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// The keys of a state directory.
#[derive(Debug)]
pub struct Keys {
    dir: PathBuf,
    signing: SigningKey,
}

impl Keys {
    /// Opens `keys/` of a state directory; makes it and the signing key if they are not there.
    pub fn open(state_dir: &Path) -> Result<Self, KeysError> {
        let dir = state_dir.join("keys");
        let trusted = dir.join("trusted");
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&trusted);
        made.map_err(|source| io_error("create", &trusted, source))?;
        let path = dir.join("signing.pem");
        let signing = match read_private(&path)? {
            Some(key) => key,
            None => make(&path)?,
        };
        let public = dir.join("signing.pub.pem");
        if !public.exists() {
            let pem = signing.verifying_key().to_public_key_pem(LineEnding::LF);
            let pem = pem.map_err(|e| KeysError::NotAKey { path: public.clone(), reason: e.to_string() })?;
            write_new(&public, pem.as_bytes(), 0o644)?;
        }
        Ok(Self { dir, signing })
    }

    /// The key that reports are signed with here.
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// Its id: hex SHA-256 of the public key's 32 bytes.
    pub fn id(&self) -> String {
        key_id(&self.signing.verifying_key())
    }

    /// What is believed now: the own key, `trusted/*.pem`, without `revoked`.
    pub fn policy(&self, evidence: EvidencePolicy) -> Result<TrustPolicy, KeysError> {
        let own = TrustedKey { name: "this host".to_owned(), key: self.signing.verifying_key() };
        let keys = [own].into_iter().chain(self.trusted()?).collect();
        Ok(TrustPolicy { keys, revoked: self.revoked()?, evidence })
    }

    fn trusted(&self) -> Result<Vec<TrustedKey>, KeysError> {
        let dir = self.dir.join("trusted");
        let entries = fs::read_dir(&dir).map_err(|source| io_error("list", &dir, source))?;
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| Ok(entry.map_err(|source| io_error("list", &dir, source))?.path()))
            .collect::<Result<_, KeysError>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "pem"));
        paths.sort();
        paths.iter().map(|path| read_public(path)).collect()
    }

    fn revoked(&self) -> Result<BTreeSet<ImageDigest>, KeysError> {
        let path = self.dir.join("revoked");
        let Some(text) = read(&path)? else { return Ok(BTreeSet::new()) };
        let lines = text.lines().enumerate().map(|(number, line)| {
            let digest = line.split('#').next().unwrap_or_default().trim();
            (number + 1, digest)
        });
        let parse = |(line, digest): (usize, &str)| {
            digest.parse().map_err(|e: kiln_model::digest::InvalidDigest| KeysError::NotADigest {
                path: path.clone(),
                line,
                reason: e.to_string(),
            })
        };
        lines.filter(|(_, digest)| !digest.is_empty()).map(parse).collect()
    }
}

/// A private key that only this state directory uses, made at first use.
pub(crate) fn own_key(path: &Path) -> Result<SigningKey, KeysError> {
    match read_private(path)? {
        Some(key) => Ok(key),
        None => make(path),
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> KeysError {
    KeysError::Io { action, path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<Option<String>, KeysError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("open", path, source)),
    };
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|source| io_error("read", path, source))?;
    Ok(Some(text))
}

fn read_private(path: &Path) -> Result<Option<SigningKey>, KeysError> {
    let Some(text) = read(path)? else { return Ok(None) };
    let mode = fs::metadata(path).map_err(|source| io_error("look at", path, source))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeysError::Exposed { path: path.to_owned(), mode });
    }
    let key = SigningKey::from_pkcs8_pem(&text);
    key.map(Some).map_err(|e| KeysError::NotAKey { path: path.to_owned(), reason: e.to_string() })
}

fn read_public(path: &Path) -> Result<TrustedKey, KeysError> {
    let text = read(path)?.unwrap_or_default();
    let key = VerifyingKey::from_public_key_pem(&text)
        .map_err(|e| KeysError::NotAKey { path: path.to_owned(), reason: e.to_string() })?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(TrustedKey { name, key })
}

fn make(path: &Path) -> Result<SigningKey, KeysError> {
    let mut seed = [0; 32];
    let mut filled = 0;
    while filled < seed.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut seed[filled..], flags)
            .map_err(|e| io_error("draw random bytes for", path, e.into()))?;
    }
    let key = SigningKey::from_bytes(&seed);
    let pem = key
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|e| KeysError::NotAKey { path: path.to_owned(), reason: e.to_string() })?;
    write_new(path, pem.as_bytes(), 0o600)?;
    tracing::info!(key = key_id(&key.verifying_key()), path = %path.display(), "made a key");
    Ok(key)
}

/// Writes a file that is not there yet, whole or not at all.
fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), KeysError> {
    let partial = path.with_extension("partial");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&partial)
        .map_err(|source| io_error("create", &partial, source))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(|source| io_error("write", &partial, source))?;
    fs::rename(&partial, path).map_err(|source| io_error("name", path, source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn host_a_key_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Keys::open(dir.path()).unwrap();
        let second = Keys::open(dir.path()).unwrap();
        assert_eq!(first.id(), second.id());
        let path = dir.path().join("keys/signing.pem");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Keys::open(dir.path()), Err(KeysError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn host_trusted_keys_and_revoked_images_are_read_anew() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let keys = Keys::open(here.path()).unwrap();
        assert_eq!(keys.policy(EvidencePolicy::default()).unwrap().keys.len(), 1);
        let other = Keys::open(there.path()).unwrap();
        fs::copy(there.path().join("keys/signing.pub.pem"), here.path().join("keys/trusted/ci.pem")).unwrap();
        let digest = ImageDigest(kiln_model::Digest::of(b"x"));
        fs::write(here.path().join("keys/revoked"), format!("# bad\n\n{digest} # CVE\n")).unwrap();
        let policy = keys.policy(EvidencePolicy::default()).unwrap();
        assert_eq!(policy.keys[1].name, "ci");
        assert_eq!(policy.keys[1].key, other.signing().verifying_key());
        assert!(policy.revoked.contains(&digest));
    }

    #[test]
    fn host_what_is_not_a_key_or_a_digest_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path()).unwrap();
        fs::write(dir.path().join("keys/revoked"), "sha256:12\n").unwrap();
        let error = keys.policy(EvidencePolicy::default()).unwrap_err();
        assert!(error.to_string().starts_with("line 1 of "), "{error}");
        fs::remove_file(dir.path().join("keys/revoked")).unwrap();
        fs::write(dir.path().join("keys/trusted/bad.pem"), "no key").unwrap();
        let error = keys.policy(EvidencePolicy::default()).unwrap_err();
        assert!(error.to_string().contains("bad.pem"), "{error}");
    }
}
