//! Statements about an image of any predicate type: in-toto Statement v1, signed in a DSSE envelope.
//!
//! A [`Report`](super::Report) is read into its own type, because launches hang on it. Everything else that is said of an
//! image (where it comes from, what is in it) is for people and for other programs: what counts here is whose word it is and
//! which image it is about.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Envelope, OpenError, SigningKey, envelope,
    in_toto::{self, Statement},
};
use crate::{digest::ImageDigest, id::KeyName, trust::TrustedKey};

/// What is said of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Attestation {
    /// The image's name, for people.
    pub name: String,
    /// The image.
    pub image: ImageDigest,
    /// What kind of thing is said.
    pub predicate_type: String,
    /// What is said.
    pub predicate: Value,
}

/// A statement that trusted keys signed.
#[derive(Debug, Clone, PartialEq)]
pub struct Attested {
    /// What is said.
    pub attestation: Attestation,
    /// The trusted keys that signed it, each once.
    pub signers: BTreeSet<KeyName>,
}

/// Why a statement is not believed.
#[derive(Debug, thiserror::Error)]
pub enum AttestationError {
    /// Nobody who is believed signed it.
    #[error(transparent)]
    Envelope(#[from] OpenError),
    /// It is no statement about one image.
    #[error("it is no in-toto statement about one image")]
    NoStatement,
    /// It is about another image.
    #[error("it is about {found}")]
    OtherImage {
        /// The image that it names.
        found: ImageDigest,
    },
}

impl Attestation {
    /// Signs it. The same statement and key always give the same bytes.
    pub fn seal(&self, key: &SigningKey) -> Envelope {
        envelope::seal_payload(&self.render(), key)
    }

    /// The statement's bytes: what is signed.
    pub fn render(&self) -> Vec<u8> {
        let Self { name, image, predicate_type, predicate } = self.clone();
        Statement { name, image, predicate_type, predicate }.render()
    }

    /// What an envelope says, whoever signed it: for people, never for a decision.
    pub fn peek(envelope: &Envelope) -> Option<Self> {
        Self::parse(&envelope::payload(envelope).ok()?)
    }

    /// What an envelope says of an image, if a trusted key signed it.
    pub fn open(envelope: &Envelope, image: &ImageDigest, keys: &[TrustedKey]) -> Result<Attested, AttestationError> {
        let (payload, signers) = envelope::open_payload(envelope, keys)?;
        let attestation = Self::parse(&payload).ok_or(AttestationError::NoStatement)?;
        match attestation.image == *image {
            true => Ok(Attested { attestation, signers }),
            false => Err(AttestationError::OtherImage { found: attestation.image }),
        }
    }

    /// What kind of thing an envelope says, whoever signed it.
    pub fn predicate_type(envelope: &Envelope) -> Option<String> {
        in_toto::predicate_type(&envelope::payload(envelope).ok()?).ok()
    }

    fn parse(payload: &[u8]) -> Option<Self> {
        let Statement { name, image, predicate_type, predicate } = Statement::parse(payload).ok()?;
        Some(Self { name, image, predicate_type, predicate })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Digest;

    fn attestation() -> Attestation {
        let image = ImageDigest(Digest::of(b"image"));
        Attestation {
            name: "web".into(),
            image,
            predicate_type: "https://example.com/x".into(),
            predicate: json!({ "a": 1 }),
        }
    }

    fn trusted(seed: u8) -> TrustedKey {
        let key = SigningKey::from_bytes(&[seed; 32]).verifying_key();
        TrustedKey { name: "ci".parse().unwrap(), key }
    }

    #[test]
    fn unit_a_statement_is_believed_of_its_image_and_its_signer_only() {
        let (said, key) = (attestation(), SigningKey::from_bytes(&[1; 32]));
        let envelope = said.seal(&key);
        assert_eq!(envelope, said.seal(&key), "the same bytes");
        let opened = Attestation::open(&envelope, &said.image, &[trusted(1)]).unwrap();
        assert_eq!((opened.attestation, opened.signers.len()), (said.clone(), 1));
        let other = ImageDigest(Digest::of(b"other"));
        let error = Attestation::open(&envelope, &other, &[trusted(1)]).unwrap_err();
        assert!(matches!(error, AttestationError::OtherImage { found } if found == said.image));
        let error = Attestation::open(&envelope, &said.image, &[trusted(2)]).unwrap_err();
        assert!(matches!(error, AttestationError::Envelope(OpenError::ForeignKey { .. })));
        let mut tampered = envelope.clone();
        tampered.payload =
            Attestation { name: "x".into(), ..said.clone() }.seal(&SigningKey::from_bytes(&[2; 32])).payload;
        let error = Attestation::open(&tampered, &said.image, &[trusted(1)]).unwrap_err();
        assert!(matches!(error, AttestationError::Envelope(OpenError::Tampered { .. })));
        assert_eq!(Attestation::predicate_type(&envelope).as_deref(), Some("https://example.com/x"));
        assert_eq!(Attestation::peek(&envelope), Some(said));
    }
}
