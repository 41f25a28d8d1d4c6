//! `kiln save`: an image to a file, an OCI layout in a tar archive (image-spec 1.1 `image-layout.md`).
//!
//! The image has the name it has here as its tag; what is said of it stands in the index beside it. The same image with the
//! same reports gives the same bytes.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write as _},
    path::Path,
};

use kiln_model::{Digest, ImageDigest, ImageName};
use serde_json::{Value, json};

use super::{DeliveryError, DeliveryEvent, Events, outgoing::Outgoing};
use crate::{
    oci::{self, Artifact, Descriptor},
    store::Store,
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The image.
    pub image: ImageDigest,
    /// Its name in the archive.
    pub name: ImageName,
    /// Bytes of the file.
    pub bytes: u64,
    /// Reports in it.
    pub reports: usize,
}

/// Writes an image with everything that is said of it to a file, which takes its place when it is whole.
pub fn save(store: &Store, image: &ImageDigest, file: &Path, events: Events<'_>) -> Result<Saved, DeliveryError> {
    let record = store.image(image)?.ok_or(crate::StoreError::NotFound(*image))?;
    let outgoing = Outgoing::read(store, image)?;
    let failed = |source| DeliveryError::File { path: file.to_owned(), source };
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let partial = tempfile::Builder::new().prefix(".kiln-").tempfile_in(directory).map_err(failed)?;
    write(&outgoing, &record.name, partial.as_file(), events).map_err(failed)?;
    let bytes = partial.as_file().metadata().map_err(failed)?.len();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    partial.as_file().set_permissions(mode).map_err(failed)?;
    partial.persist(file).map_err(|error| failed(error.error))?;
    Ok(Saved { image: *image, name: record.name, bytes, reports: outgoing.reports })
}

fn write(outgoing: &Outgoing, name: &ImageName, file: &File, events: Events<'_>) -> io::Result<()> {
    let mut tar = tar::Builder::new(BufWriter::new(file));
    tar.sparse(false);
    let layout = oci::render(&json!({ "imageLayoutVersion": "1.0.0" }));
    add(&mut tar, "oci-layout", layout.len() as u64, layout.as_slice())?;
    let index = oci::render(&index(outgoing, name));
    add(&mut tar, "index.json", index.len() as u64, index.as_slice())?;
    let manifests = outgoing.artifacts.iter().map(|artifact| &artifact.manifest).chain([&outgoing.manifest]);
    for manifest in manifests {
        add(&mut tar, &path(&Digest::of(manifest)), manifest.len() as u64, manifest.as_slice())?;
    }
    let total = outgoing.blobs.iter().map(|blob| blob.size).sum();
    let mut bytes = 0;
    for blob in &outgoing.blobs {
        add(&mut tar, &path(&blob.digest), blob.size, outgoing.open(blob, 0)?)?;
        bytes += blob.size;
        events(DeliveryEvent::Transfer { bytes, total });
    }
    let mut written = tar.into_inner()?;
    written.flush()?;
    file.sync_all()
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn add<W: io::Write>(tar: &mut tar::Builder<W>, path: &str, size: u64, mut content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, &mut content)
}

fn index(outgoing: &Outgoing, name: &ImageName) -> Value {
    let described = Descriptor::of(oci::MANIFEST, &outgoing.manifest);
    let mut image = json!(described);
    image["annotations"] = json!({ "org.opencontainers.image.ref.name": name.as_str() });
    let said = outgoing.artifacts.iter().map(said);
    let manifests: Vec<Value> = [image].into_iter().chain(said).collect();
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests })
}

fn said(artifact: &Artifact) -> Value {
    let mut entry = json!(Descriptor::of(oci::MANIFEST, &artifact.manifest));
    entry["artifactType"] = json!(artifact.kind);
    entry
}
