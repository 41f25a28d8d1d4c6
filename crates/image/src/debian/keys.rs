//! Who may sign an archive: OpenPGP keyrings, and texts checked against them, signed within themselves or beside.
//!
//! A text is accepted when at least one of its signatures is good and made by a key of the keyring that is neither
//! expired nor revoked, and none of the signatures by keys of the keyring is wrong. Signatures by other keys do not
//! count: Debian signs with the keys of several releases at once.

use jiff::Timestamp;
use kiln_model::recipe::Distribution;
use pgp::{
    composed::{CleartextSignedMessage, Deserializable, DetachedSignature, SignedPublicKey, SignedPublicSubKey},
    crypto::hash::HashAlgorithm,
    packet::{Signature, SignatureType},
    types::{KeyDetails, Tag},
};

/// A keyring that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// Not OpenPGP, or damaged.
    #[error("the keyring is not a readable OpenPGP keyring")]
    Unreadable(#[source] pgp::errors::Error),
    /// No key in it.
    #[error("the keyring holds no key")]
    Empty,
}

/// Why a signed text is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// There is no signature: the text does not begin with `-----BEGIN PGP SIGNED MESSAGE-----`.
    #[error("it is not signed")]
    Missing,
    /// The signed form is damaged.
    #[error("its signed form cannot be read")]
    Unreadable(#[source] Box<pgp::errors::Error>),
    /// Signed only by keys that are not in the keyring.
    #[error("it is signed only by keys that are not in the keyring ({})", keys.join(", "))]
    Foreign {
        /// Key ids of the signatures.
        keys: Vec<String>,
    },
    /// A signature by a key of the keyring does not fit the text.
    #[error("the signature by key {key} does not match its content")]
    Bad {
        /// Fingerprint.
        key: String,
        /// What did not match.
        #[source]
        source: Box<pgp::errors::Error>,
    },
    /// The signing key is past its end.
    #[error("the signing key {key} expired at {at}")]
    KeyExpired {
        /// Fingerprint.
        key: String,
        /// Its end.
        at: Timestamp,
    },
    /// The signing key is revoked.
    #[error("the signing key {key} is revoked")]
    KeyRevoked {
        /// Fingerprint.
        key: String,
    },
    /// The key is in the keyring but may not sign, or its binding is wrong.
    #[error("the key {key} is not allowed to sign")]
    KeyUnfit {
        /// Fingerprint.
        key: String,
    },
    /// The signature is past its end.
    #[error("the signature by key {key} expired at {at}")]
    Expired {
        /// Fingerprint.
        key: String,
        /// Its end.
        at: Timestamp,
    },
    /// The signature was made after now.
    #[error("the signature by key {key} is from the future ({at}); is this machine's clock right?")]
    Future {
        /// Fingerprint.
        key: String,
        /// When it was made.
        at: Timestamp,
    },
    /// The signature uses MD5, SHA-1 or RIPEMD.
    #[error("the signature by key {key} uses a hash that is no longer safe")]
    WeakHash {
        /// Fingerprint.
        key: String,
    },
}

impl SignatureError {
    /// What to try where a repository of the recipe is signed so.
    pub fn help_of_repository(&self) -> &'static str {
        match self {
            Self::Missing | Self::Unreadable(_) => {
                "nothing is installed from a repository that is not signed: is `url` right, and does a proxy or a login page answer \
                 in its place?"
            }
            Self::Foreign { .. } => {
                "only its own `key` counts for a repository: put the key there that the vendor signs with, after comparing its \
                 fingerprint with what the vendor publishes"
            }
            Self::KeyExpired { .. } | Self::KeyRevoked { .. } | Self::KeyUnfit { .. } => {
                "ask the vendor for the key that it signs with now, and put it into `key`"
            }
            Self::Future { .. } => "set this machine's clock",
            Self::Bad { .. } | Self::Expired { .. } | Self::WeakHash { .. } => {
                "it was changed on its way or is badly kept: nothing was installed from it; tell the vendor"
            }
        }
    }
}

/// A clock on another machine may be a little ahead.
const CLOCK_SKEW: i64 = 300;

/// The keys of Debian 12 and 13: archive, security archive, stable release. See `keys/README.md`.
const DEBIAN: [&[u8]; 6] = [
    include_bytes!("../../keys/debian-archive-bookworm-automatic.gpg"),
    include_bytes!("../../keys/debian-archive-bookworm-security-automatic.gpg"),
    include_bytes!("../../keys/debian-archive-bookworm-stable.gpg"),
    include_bytes!("../../keys/debian-archive-trixie-automatic.gpg"),
    include_bytes!("../../keys/debian-archive-trixie-security-automatic.gpg"),
    include_bytes!("../../keys/debian-archive-trixie-stable.gpg"),
];

/// The key of Ubuntu's archive and its security archive, from 18.04 on.
const UBUNTU: [&[u8]; 1] = [include_bytes!("../../keys/ubuntu-archive-2018.gpg")];

/// Keys that may sign an archive.
#[derive(Debug, Clone)]
pub struct Keyring(Vec<SignedPublicKey>);

impl Keyring {
    /// The keys of a distribution's archive, shipped with Kiln.
    pub fn shipped(of: Distribution) -> Result<Self, KeyringError> {
        let keys = match of {
            Distribution::Debian => &DEBIAN[..],
            Distribution::Ubuntu => &UBUNTU[..],
        };
        keys.iter()
            .try_fold(Vec::new(), |mut keys, bytes| {
                keys.extend(Self::parse(bytes)?.0);
                Ok(keys)
            })
            .map(Self)
    }

    /// Reads a keyring, binary or armoured.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyringError> {
        let keys: Result<Vec<_>, _> = if is_armoured(bytes) {
            SignedPublicKey::from_armor_many(bytes).and_then(|(keys, _headers)| keys.collect())
        } else {
            SignedPublicKey::from_bytes_many(bytes).and_then(|keys| keys.collect())
        };
        match keys.map_err(KeyringError::Unreadable)? {
            keys if keys.is_empty() => Err(KeyringError::Empty),
            keys => Ok(Self(keys)),
        }
    }

    /// The text that was signed, without its signature. Its lines end with CR LF, as they were hashed.
    pub fn open(&self, message: &[u8], now: Timestamp) -> Result<String, SignatureError> {
        let message = str::from_utf8(message).map_err(|_| SignatureError::Missing)?;
        if !message.starts_with("-----BEGIN PGP SIGNED MESSAGE-----") {
            return Err(SignatureError::Missing);
        }
        let (message, _headers) =
            CleartextSignedMessage::from_string(message).map_err(|error| SignatureError::Unreadable(error.into()))?;
        let text = message.signed_text();
        self.accept(message.signatures(), text.as_bytes(), now)?;
        Ok(text)
    }

    /// Checks a text by signatures that lie beside it, armoured or binary.
    pub fn check(&self, text: &[u8], signatures: &[u8], now: Timestamp) -> Result<(), SignatureError> {
        let signatures: Result<Vec<_>, _> = if is_armoured(signatures) {
            DetachedSignature::from_armor_many(signatures).and_then(|(all, _headers)| all.collect())
        } else {
            DetachedSignature::from_bytes_many(signatures).and_then(|all| all.collect())
        };
        let signatures = signatures.map_err(|error| SignatureError::Unreadable(error.into()))?;
        let signatures: Vec<_> = signatures.into_iter().map(|beside| beside.signature).collect();
        self.accept(&signatures, text, now)
    }

    fn accept(&self, signatures: &[Signature], text: &[u8], now: Timestamp) -> Result<(), SignatureError> {
        let mut good = false;
        let mut refused = None;
        for signature in signatures {
            let Some(signer) = self.signer(signature) else { continue };
            match signer.check(signature, text, now) {
                Ok(()) => good = true,
                Err(error @ SignatureError::Bad { .. }) => return Err(error),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        match (good, refused) {
            (true, _) => Ok(()),
            (false, Some(error)) => Err(error),
            (false, None) => Err(foreign(signatures)),
        }
    }

    fn signer(&self, signature: &Signature) -> Option<Signer<'_>> {
        let made_by = |key: &dyn KeyDetails| {
            let (fingerprint, id) = (key.fingerprint(), key.legacy_key_id());
            match signature.issuer_fingerprint().as_slice() {
                [] => signature.issuer_key_id().iter().any(|issuer| **issuer == id),
                issuers => issuers.iter().any(|issuer| **issuer == fingerprint),
            }
        };
        self.0.iter().find_map(|key| {
            if made_by(&key.primary_key) {
                return Some(Signer { key, subkey: None });
            }
            let subkey = key.public_subkeys.iter().find(|subkey| made_by(&subkey.key))?;
            Some(Signer { key, subkey: Some(subkey) })
        })
    }
}

fn is_armoured(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"-----BEGIN")
}

fn foreign(signatures: &[Signature]) -> SignatureError {
    if signatures.is_empty() {
        return SignatureError::Missing;
    }
    let keys = signatures.iter().flat_map(Signature::issuer_key_id).map(|id| id.to_string().to_uppercase());
    SignatureError::Foreign { keys: keys.collect() }
}

/// The key, or the subkey of a key, that a signature names.
struct Signer<'a> {
    key: &'a SignedPublicKey,
    subkey: Option<&'a SignedPublicSubKey>,
}

impl Signer<'_> {
    fn name(&self) -> String {
        let fingerprint = match self.subkey {
            Some(subkey) => subkey.key.fingerprint(),
            None => self.key.primary_key.fingerprint(),
        };
        fingerprint.to_string().to_uppercase()
    }

    fn check(&self, signature: &Signature, text: &[u8], now: Timestamp) -> Result<(), SignatureError> {
        let key = || self.name();
        let is_document = matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary));
        let verified = match self.subkey {
            Some(subkey) => signature.verify(&subkey.key, text),
            None => signature.verify(&self.key.primary_key, text),
        };
        verified.map_err(|source| SignatureError::Bad { key: key(), source: source.into() })?;
        if !is_document {
            return Err(SignatureError::KeyUnfit { key: key() });
        }
        if matches!(signature.hash_alg(), Some(HashAlgorithm::Md5 | HashAlgorithm::Sha1 | HashAlgorithm::Ripemd160)) {
            return Err(SignatureError::WeakHash { key: key() });
        }
        self.check_key(now)?;
        let made = signature.created().map_or(0, |at| i64::from(at.as_secs()));
        if made > now.as_second() + CLOCK_SKEW {
            return Err(SignatureError::Future { key: key(), at: moment(made) });
        }
        match end(made, signature.signature_expiration_time()) {
            Some(at) if at <= now => Err(SignatureError::Expired { key: key(), at }),
            _ => Ok(()),
        }
    }

    fn check_key(&self, now: Timestamp) -> Result<(), SignatureError> {
        let unfit = || SignatureError::KeyUnfit { key: self.name() };
        let revoked = || SignatureError::KeyRevoked { key: self.name() };
        if !self.key.details.revocation_signatures.is_empty() {
            return Err(revoked());
        }
        let own = self.newest_own_signature().ok_or_else(unfit)?;
        self.check_end(self.key.primary_key.created_at().as_secs(), own, now)?;
        let Some(subkey) = self.subkey else {
            return if own.key_flags().sign() { Ok(()) } else { Err(unfit()) };
        };
        if subkey.signatures.iter().any(|s| s.typ() == Some(SignatureType::SubkeyRevocation)) {
            return Err(revoked());
        }
        subkey.verify_bindings(&self.key.primary_key).map_err(|_| unfit())?;
        let binding = newest(&subkey.signatures).filter(|binding| binding.key_flags().sign()).ok_or_else(unfit)?;
        self.check_end(subkey.key.created_at().as_secs(), binding, now)
    }

    /// What the key says of itself. Other people's signatures on it, which keyrings carry too, say nothing here.
    fn newest_own_signature(&self) -> Option<&Signature> {
        let (details, primary) = (&self.key.details, &self.key.primary_key);
        let of_users = details.users.iter().flat_map(|user| {
            let own = |s: &&Signature| s.verify_certification(primary, Tag::UserId, &user.id).is_ok();
            user.signatures.iter().filter(|s| s.typ() != Some(SignatureType::CertRevocation)).filter(own)
        });
        let direct = details.direct_signatures.iter().filter(|s| s.verify_key(primary).is_ok());
        newest(of_users.chain(direct))
    }

    fn check_end(&self, created: u32, binding: &Signature, now: Timestamp) -> Result<(), SignatureError> {
        match end(created.into(), binding.key_expiration_time()) {
            Some(at) if at <= now => Err(SignatureError::KeyExpired { key: self.name(), at }),
            _ => Ok(()),
        }
    }
}

fn newest<'a>(signatures: impl IntoIterator<Item = &'a Signature>) -> Option<&'a Signature> {
    signatures.into_iter().max_by_key(|signature| signature.created().map(|at| at.as_secs()))
}

/// The end of something made at `start` (seconds since 1970) that lasts so long; 0 or none is for ever.
fn end(start: i64, lasts: Option<pgp::types::Duration>) -> Option<Timestamp> {
    let lasts = lasts?.as_secs();
    (lasts != 0).then(|| moment(start + i64::from(lasts)))
}

/// OpenPGP's 32-bit seconds, and sums of two of them, are within what a timestamp holds.
fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_keys_are_the_ones_the_readme_names() {
        let readme = include_str!("../../keys/README.md").replace(' ', "");
        let of = |distribution| Keyring::shipped(distribution).unwrap().0;
        let (debian, ubuntu) = (of(Distribution::Debian), of(Distribution::Ubuntu));
        assert_eq!((debian.len(), ubuntu.len()), (6, 1));
        for key in debian.into_iter().chain(ubuntu) {
            let fingerprint = key.primary_key.fingerprint().to_string().to_uppercase();
            assert!(readme.contains(&fingerprint), "{fingerprint}");
        }
    }

    #[test]
    fn garbage_is_no_keyring_and_no_signed_text() {
        assert!(matches!(Keyring::parse(b""), Err(KeyringError::Empty | KeyringError::Unreadable(_))));
        assert!(matches!(Keyring::parse(b"<html>"), Err(KeyringError::Empty | KeyringError::Unreadable(_))));
        let keys = Keyring::shipped(Distribution::Debian).unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        assert!(matches!(keys.open(b"Origin: Debian\n", now), Err(SignatureError::Missing)));
        let broken = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nx\n-----BEGIN PGP SIGNATURE-----\n\n!!\n";
        assert!(matches!(keys.open(broken, now), Err(SignatureError::Unreadable(_))));
    }
}
