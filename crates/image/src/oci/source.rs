//! Where an OCI image comes from: what it consists of is found first, its layers are read afterwards, one by one.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use kiln_model::{Digest, oci::OciSource};

use super::{
    archive::Archive,
    foreign::{Described, Document, ForeignConfig, ForeignManifest, MAX_DOCUMENT, choose},
    layout::Layout,
};
use crate::{import::ImportError, registry::RegistryError};

/// An index may list indexes, so deep.
const MAX_DEPTH: u32 = 3;

/// Why an OCI image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A file of a layout or archive cannot be read.
    #[error("{} cannot be read", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no such image at the place.
    #[error("{place} has no image `{name}`; it has {has}")]
    NoImage {
        /// The directory or archive.
        place: String,
        /// What was asked for.
        name: String,
        /// What there is.
        has: String,
    },
    /// A document is not what it should be.
    #[error("its {what} is of no use: {reason}")]
    Document {
        /// `index`, `manifest`, `configuration`.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// A document is longer than is read.
    #[error("its {what} has {size} bytes; at most {limit} are read")]
    LongDocument {
        /// `index`, `manifest`, `configuration`.
        what: &'static str,
        /// Its size, as far as it is known.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A document is another than was named.
    #[error("its {what} should be {expected} and is {found}")]
    WrongDocument {
        /// `index`, `manifest`, `configuration`.
        what: &'static str,
        /// As named.
        expected: Digest,
        /// As found.
        found: Digest,
    },
    /// It does not run on this host.
    #[error("it is not for linux/{wanted}; it is for {offered}")]
    NoPlatform {
        /// This host's architecture.
        wanted: &'static str,
        /// What there is.
        offered: String,
    },
    /// A layer is not taken in.
    #[error("its layer {layer} is not taken in")]
    Layer {
        /// Digest of the unpacked layer.
        layer: Digest,
        /// Why.
        #[source]
        source: ImportError,
    },
    /// The registry does not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl OciError {
    pub(crate) fn document(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Document { what, reason: reason.into() }
    }
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::File { path, source }
    }
}

/// What an image consists of.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The digest of its manifest; of its configuration where there is no manifest.
    pub(crate) id: Digest,
    pub(crate) config: ForeignConfig,
    /// Lowest first.
    pub(crate) layers: Vec<FoundLayer>,
}

/// A layer that can be read.
#[derive(Debug, Clone)]
pub(crate) struct FoundLayer {
    pub(crate) name: String,
    /// Digest of the unpacked bytes.
    pub(crate) diff_id: Digest,
    pub(crate) bytes: LayerBytes,
}

/// Where the bytes of a layer are.
#[derive(Debug, Clone)]
pub(crate) enum LayerBytes {
    /// A blob of known size and digest.
    Blob(Described),
    /// A file of an archive, of which nothing else is known.
    Member(String),
}

/// A place that images are read from.
pub(crate) trait Origin {
    /// The document that the recipe names, or the one with this digest.
    fn top(&self, locked: Option<Digest>) -> Result<Top, OciError>;
    /// A whole document: at most [`MAX_DOCUMENT`] bytes.
    fn document(&self, what: &'static str, described: &Described) -> Result<Vec<u8>, OciError>;
    /// The packed bytes of a layer.
    fn open(&self, bytes: &LayerBytes) -> Result<Box<dyn Read + Send>, OciError>;
    /// Manifests that may say something of this one.
    fn referrers(&self, subject: &Digest) -> Result<Vec<Described>, OciError>;
}

/// What is found under a name.
pub(crate) enum Top {
    /// A manifest or index, with its digest.
    Document(Digest, Vec<u8>),
    /// An image of `docker save`, which has no manifest.
    Whole(Box<Found>),
}

/// Opens a place on disk; relative paths are below `directory`.
pub(crate) fn open_place(source: &OciSource, directory: &Path) -> Result<Option<Box<dyn Origin>>, OciError> {
    Ok(match source {
        OciSource::Registry(_) => None,
        OciSource::Layout(place) => Some(Box::new(Layout::open(&directory.join(&place.path), place.name.clone())?)),
        OciSource::Archive(place) => Some(Box::new(Archive::open(&directory.join(&place.path), place.name.clone())?)),
    })
}

/// Finds the image of this host's platform.
pub(crate) fn find(origin: &dyn Origin, locked: Option<Digest>) -> Result<Found, OciError> {
    let (mut id, mut bytes) = match origin.top(locked)? {
        Top::Whole(found) => return Ok(*found),
        Top::Document(id, bytes) => (id, bytes),
    };
    for _ in 0..=MAX_DEPTH {
        match Document::parse(&bytes)? {
            Document::Image(manifest) => return image(origin, id, *manifest),
            Document::Index(manifests) => {
                let chosen = choose(&manifests)?;
                (id, bytes) = (chosen.digest, document(origin, "manifest", chosen)?);
            }
        }
    }
    Err(OciError::document("index", format!("it lists indexes that list indexes, more than {MAX_DEPTH} deep")))
}

fn image(origin: &dyn Origin, id: Digest, manifest: ForeignManifest) -> Result<Found, OciError> {
    let config = ForeignConfig::parse(&document(origin, "configuration", &manifest.config)?)?;
    let (diff_ids, layers) = (&config.rootfs.diff_ids, manifest.layers);
    if diff_ids.len() != layers.len() {
        let reason = format!("it has {} layers, and its configuration says {}", layers.len(), diff_ids.len());
        return Err(OciError::document("manifest", reason));
    }
    layers.iter().try_for_each(is_layer)?;
    let named = config.layer_names().into_iter().zip(diff_ids.clone()).zip(layers);
    let layers = named.map(|((name, diff_id), blob)| FoundLayer { name, diff_id, bytes: LayerBytes::Blob(blob) });
    Ok(Found { id, layers: layers.collect(), config })
}

/// Layers that stay elsewhere or are encrypted cannot be taken in.
fn is_layer(layer: &Described) -> Result<(), OciError> {
    let kind = layer.media_type.as_str();
    let tar = kind.starts_with("application/vnd.oci.image.layer.v1.tar")
        || kind.starts_with("application/vnd.docker.image.rootfs.diff.tar");
    let packing = kind.rsplit_once(".tar").map_or("?", |(_, rest)| rest);
    if tar && matches!(packing, "" | "+gzip" | ".gzip" | "+zstd" | ".zstd") {
        return Ok(());
    }
    let shown: String = kind.escape_debug().take(100).collect();
    Err(OciError::document(
        "manifest",
        format!("a layer is of the type `{shown}`; Kiln reads tar, tar+gzip and tar+zstd"),
    ))
}

/// A document, checked against its description.
pub(crate) fn document(origin: &dyn Origin, what: &'static str, described: &Described) -> Result<Vec<u8>, OciError> {
    if described.size > MAX_DOCUMENT {
        return Err(OciError::LongDocument { what, size: described.size, limit: MAX_DOCUMENT });
    }
    let bytes = origin.document(what, described)?;
    let found = Digest::of(&bytes);
    match found == described.digest {
        true => Ok(bytes),
        false => Err(OciError::WrongDocument { what, expected: described.digest, found }),
    }
}

/// Reads at most [`MAX_DOCUMENT`] bytes.
pub(crate) fn bounded(what: &'static str, reader: impl Read, path: &Path) -> Result<Vec<u8>, OciError> {
    let mut bytes = Vec::new();
    reader.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(OciError::file(path))?;
    match bytes.len() as u64 <= MAX_DOCUMENT {
        true => Ok(bytes),
        false => Err(OciError::LongDocument { what, size: bytes.len() as u64, limit: MAX_DOCUMENT }),
    }
}

/// The manifests of a layout's index that are no images.
pub(crate) fn unnamed(index: &[u8]) -> Result<Vec<Described>, OciError> {
    match Document::parse(index)? {
        Document::Index(manifests) => Ok(manifests.into_iter().filter(|entry| entry.artifact_type.is_some()).collect()),
        Document::Image(_) => Err(OciError::document("index", "it is no index")),
    }
}

/// The manifest that a layout's index has under a name (image-spec `image-layout.md`).
pub(crate) fn named(
    index: &[u8],
    name: Option<&str>,
    locked: Option<Digest>,
    place: &Path,
) -> Result<Described, OciError> {
    const NAME: &str = "org.opencontainers.image.ref.name";
    const FULL_NAME: &str = "io.containerd.image.name";
    let Document::Index(manifests) = Document::parse(index)? else {
        return Err(OciError::document("index", "it is no index"));
    };
    if let Some(found) = locked.and_then(|digest| manifests.iter().find(|entry| entry.digest == digest)) {
        return Ok(found.clone());
    }
    let names = |entry: &Described| -> Vec<String> {
        let all = entry.annotations.iter().flatten().filter(|(key, _)| *key == NAME || *key == FULL_NAME);
        all.map(|(_, value)| value.clone()).collect()
    };
    let mut found = manifests.iter().filter(|entry| match name {
        Some(name) => names(entry).iter().any(|has| has == name || has.ends_with(&format!("/{name}"))),
        // What is said of an image is no image.
        None => entry.artifact_type.is_none(),
    });
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.clone()),
        // Several platforms of one image, as some programs write them.
        (Some(_), Some(_)) if name.is_some() => choose(&manifests).cloned(),
        _ => {
            let has: Vec<_> = manifests.iter().flat_map(names).take(20).collect();
            let has = if has.is_empty() { format!("{} without names", manifests.len()) } else { has.join(", ") };
            let name = name.unwrap_or("(none named)").to_owned();
            Err(OciError::NoImage { place: place.display().to_string(), name, has: has.escape_debug().to_string() })
        }
    }
}
