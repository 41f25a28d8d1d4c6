//! in-toto Statement v1: that something is said of one image, and what. What the predicate is, each kind of statement knows.
//!
//! Source: <https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>. Unknown fields are ignored when reading, by the
//! framework's parsing rules.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::STATEMENT;
use crate::digest::{Digest, ImageDigest, InvalidDigest};

/// Why a signed payload is not a report.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// Not the JSON of such a statement.
    #[error("it is not the JSON of a test-result statement")]
    Json(#[from] serde_json::Error),
    /// Another type of statement or predicate.
    #[error("its {field} is `{found}`")]
    WrongType {
        /// `_type` or `predicateType`.
        field: &'static str,
        /// What it says.
        found: String,
    },
    /// It names not exactly one image, configuration or suite.
    #[error("it names {count} times what must be named once: {what}")]
    NotOne {
        /// The thing.
        what: &'static str,
        /// How often it is named.
        count: usize,
    },
    /// A digest is missing or invalid.
    #[error("its {what} has no valid sha256 digest")]
    Digest {
        /// The thing.
        what: &'static str,
        /// What is wrong with the text.
        #[source]
        source: InvalidDigest,
    },
    /// The summary says something else than the tests.
    #[error("its result and its tests contradict each other")]
    Contradiction,
}

/// A statement about one image.
pub(super) struct Statement<P> {
    /// The image's name, for people.
    pub(super) name: String,
    pub(super) image: ImageDigest,
    pub(super) predicate_type: String,
    pub(super) predicate: P,
}

#[derive(Serialize, Deserialize)]
struct Document<P> {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Descriptor>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: P,
}

/// Of any statement, what says which kind it is.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "predicateType")]
    predicate_type: String,
}

/// The kind of statement that a payload says it is.
pub(super) fn predicate_type(payload: &[u8]) -> Result<String, StatementError> {
    Ok(serde_json::from_slice::<Kind>(payload)?.predicate_type)
}

impl<P: Serialize> Statement<P> {
    /// The statement's bytes: what is signed. The same statement always gives the same.
    pub(super) fn render(self) -> Vec<u8> {
        let document = Document {
            kind: STATEMENT.to_owned(),
            subject: vec![Descriptor::new(&self.name, self.image.0)],
            predicate_type: self.predicate_type,
            predicate: self.predicate,
        };
        serde_json::to_vec(&document).expect("plain data always serialises")
    }
}

impl<P: DeserializeOwned> Statement<P> {
    /// Reads a payload, whoever signed it.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, StatementError> {
        let document: Document<P> = serde_json::from_slice(payload)?;
        check_type("_type", &document.kind, STATEMENT)?;
        let subject = only(document.subject.iter(), "subject")?;
        Ok(Self {
            name: subject.name.clone(),
            image: ImageDigest(subject.sha256("subject")?),
            predicate_type: document.predicate_type,
            predicate: document.predicate,
        })
    }

    /// Reads a payload that must be of this kind. The kind is looked at first: it says more than that a field is missing.
    pub(super) fn parse_kind(payload: &[u8], kind: &str) -> Result<Self, StatementError> {
        check_type("predicateType", &predicate_type(payload)?, kind)?;
        Self::parse(payload)
    }
}

#[derive(PartialEq, Serialize, Deserialize)]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) name: String,
    digest: BTreeMap<String, String>,
}

fn check_type(field: &'static str, found: &str, wanted: &str) -> Result<(), StatementError> {
    if found == wanted {
        return Ok(());
    }
    Err(StatementError::WrongType { field, found: found.chars().take(120).collect() })
}

pub(super) fn only<'a>(
    mut found: impl Iterator<Item = &'a Descriptor>,
    what: &'static str,
) -> Result<&'a Descriptor, StatementError> {
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(StatementError::NotOne { what, count: 0 }),
        (Some(_), Some(_)) => Err(StatementError::NotOne { what, count: 2 + found.count() }),
    }
}

impl Descriptor {
    pub(super) fn new(name: &str, digest: Digest) -> Self {
        Self { name: name.to_owned(), digest: BTreeMap::from([("sha256".to_owned(), digest.hex())]) }
    }
    pub(super) fn sha256(&self, what: &'static str) -> Result<Digest, StatementError> {
        let hex = self.digest.get("sha256").map_or("", String::as_str);
        format!("sha256:{hex}").parse().map_err(|source| StatementError::Digest { what, source })
    }
}
