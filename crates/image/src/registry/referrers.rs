//! What refers to an image in a registry: reports, suites, and whatever others attach.
//!
//! A registry that has the referrers API lists them, in pages where there are many. For one that has not, an index under the tag `sha256-HEX` is the list,
//! which whoever pushes keeps (distribution-spec 1.1, "Referrers tag schema"). Two that write it at the same time could lose
//! one's entry, so it is read again after it was written.

use std::collections::BTreeMap;

use kiln_model::Digest;
use serde::{Deserialize, Serialize};

use super::{RegistryError, client::Repository};
use crate::oci::{
    MANIFEST,
    foreign::{Described, MAX_DOCUMENT},
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// How often an entry is added again that another writer removed.
const ATTEMPTS: usize = 5;

/// An entry of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Referrer {
    #[serde(rename = "mediaType")]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(rename = "artifactType", default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Index {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType")]
    media_type: &'static str,
    manifests: Vec<serde_json::Value>,
}

impl Repository {
    /// Everything that refers to this manifest. Where there is nothing, the list is empty.
    pub(crate) fn referrers(&self, subject: &Digest) -> Result<Vec<Described>, RegistryError> {
        // A registry without the API answers 404, which an empty list never is.
        let pages = match self.pages(&format!("referrers/{subject}"), INDEX)? {
            Some(pages) => pages,
            None => self.document(&format!("manifests/{}", tag(subject)))?.into_iter().collect(),
        };
        let listed: Option<Vec<_>> = pages.iter().map(|page| listed_in(page)).collect();
        listed.map(|pages| pages.concat()).ok_or_else(|| self.strange(subject))
    }

    /// Adds to the list of a registry that does not keep it itself.
    pub(crate) fn list_referrer(&self, subject: &Digest, entry: &Referrer) -> Result<(), RegistryError> {
        let rest = format!("manifests/{}", tag(subject));
        for _ in 0..ATTEMPTS {
            let mut manifests = match self.document(&rest)? {
                Some(bytes) => entries(&bytes).ok_or_else(|| self.strange(subject))?,
                None => Vec::new(),
            };
            if manifests.iter().any(|known| known["digest"] == entry.digest.to_string()) {
                return Ok(());
            }
            manifests.push(serde_json::to_value(entry).expect("plain data always serialises"));
            let index = crate::oci::render(&Index { schema_version: 2, media_type: INDEX, manifests });
            self.send_manifest(&tag(subject), INDEX, &index)?;
        }
        match self.document(&rest)?.and_then(|bytes| entries(&bytes)) {
            Some(known) if known.iter().any(|known| known["digest"] == entry.digest.to_string()) => Ok(()),
            _ => Err(self.contended(tag(subject))),
        }
    }

    /// The manifest under a tag, if it is there.
    pub(crate) fn tagged(&self, tag: &str) -> Result<Option<Vec<u8>>, RegistryError> {
        self.accepted(&format!("manifests/{tag}"), MANIFEST)
    }

    /// A tag that others write at the same time.
    pub(crate) fn contended(&self, tag: String) -> RegistryError {
        let (registry, repository) = (self.endpoint.account.clone(), self.name.clone());
        RegistryError::Contended { registry, repository, tag }
    }

    /// A document, if it is there.
    fn document(&self, rest: &str) -> Result<Option<Vec<u8>>, RegistryError> {
        self.accepted(rest, INDEX)
    }

    fn accepted(&self, rest: &str, media_type: &str) -> Result<Option<Vec<u8>>, RegistryError> {
        match self.small(rest, media_type, MAX_DOCUMENT) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn strange(&self, subject: &Digest) -> RegistryError {
        let reason = "the list of what refers to the image is no index".to_owned();
        RegistryError::Protocol { url: self.url(&format!("referrers/{subject}")), reason }
    }
}

/// The tag of the list of what refers to a manifest.
fn tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// The entries of a list, as long as the list may be; what cannot be read as one is left out.
pub(super) fn listed_in(bytes: &[u8]) -> Option<Vec<Described>> {
    let described = |entry| serde_json::from_value(entry).ok();
    Some(entries(bytes)?.into_iter().filter_map(described).collect())
}

/// The entries of a list, with whatever others wrote into them.
pub(super) fn entries(bytes: &[u8]) -> Option<Vec<serde_json::Value>> {
    let mut index: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    match index.get_mut("manifests")?.take() {
        serde_json::Value::Array(manifests) => Some(manifests),
        _ => None,
    }
}
