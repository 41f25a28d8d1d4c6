//! A release file with its signature: one text in `InRelease`, or two files, `Release` and `Release.gpg`.
//!
//! An archive that has both forms is read by its `InRelease`, which cannot be seen half renewed. The cache keeps what was accepted in one
//! file, so that a text and its signature stay together there as well.

use jiff::Timestamp;
use kiln_model::Digest;

use super::{
    http::{Client, HttpError},
    keys::{Keyring, SignatureError},
};

/// More than any release file has.
const RELEASE_LIMIT: u64 = 16 << 20;
/// Room for a hundred signatures.
const SIGNATURE_LIMIT: u64 = 64 << 10;
/// The first word of [`Signed::Beside`] in the cache; an `InRelease` does not begin so.
const BESIDE: &[u8] = b"signature ";

/// A release file as it was fetched, not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signed {
    /// `InRelease`
    Inside(Vec<u8>),
    /// `Release`, signed beside itself.
    Beside {
        /// `Release`
        text: Vec<u8>,
        /// `Release.gpg`, armoured or binary.
        signature: Vec<u8>,
    },
}

impl Signed {
    /// Fetches it from a directory, whose address ends with `/`. Where the directory has neither form whole, the error is that of its
    /// `InRelease`.
    pub(super) fn fetch(client: &Client, directory: &str) -> Result<Self, HttpError> {
        let get = |name: &str, limit| match client.get(&format!("{directory}{name}"), limit) {
            Err(error) if error.is_absent() => Ok(Err(error)),
            other => other.map(Ok),
        };
        let absent = match get("InRelease", RELEASE_LIMIT)? {
            Ok(bytes) => return Ok(Self::Inside(bytes)),
            Err(absent) => absent,
        };
        let Ok(signature) = get("Release.gpg", SIGNATURE_LIMIT)? else { return Err(absent) };
        let Ok(text) = get("Release", RELEASE_LIMIT)? else { return Err(absent) };
        Ok(Self::Beside { text, signature })
    }

    /// As the cache keeps it.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Inside(bytes) => bytes.clone(),
            Self::Beside { text, signature } => {
                [BESIDE, signature.len().to_string().as_bytes(), b"\n", signature, text].concat()
            }
        }
    }

    /// Back from the cache.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Self {
        let beside = || {
            let (length, rest) =
                bytes.strip_prefix(BESIDE)?.split_at_checked(memchr::memchr(b'\n', &bytes)? - BESIDE.len())?;
            let (signature, text) = rest[1..].split_at_checked(str::from_utf8(length).ok()?.parse().ok()?)?;
            Some(Self::Beside { text: text.to_owned(), signature: signature.to_owned() })
        };
        beside().unwrap_or(Self::Inside(bytes))
    }

    /// SHA-256 of the file that has the text.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Inside(bytes) | Self::Beside { text: bytes, .. } => Digest::of(bytes),
        }
    }

    /// The text, when these keys signed it.
    pub(super) fn open(&self, keys: &Keyring, now: Timestamp) -> Result<String, SignatureError> {
        match self {
            Self::Inside(bytes) => keys.open(bytes, now),
            Self::Beside { text, signature } => {
                keys.check(text, signature, now)?;
                Ok(String::from_utf8_lossy(text).into_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_forms_come_back_from_the_cache(text in any::<Vec<u8>>(), signature in any::<Vec<u8>>()) {
            let beside = Signed::Beside { text: text.clone(), signature };
            prop_assert_eq!(Signed::from_bytes(beside.to_bytes()), beside);
            prop_assert_eq!(Signed::from_bytes(text.clone()), Signed::Inside(text));
        }

        #[test]
        fn no_bytes_make_it_panic(rest in "(signature )?[0-9]{0,20}\n?.{0,20}") {
            let _outcome = Signed::from_bytes(rest.into_bytes()).digest();
        }
    }
}
