//! The OCI documents of an image: manifest, configuration, and the artifact manifest of a report.
//!
//! Sources: OCI image-spec 1.1 `manifest.md`, `config.md`. The types hold what Kiln writes; a document is written once
//! and kept byte for byte, so reading it back never needs to write it again. Field order is fixed by the types and
//! maps are sorted, so the same image always gives the same bytes.

pub(crate) mod archive;
pub(crate) mod artifact;
pub(crate) mod foreign;
mod layout;
pub(crate) mod source;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

pub use kiln_model::oci::architecture;
use kiln_model::{Digest, ImageManifest, manifest};
use serde::{Deserialize, Serialize};

pub(crate) use self::artifact::Artifact;
pub use self::source::OciError;

/// Media type of an image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an image configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of an uncompressed layer: its digest does not hang on a compressor.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of the empty configuration of an artifact.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The empty configuration of an artifact.
pub(crate) const EMPTY_BYTES: &[u8] = b"{}";
/// Media type of a signed statement where cosign looks for it.
pub(crate) const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
/// Artifact type, and media type of the layer, of a report.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Artifact type, and media type of the layer, of a suite.
pub const SUITE: &str = "application/vnd.kiln.suite.v1+json";

/// What a document says of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// What the blob is.
    #[serde(rename = "mediaType")]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

impl Descriptor {
    /// Describes these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self { media_type: media_type.to_owned(), digest: Digest::of(bytes), size: bytes.len() as u64 }
    }
}

/// An image manifest; its digest names the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always 2.
    #[serde(rename = "schemaVersion")]
    pub schema_version: u32,
    /// [`MANIFEST`].
    #[serde(rename = "mediaType")]
    pub media_type: String,
    /// What the artifact is; images have none.
    #[serde(rename = "artifactType", default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// Lowest first.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one says something of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
}

/// An image configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// When the image counts as made: `SOURCE_DATE_EPOCH`.
    pub created: jiff::Timestamp,
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// For runtimes that know one process per container.
    pub config: Execution,
    /// The layers.
    pub rootfs: RootFs,
    /// One line for each layer.
    pub history: Vec<History>,
}

/// How a runtime other than Kiln's may run the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    /// User of the first service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports of all services: `80/tcp`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Environment of the first service: `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Command of the first service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Arguments of a Containerfile's `CMD`, where no service runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Paths that the image wants to write.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Working directory of the first service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// [`manifest::LABEL`].
    pub labels: BTreeMap<String, String>,
    /// Stop signal of the first service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// How the image is asked whether it is well: Docker's addition, as its programs write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// The shell of `RUN` in Containerfiles that start from this image: Docker's addition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// A `HEALTHCHECK` (moby `image/spec/v1.2.md`). Times are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", "…"]`.
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: u64,
    /// Of one check.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: u64,
    /// In which no failure counts.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: u64,
    /// Between two checks of that time.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: u64,
    /// So many failures make an image unwell.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// The layers of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
}

/// Where a layer comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// As in the configuration.
    pub created: jiff::Timestamp,
    /// The step's name.
    pub created_by: String,
}

impl Config {
    /// The configuration of an image with these layers (digest and step name, lowest first).
    pub fn new(image: &ImageManifest, layers: &[(Digest, String)], created: jiff::Timestamp) -> Self {
        Self {
            created,
            architecture: architecture().to_owned(),
            os: "linux".to_owned(),
            config: Execution::new(image),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: layers.iter().map(|(digest, _)| *digest).collect() },
            history: layers.iter().map(|(_, step)| History { created, created_by: step.clone() }).collect(),
        }
    }
}

impl Execution {
    fn new(image: &ImageManifest) -> Self {
        let label = serde_json::to_string(image).expect("plain data always serialises");
        let ports = image.services.values().flat_map(|service| &service.ports);
        let mut made = Self {
            exposed_ports: ports.map(|port| (format!("{}/tcp", port.port), Empty {})).collect(),
            volumes: image.writable.iter().map(|writable| (writable.path.clone(), Empty {})).collect(),
            labels: BTreeMap::from([(manifest::LABEL.to_owned(), label)]),
            ..Self::default()
        };
        if let Some(service) = image.services.values().next() {
            made.user = service.user.clone();
            made.env = service.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
            made.entrypoint = service.command.clone();
            made.working_dir = service.working_directory.clone();
            made.stop_signal = service.stop.signal.clone();
        }
        made
    }
}

impl Execution {
    /// Itself over what a Containerfile says: a service says what runs; ports, volumes and labels are those of both.
    pub(crate) fn over(self, ground: Self) -> Self {
        let mut made = if self.entrypoint.is_empty() { ground.clone() } else { self.clone() };
        made.exposed_ports.extend(ground.exposed_ports.into_iter().chain(self.exposed_ports));
        made.volumes.extend(ground.volumes.into_iter().chain(self.volumes));
        made.healthcheck = ground.healthcheck;
        made.shell = ground.shell;
        made.labels = ground.labels;
        made.labels.extend(self.labels);
        made
    }
}

impl Manifest {
    /// The manifest of an image.
    pub fn image(config: Descriptor, layers: &[(Digest, u64)]) -> Self {
        let layer =
            |(digest, size): &(Digest, u64)| Descriptor { media_type: LAYER.to_owned(), digest: *digest, size: *size };
        Self {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            artifact_type: None,
            config,
            layers: layers.iter().map(layer).collect(),
            subject: None,
        }
    }
    /// The manifest of something that is said of an image.
    pub(crate) fn artifact(kind: &str, subject: Descriptor, content: &[u8]) -> Self {
        Self {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            artifact_type: Some(kind.to_owned()),
            config: Descriptor::of(EMPTY, EMPTY_BYTES),
            layers: vec![Descriptor::of(kind, content)],
            subject: Some(subject),
        }
    }
}

/// The bytes of a document.
pub(crate) fn render(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("plain data always serialises")
}
