//! Where an image comes from: SLSA provenance v1 (<https://slsa.dev/spec/v1.0/provenance>).
//!
//! It names every input of a bake by digest: the recipe, the lock, each package of the archive, the base, what was copied. It
//! holds no time but `SOURCE_DATE_EPOCH`, so the same bake by the same host always gives the same bytes. What a step
//! fetched from the network itself is in no lock; such steps are named.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::Attestation;
use crate::{
    digest::{Digest, ImageDigest},
    id::ImageName,
};

/// `predicateType` of a provenance.
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// How the parameters of a bake are to be read.
pub const BUILD_TYPE: &str = "https://github.com/kiln-servers/kiln/blob/main/docs/sbom.md#bake-v1";
/// What stands before the id of a host's key: who baked.
pub const BUILDER: &str = "https://github.com/kiln-servers/kiln/host/";

/// What went into a bake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BakeInputs {
    /// `SOURCE_DATE_EPOCH`, seconds.
    pub source_date_epoch: i64,
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// Everything that is known by digest, the recipe first.
    pub materials: Vec<Material>,
    /// Steps that may use the network: what they fetched is not among the materials.
    pub networked: Vec<String>,
}

/// An input: an in-toto resource descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Material {
    /// Its name, for people.
    pub name: String,
    /// Where it is, or a package URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// By algorithm (in-toto `digest_set.md`), lower-case hex.
    pub digest: BTreeMap<&'static str, String>,
}

impl Material {
    /// An input with a SHA-256.
    pub fn new(name: impl Into<String>, digest: Digest) -> Self {
        Self { name: name.into(), uri: None, digest: BTreeMap::from([("sha256", digest.hex())]) }
    }
    /// A directory: Go's `Hash1` of its files, which `sha256sum` can make again.
    pub fn directory(name: impl Into<String>, digest: Digest) -> Self {
        Self { name: name.into(), uri: None, digest: BTreeMap::from([("dirHash", digest.hex())]) }
    }
    /// With a place or a package URL.
    pub fn at(self, uri: impl Into<String>) -> Self {
        Self { uri: Some(uri.into()), ..self }
    }
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance<'a> {
    /// The image's name.
    pub name: &'a ImageName,
    /// The image.
    pub image: ImageDigest,
    /// What went into it.
    pub inputs: &'a BakeInputs,
    /// The id of the key of the host that baked it.
    pub builder: &'a str,
    /// Kiln's version there.
    pub version: &'a str,
}

impl Provenance<'_> {
    /// The statement.
    pub fn attestation(&self) -> Attestation {
        Attestation {
            name: self.name.to_string(),
            image: self.image,
            predicate_type: PROVENANCE.to_owned(),
            predicate: self.predicate(),
        }
    }

    fn predicate(&self) -> Value {
        let BakeInputs { source_date_epoch, architecture, materials, networked } = self.inputs;
        json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": { "image": self.name, "recipe": materials.first() },
                "internalParameters": {
                    "sourceDateEpoch": source_date_epoch,
                    "architecture": architecture,
                    "stepsWithNetwork": networked,
                },
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": { "id": format!("{BUILDER}{}", self.builder), "version": { "kiln": self.version } },
            },
        })
    }
}
