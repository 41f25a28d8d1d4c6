//! Putting an image together from layers of the store: its tree, its documents, its name.

use composefs::{
    fsverity::FsVerityHashValue as _,
    tree::{Leaf, LeafContent},
};
use kiln_model::{Digest, ImageDigest};

use super::{
    Store, StoreError,
    objects::{self, Batch, Object, Tree},
};

/// The documents of an image, byte for byte.
pub(crate) struct Documents<'a> {
    pub(crate) image: ImageDigest,
    pub(crate) manifest: &'a [u8],
    pub(crate) config: &'a [u8],
}

impl Store {
    /// Writes the documents and the tree of an image; it becomes visible when the batch is published. `layers` are those of
    /// the manifest with their objects. The metadata image, and the bytes of its files.
    pub(crate) fn write_image(
        &self,
        batch: &mut Batch,
        documents: &Documents<'_>,
        layers: &[(Digest, Object)],
        tree: &Tree,
    ) -> Result<(String, u64), StoreError> {
        let stored = batch.tree(tree)?;
        let mut layers: Vec<_> = layers.iter().map(|(digest, object)| (digest.to_string(), object.clone())).collect();
        let config_digest = Digest::of(documents.config);
        let mut refers_to = layers.clone();
        refers_to.push((composefs_oci::IMAGE_REF_KEY_V1.to_owned(), stored.clone()));
        let name = objects::config_stream(&config_digest);
        let config = batch.document(name, objects::CONFIG_STREAM, documents.config, &refers_to)?;
        layers.insert(0, (format!("config:{config_digest}"), config));
        let name = objects::manifest_stream(&documents.image.0);
        batch.document(name.clone(), objects::MANIFEST_STREAM, documents.manifest, &layers)?;
        batch.reference(format!("oci/kiln-{}", documents.image.0.hex()), name);
        Ok((stored.to_hex(), tree.leaves.iter().map(bytes).sum()))
    }
}

fn bytes(leaf: &Leaf<Object>) -> u64 {
    match &leaf.content {
        LeafContent::Regular(file) => file.file_size(),
        _ => 0,
    }
}
