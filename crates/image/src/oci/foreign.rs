//! OCI documents that somebody else wrote: parsed as far as Kiln needs them, and bounded before that.
//!
//! Docker's own media types (distribution `manifest-v2-2.md`) mean the same as OCI's and are read alike. Keys that Kiln
//! does not know are passed over, as image-spec `considerations.md` asks.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kiln_model::Digest;
use serde::Deserialize;

use super::source::OciError;

/// A manifest, index or configuration longer than this (bytes) is refused (distribution-spec asks for 4 MiB).
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;
/// An image has at most so many layers.
const MAX_LAYERS: usize = 500;
/// An index lists at most so many manifests.
const MAX_MANIFESTS: usize = 1000;

const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] = [super::MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"];

/// Everything that a manifest may be, for `Accept`.
pub(crate) fn accepted() -> String {
    [&INDEXES[..], &MANIFESTS[..]].concat().join(", ")
}

/// What a document says of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Described {
    #[serde(rename = "mediaType", default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(rename = "artifactType", default)]
    pub(crate) artifact_type: Option<String>,
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

impl Described {
    /// What one of Kiln's own documents says.
    pub(crate) fn of(descriptor: &super::Descriptor) -> Self {
        let (media_type, digest, size) = (descriptor.media_type.clone(), descriptor.digest, descriptor.size);
        Self { media_type, digest, size, platform: None, artifact_type: None, annotations: None }
    }
}

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    variant: Option<String>,
}

impl Platform {
    /// Whether programs of it run on this host.
    fn fits(&self) -> bool {
        let variant = match super::architecture() {
            "arm64" => self.variant.as_deref().is_none_or(|variant| variant == "v8"),
            _ => self.variant.as_deref().is_none_or(|variant| variant.is_empty() || variant == "v1"),
        };
        self.os == "linux" && self.architecture == super::architecture() && variant
    }
}

/// A document that is named by a tag or digest.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    Index(Vec<Described>),
    Image(Box<ForeignManifest>),
}

/// The manifest of one image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ForeignManifest {
    #[serde(rename = "artifactType", default)]
    pub(crate) artifact_type: Option<String>,
    pub(crate) config: Described,
    pub(crate) layers: Vec<Described>,
    #[serde(default)]
    pub(crate) subject: Option<Described>,
}

/// As much as tells what a document is.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "schemaVersion", default)]
    schema_version: u32,
    #[serde(rename = "mediaType", default)]
    media_type: String,
    manifests: Option<Vec<Described>>,
}

impl Document {
    /// Parses a manifest or an index.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let kind: Kind = parse("manifest", bytes)?;
        if kind.schema_version != 2 {
            let reason = "it has schema version 1, which was replaced in 2015: push the image again";
            return Err(OciError::document("manifest", reason));
        }
        let known = INDEXES.contains(&kind.media_type.as_str()) || MANIFESTS.contains(&kind.media_type.as_str());
        if !known && !kind.media_type.is_empty() {
            let shown = kind.media_type.escape_debug().take(100).collect::<String>();
            return Err(OciError::document("manifest", format!("it is of the type `{shown}`, which is no image")));
        }
        match kind.manifests {
            Some(manifests) if !MANIFESTS.contains(&kind.media_type.as_str()) => {
                at_most("manifests", manifests.len(), MAX_MANIFESTS)?;
                Ok(Self::Index(manifests))
            }
            _ => {
                let manifest: ForeignManifest = parse("manifest", bytes)?;
                at_most("layers", manifest.layers.len(), MAX_LAYERS)?;
                Ok(Self::Image(Box::new(manifest)))
            }
        }
    }
}

/// The manifest of this host's platform.
pub(crate) fn choose(manifests: &[Described]) -> Result<&Described, OciError> {
    let fitting = manifests.iter().find(|entry| entry.platform.as_ref().is_some_and(Platform::fits));
    // An index of one image may leave its platform out: the configuration says it again.
    let only = || manifests.iter().filter(|entry| entry.platform.is_none()).collect::<Vec<_>>();
    match fitting.or_else(|| only().as_slice().first().copied().filter(|_| only().len() == 1)) {
        Some(found) => Ok(found),
        None => {
            let offered = manifests.iter().filter_map(|entry| entry.platform.as_ref());
            let mut offered: Vec<_> =
                offered.filter(|p| p.os != "unknown").map(|p| format!("{}/{}", p.os, p.architecture)).collect();
            offered.dedup();
            offered.truncate(20);
            Err(OciError::NoPlatform {
                wanted: super::architecture(),
                offered: offered.join(", ").escape_debug().to_string(),
            })
        }
    }
}

/// The configuration of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct ForeignConfig {
    #[serde(default)]
    pub(crate) created: Option<Timestamp>,
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) config: Option<ForeignExecution>,
    pub(crate) rootfs: ForeignRootFs,
    #[serde(default)]
    pub(crate) history: Vec<ForeignHistory>,
}

/// How its maker wants an image to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ForeignExecution {
    pub(crate) user: Option<String>,
    pub(crate) env: Option<Vec<String>>,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) working_dir: Option<String>,
    pub(crate) exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    pub(crate) stop_signal: Option<String>,
    pub(crate) volumes: Option<BTreeMap<String, serde_json::Value>>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) healthcheck: Option<super::Healthcheck>,
    pub(crate) shell: Option<Vec<String>>,
    pub(crate) on_build: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct ForeignRootFs {
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ForeignHistory {
    created_by: Option<String>,
    empty_layer: bool,
}

impl ForeignExecution {
    /// As a Containerfile that starts from the image goes on with it. Kiln's own label says something of another image.
    pub(crate) fn execution(self) -> super::Execution {
        let keys = |map: Option<BTreeMap<String, serde_json::Value>>| {
            map.into_iter().flatten().map(|(key, _)| (key, super::Empty {})).collect()
        };
        let mut labels = self.labels.unwrap_or_default();
        labels.remove(kiln_model::manifest::LABEL);
        super::Execution {
            user: self.user.unwrap_or_default(),
            exposed_ports: keys(self.exposed_ports),
            env: self.env.unwrap_or_default(),
            entrypoint: self.entrypoint.unwrap_or_default(),
            cmd: self.cmd.unwrap_or_default(),
            volumes: keys(self.volumes),
            working_dir: self.working_dir.unwrap_or_default(),
            labels,
            stop_signal: self.stop_signal.unwrap_or_default(),
            healthcheck: self.healthcheck,
            shell: self.shell.unwrap_or_default(),
        }
    }
}

impl ForeignConfig {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let config: Self = parse("configuration", bytes)?;
        at_most("layers", config.rootfs.diff_ids.len(), MAX_LAYERS)?;
        let named = config.os == "linux" && config.architecture == super::architecture();
        if !named {
            let offered = format!("{}/{}", config.os, config.architecture);
            return Err(OciError::NoPlatform {
                wanted: super::architecture(),
                offered: offered.escape_debug().to_string(),
            });
        }
        Ok(config)
    }

    /// What made each layer, in its maker's words, shortened.
    pub(crate) fn layer_names(&self) -> Vec<String> {
        let made = self.history.iter().filter(|step| !step.empty_layer).map(|step| step.created_by.as_deref());
        let mut made: Vec<_> = made.map(|words| plain(words.unwrap_or_default())).collect();
        let count = self.rootfs.diff_ids.len();
        if made.len() != count {
            made = vec![String::new(); count];
        }
        let numbered = made.into_iter().enumerate();
        numbered
            .map(|(at, words)| format!("base layer {} of {count}: {words}", at + 1))
            .map(|name| name.trim_end_matches([':', ' ']).to_owned())
            .collect()
    }
}

/// One line of at most 60 characters.
fn plain(words: &str) -> String {
    let words = words.strip_prefix("/bin/sh -c ").unwrap_or(words);
    let words = words.trim_start_matches("#(nop)").split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().filter(|c| !c.is_control()).take(60).collect()
}

fn parse<'b, T: Deserialize<'b>>(what: &'static str, bytes: &'b [u8]) -> Result<T, OciError> {
    serde_json::from_slice(bytes).map_err(|e| OciError::document(what, e.to_string().escape_debug().to_string()))
}

fn at_most(what: &str, found: usize, limit: usize) -> Result<(), OciError> {
    match found <= limit {
        true => Ok(()),
        false => Err(OciError::document("manifest", format!("it has {found} {what}; at most {limit} are read"))),
    }
}
