//! DSSE v1 envelopes: signing, and opening with trusted keys.
//!
//! Source: <https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>. A signature covers the
//! pre-authentication encoding of payload type and payload, so neither can be exchanged. Sizes are bounded before
//! anything is decoded.

use std::collections::BTreeSet;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

use super::{Envelope, Opened, PAYLOAD_TYPE, Report, Signature, in_toto::StatementError, statement};
use crate::{digest::Digest, id::KeyName, trust::TrustedKey};

/// An envelope in its JSON form is at most this many bytes.
pub const MAX_ENVELOPE_BYTES: usize = 4 << 20;
/// An envelope carries at most this many signatures.
pub const MAX_SIGNATURES: usize = 16;

/// Why an envelope could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Larger than [`MAX_ENVELOPE_BYTES`].
    #[error("the envelope has {size} bytes, more than the {MAX_ENVELOPE_BYTES} allowed")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// Not the JSON of an envelope.
    #[error("the envelope is not DSSE JSON")]
    NotAnEnvelope(#[source] serde_json::Error),
    /// No signature at all.
    #[error("the envelope is not signed")]
    Unsigned,
    /// More than [`MAX_SIGNATURES`].
    #[error("the envelope has {count} signatures, more than the {MAX_SIGNATURES} allowed")]
    TooManySignatures {
        /// How many there are.
        count: usize,
    },
    /// Not base64.
    #[error("the envelope's {part} is not base64")]
    NotBase64 {
        /// `payload` or `signature`.
        part: &'static str,
    },
    /// No signature is by a trusted key.
    #[error("the envelope is signed by a key that is not trusted here ({})", key_list(.keyids))]
    ForeignKey {
        /// The key ids the envelope claims.
        keyids: Vec<String>,
    },
    /// A signature claims a trusted key and does not fit the content.
    #[error("the envelope's content does not fit its signature by key `{key}`")]
    Tampered {
        /// The trusted key's name.
        key: String,
    },
    /// Another kind of payload.
    #[error("the envelope holds `{found}`, not an in-toto statement")]
    PayloadType {
        /// The payload type found, shortened.
        found: String,
    },
    /// The payload is not a report.
    #[error("the signed statement is not a test report")]
    Statement(#[source] StatementError),
}

fn key_list(keyids: &[String]) -> String {
    let shown: Vec<&str> = keyids.iter().map(|id| if id.is_empty() { "no key id" } else { id.as_str() }).collect();
    shown.join(", ")
}

/// The id of a key: hex SHA-256 of the 32 bytes of the public key.
pub fn key_id(key: &VerifyingKey) -> String {
    Digest::of(key.as_bytes()).hex()
}

/// DSSE's pre-authentication encoding: what is signed.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// Signs a report.
pub fn seal(report: &Report, key: &SigningKey) -> Envelope {
    seal_payload(&statement::render(report), key)
}

/// Signs a statement.
pub(super) fn seal_payload(payload: &[u8], key: &SigningKey) -> Envelope {
    let signature = key.sign(&pae(PAYLOAD_TYPE, payload));
    Envelope {
        payload_type: PAYLOAD_TYPE.to_owned(),
        payload: STANDARD.encode(payload),
        signatures: vec![Signature { keyid: key_id(&key.verifying_key()), sig: STANDARD.encode(signature.to_bytes()) }],
    }
}

/// The JSON form of an envelope.
pub fn render(envelope: &Envelope) -> Vec<u8> {
    serde_json::to_vec(envelope).expect("strings always serialise")
}

/// Reads the JSON form of an envelope. Nothing in it is believed yet.
pub fn parse(bytes: &[u8]) -> Result<Envelope, OpenError> {
    if bytes.len() > MAX_ENVELOPE_BYTES {
        return Err(OpenError::TooLarge { size: bytes.len() });
    }
    serde_json::from_slice(bytes).map_err(OpenError::NotAnEnvelope)
}

/// Returns the report in an envelope if a trusted key signed it, with all of those that did.
pub fn open(envelope: &Envelope, keys: &[TrustedKey]) -> Result<Opened, OpenError> {
    let (payload, signers) = open_payload(envelope, keys)?;
    let report = statement::parse(&payload).map_err(OpenError::Statement)?;
    Ok(Opened { report, signers })
}

/// Returns the statement in an envelope if a trusted key signed it, with all of those that did.
pub(super) fn open_payload(
    envelope: &Envelope,
    keys: &[TrustedKey],
) -> Result<(Vec<u8>, BTreeSet<KeyName>), OpenError> {
    let payload = payload(envelope)?;
    let signers = signers(envelope, &pae(&envelope.payload_type, &payload), keys)?;
    match envelope.payload_type == PAYLOAD_TYPE {
        true => Ok((payload, signers)),
        false => Err(OpenError::PayloadType { found: envelope.payload_type.chars().take(80).collect() }),
    }
}

/// The payload, whoever signed it.
pub(super) fn payload(envelope: &Envelope) -> Result<Vec<u8>, OpenError> {
    check_bounds(envelope)?;
    decode(&envelope.payload, "payload")
}

/// What an envelope says, whoever signed it: for people and for guesses, never for a decision.
pub fn peek(envelope: &Envelope) -> Option<Report> {
    statement::parse(&payload(envelope).ok()?).ok()
}

fn check_bounds(envelope: &Envelope) -> Result<(), OpenError> {
    let size = envelope.payload.len() + envelope.payload_type.len();
    match envelope.signatures.len() {
        _ if size > MAX_ENVELOPE_BYTES => Err(OpenError::TooLarge { size }),
        0 => Err(OpenError::Unsigned),
        count if count > MAX_SIGNATURES => Err(OpenError::TooManySignatures { count }),
        _ => Ok(()),
    }
}

/// The DSSE specification lets a signer choose either alphabet and binds a verifier to accept both.
fn decode(text: &str, part: &'static str) -> Result<Vec<u8>, OpenError> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).map_err(|_| OpenError::NotBase64 { part })
}

/// The trusted keys whose signatures are valid. A key that has two names counts as the first of them.
fn signers(envelope: &Envelope, signed: &[u8], keys: &[TrustedKey]) -> Result<BTreeSet<KeyName>, OpenError> {
    let (mut signers, mut claimed) = (BTreeSet::new(), None);
    for signature in &envelope.signatures {
        let bytes = decode(&signature.sig, "signature")?;
        let good = ed25519_dalek::Signature::from_slice(&bytes)
            .ok()
            .and_then(|s| keys.iter().find(|trusted| trusted.key.verify_strict(signed, &s).is_ok()));
        if let Some(trusted) = good {
            signers.insert(trusted.name.clone());
            continue;
        }
        claimed = claimed.or_else(|| keys.iter().find(|trusted| key_id(&trusted.key) == signature.keyid));
    }
    Err(match claimed {
        _ if !signers.is_empty() => return Ok(signers),
        Some(trusted) => OpenError::Tampered { key: trusted.name.to_string() },
        None => OpenError::ForeignKey { keyids: envelope.signatures.iter().map(shown_key_id).collect() },
    })
}

fn shown_key_id(signature: &Signature) -> String {
    signature.keyid.chars().take(64).collect()
}
