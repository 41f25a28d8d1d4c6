//! The keys of a state directory: the one that reports are signed with here, and those that are believed.
//!
//! | below `keys/` | holds |
//! | --- | --- |
//! | `signing.pem` | this host's ed25519 key, PKCS#8 PEM, mode 0600, made at first use |
//! | `signing.pub.pem` | its public half, for other hosts' `trusted/` and for `cosign verify-attestation --key` |
//! | `retired/ID.pem` | public halves of this host's earlier keys: what they signed is still believed |
//! | `identity.pem` | the key that servers' identity tokens are signed with ([`crate::metadata`]), the same way |
//! | `trusted/NAME.pem` | public keys of others whose reports are believed here |
//! | `revoked-keys/NAME.ID.pem` | keys whose reports are believed no more, and that cannot be added again |
//! | `revoked` | digests of images that are never launched again, one to a line; behind `#` stands why |
//!
//! Beside them, `trust.toml` says who may sign for which images ([`kiln_model::trust::Rules`]); without it every trusted key
//! may for all; `kiln.toml` says what is asked before a channel is moved ([`kiln_model::promotion`]). Everything is read anew each time it is asked for, so a change holds from the next launch on.

mod files;
mod images;
mod ring;

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use kiln_model::{
    KeyName,
    diagnostic::Diagnostics,
    evidence::{SigningKey, key_id},
    fleet::EvidencePolicy,
    promotion::Channels,
    trust::{Rules, THIS_HOST, TrustPolicy, TrustedKey},
};

pub(crate) use self::files::own_key;
use self::files::{io_error, make, read, read_private, write_new};
pub use self::files::{make_key, private_key};
pub use self::ring::{KeyEntry, KeyState};

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
    /// A file is called after no key.
    #[error("{} is not called NAME.pem: {reason}", path.display())]
    NotAName {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The trust policy or the rules of channels are wrong.
    #[error("{} is wrong: line {}: {}", .0.file, first(.0).0, first(.0).1)]
    Policy(Box<Diagnostics>),
    /// There is no such key.
    #[error("there is no key `{name}` on this host")]
    NoKey {
        /// What was asked for.
        name: String,
    },
    /// A key of this name is there, or this key under another name.
    #[error("{what} is trusted already, as `{name}`")]
    Known {
        /// What.
        what: &'static str,
        /// Under which name.
        name: KeyName,
    },
    /// The key was revoked.
    #[error("this key was revoked here, as `{name}`; {} says so", path.display())]
    Revoked {
        /// Under which name.
        name: KeyName,
        /// The file that says so.
        path: PathBuf,
    },
    /// The name is taken by this host's own key.
    #[error("`{THIS_HOST}` is the name of this host's own key")]
    OwnName,
    /// The key that reports are signed with cannot be revoked.
    #[error("reports are signed with this key here: rotate it first, then revoke the old one by its id")]
    InUse,
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

/// Where it is wrong first, and what is wrong there.
fn first(found: &Diagnostics) -> (usize, &str) {
    found.diagnostics.first().map_or((0, ""), |found| (found.line, found.message.as_str()))
}

/// The keys of a state directory.
#[derive(Debug)]
pub struct Keys {
    dir: PathBuf,
    policy: PathBuf,
    channels: PathBuf,
}

impl Keys {
    /// Opens `keys/` of a state directory; makes it and the signing key if they are not there.
    pub fn open(state_dir: &Path) -> Result<Self, KeysError> {
        let dir = state_dir.join("keys");
        for part in ["trusted", "retired", "revoked-keys"] {
            let path = dir.join(part);
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|source| io_error("create", &path, source))?;
        }
        let keys = Self { dir, policy: state_dir.join("trust.toml"), channels: state_dir.join("kiln.toml") };
        let path = keys.dir.join("signing.pem");
        let signing = match read_private(&path)? {
            Some(key) => key,
            None => make(&path)?,
        };
        keys.publish(&signing)?;
        Ok(keys)
    }

    /// Writes the public half of the signing key beside it, if it is not there.
    fn publish(&self, signing: &SigningKey) -> Result<(), KeysError> {
        let path = self.dir.join("signing.pub.pem");
        let pem = files::public_pem(&signing.verifying_key(), &path)?;
        match read(&path)? {
            Some(known) if known == pem => Ok(()),
            _ => write_new(&path, pem.as_bytes(), 0o644),
        }
    }

    /// The key that reports are signed with here, now.
    pub fn signing(&self) -> Result<SigningKey, KeysError> {
        let path = self.dir.join("signing.pem");
        let missing = || io_error("read", &path, io::ErrorKind::NotFound.into());
        read_private(&path)?.ok_or_else(missing)
    }

    /// Its id: hex SHA-256 of the public key's 32 bytes.
    pub fn id(&self) -> Result<String, KeysError> {
        Ok(key_id(&self.signing()?.verifying_key()))
    }

    /// What is believed now: the own keys, `trusted/*.pem`, as `trust.toml` lets them, without what is revoked.
    pub fn policy(&self, evidence: EvidencePolicy) -> Result<TrustPolicy, KeysError> {
        let revoked_keys: Vec<_> = self.revoked_keys()?.into_iter().map(|(_, key)| key).collect();
        let own = TrustedKey { name: this_host(), key: self.signing()?.verifying_key() };
        let retired = self.retired()?.into_iter().map(|(_, key)| key);
        let trusted = self.trusted()?.into_iter().map(|(_, key)| key);
        let mut keys: Vec<_> = [own].into_iter().chain(retired).chain(trusted).collect();
        // Revoking counts also where somebody copied the key back.
        keys.retain(|key| !revoked_keys.iter().any(|revoked| revoked.key == key.key));
        Ok(TrustPolicy { keys, revoked_keys, rules: self.rules()?, revoked: self.revoked_images()?, evidence })
    }

    /// What `kiln.toml` asks before a channel is moved.
    pub fn channels(&self) -> Result<Channels, KeysError> {
        let Some(text) = read(&self.channels)? else { return Ok(Channels::default()) };
        Channels::parse(&text, &self.channels.display().to_string()).map_err(|found| KeysError::Policy(Box::new(found)))
    }

    /// What `trust.toml` says.
    pub fn rules(&self) -> Result<Rules, KeysError> {
        let Some(text) = read(&self.policy)? else { return Ok(Rules::default()) };
        Rules::parse(&text, &self.policy.display().to_string()).map_err(|found| KeysError::Policy(Box::new(found)))
    }
}

/// The name of the own keys.
pub(crate) fn this_host() -> KeyName {
    THIS_HOST.parse().expect("`this-host` is a valid key name")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use kiln_model::ImageDigest;

    use super::*;

    #[test]
    fn host_a_key_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Keys::open(dir.path()).unwrap();
        let second = Keys::open(dir.path()).unwrap();
        assert_eq!(first.id().unwrap(), second.id().unwrap());
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
        assert_eq!(policy.keys[1].name.as_str(), "ci");
        assert_eq!(policy.keys[1].key, other.signing().unwrap().verifying_key());
        assert_eq!(policy.revoked[&digest], "CVE");
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

    fn policy(keys: &Keys) -> TrustPolicy {
        keys.policy(EvidencePolicy::default()).unwrap()
    }

    /// A public key as another host exports it.
    fn exported(dir: &Path, name: &str) -> PathBuf {
        let other = tempfile::tempdir().unwrap();
        let path = dir.join(name);
        fs::write(&path, Keys::open(other.path()).unwrap().export(None).unwrap()).unwrap();
        path
    }

    #[test]
    fn host_keys_are_added_and_revoked_and_never_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path()).unwrap();
        let (ci, other) = (exported(dir.path(), "ci.pem"), exported(dir.path(), "other.pem"));
        let name: KeyName = "ci".parse().unwrap();
        let added = keys.add(&name, &ci).unwrap();
        assert_eq!(policy(&keys).keys[1].name, name);
        assert!(matches!(keys.add(&"ci-too".parse().unwrap(), &ci), Err(KeysError::Known { what: "this key", .. })));
        assert!(matches!(keys.add(&name, &other), Err(KeysError::Known { what: "another key", .. })));
        assert!(matches!(keys.add(&this_host(), &other), Err(KeysError::OwnName)));
        let own = dir.path().join("keys/signing.pub.pem");
        assert!(matches!(keys.add(&"me".parse().unwrap(), &own), Err(KeysError::Known { .. })));
        let pem = keys.export(Some(&name)).unwrap();
        assert!(matches!(keys.revoke("nobody"), Err(KeysError::NoKey { .. })));
        assert!(matches!(keys.revoke(THIS_HOST), Err(KeysError::InUse)));
        assert!(matches!(keys.revoke(&keys.id().unwrap()), Err(KeysError::InUse)));
        assert_eq!(keys.revoke("ci").unwrap().id, added.id);
        assert_eq!((policy(&keys).keys.len(), policy(&keys).revoked_keys.len()), (1, 1));
        assert!(matches!(keys.add(&"ci".parse().unwrap(), &ci), Err(KeysError::Revoked { .. })));
        // Also not by copying the file back.
        fs::write(dir.path().join("keys/trusted/ci.pem"), pem).unwrap();
        assert_eq!(policy(&keys).keys.len(), 1);
        let states: Vec<_> = keys.list().unwrap().into_iter().map(|key| key.state).collect();
        assert_eq!(states, [KeyState::Signing, KeyState::Revoked]);
    }

    #[test]
    fn host_a_rotated_key_is_believed_until_it_is_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path()).unwrap();
        let before = keys.signing().unwrap();
        let (old, new) = keys.rotate().unwrap();
        assert_eq!(old.id, key_id(&before.verifying_key()));
        assert_eq!(new.id, keys.id().unwrap());
        assert_ne!(old.id, new.id);
        let believed = policy(&keys).keys;
        assert_eq!(believed.len(), 2);
        assert!(believed.iter().all(|key| key.name == this_host()), "both are this host's, and count once");
        let public = fs::read_to_string(dir.path().join("keys/signing.pub.pem")).unwrap();
        assert_eq!(public, keys.export(None).unwrap());
        assert_eq!(fs::metadata(dir.path().join("keys/signing.pem")).unwrap().mode() & 0o7777, 0o600);
        keys.revoke(&old.id[..8]).unwrap();
        assert_eq!(policy(&keys).keys.len(), 1);
        // A crash between the steps of a rotation left the public half of the key in use: it harms nothing.
        fs::write(dir.path().join("keys/signing.pub.pem"), "stale").unwrap();
        assert_eq!(Keys::open(dir.path()).unwrap().id().unwrap(), new.id);
        assert_eq!(fs::read_to_string(dir.path().join("keys/signing.pub.pem")).unwrap(), public);
    }

    #[test]
    fn host_the_trust_policy_is_read_anew_and_a_wrong_one_lets_nothing_in() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path()).unwrap();
        assert_eq!(keys.rules().unwrap(), Rules::AnyKey);
        let path = dir.path().join("trust.toml");
        fs::write(&path, "[[rule]]\nimages = [\"*\"]\nkeys = [\"ci\"]\n").unwrap();
        assert!(!policy(&keys).counts(&"shop".parse().unwrap(), &this_host()));
        fs::write(&path, "[[rule]]\nimages = [\"*\"]\n").unwrap();
        let error = keys.policy(EvidencePolicy::default()).unwrap_err();
        assert!(error.to_string().contains("trust.toml is wrong: line 1: `rule` has no `keys`"), "{error}");
    }
}
