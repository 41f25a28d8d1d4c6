//! Why a file is in an image: the step that put it there, and the Debian package that it belongs to.

use std::path::{Path, PathBuf};

use kiln_model::{Digest, ImageDigest};

use crate::{
    store::{
        Store, StoreError,
        objects::{self},
    },
    tree::{EntryKind, ImageTree, TreeEntry},
};

/// A list of a package's files is at most this long, bytes.
const MAX_LIST: u64 = 16 << 20;
/// Where dpkg keeps what each package installed.
const INFO: &str = "/var/lib/dpkg/info";

/// Why a file is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The path itself, with the symbolic links on the way to it followed.
    pub entry: TreeEntry,
    /// The steps that wrote it, the last one first; its content is that one's.
    pub steps: Vec<String>,
    /// The Debian package that it belongs to.
    pub package: Option<String>,
}

impl Store {
    /// Why a file is in an image; none if it is not.
    pub fn why(&self, image: &ImageDigest, path: &Path) -> Result<Option<Why>, StoreError> {
        let tree = self.tree(image)?;
        let Some(entry) = find(&tree, path) else { return Ok(None) };
        let mut steps = Vec::new();
        for layer in self.layers(image)?.iter().rev() {
            if self.writes(&layer.digest, &entry.path)? {
                steps.push(layer.step.clone());
            }
        }
        let package = package(&tree, &[&entry.path, path])?;
        Ok(Some(Why { entry, steps, package }))
    }

    /// Whether a layer has something at a path.
    fn writes(&self, layer: &Digest, path: &Path) -> Result<bool, StoreError> {
        let name = objects::layer_stream(layer);
        let damaged = |e: anyhow::Error| StoreError::damaged(&name, format!("{e:#}"));
        let mut stream = self.repo().open_stream(&name, None, Some(objects::LAYER_STREAM)).map_err(damaged)?;
        while let Some(entry) = composefs_oci::tar::get_entry(&mut stream).map_err(damaged)? {
            if entry.path == path {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The entry at a path whose directory may lead through symbolic links.
fn find(tree: &ImageTree, path: &Path) -> Option<TreeEntry> {
    let path = Path::new("/").join(path);
    let directory = tree.resolve(path.parent()?)?;
    tree.entry(&directory.join(path.file_name()?))
}

/// The package whose list names one of these paths. Before `/usr` was merged, packages named their files without it.
fn package(tree: &ImageTree, paths: &[&Path]) -> Result<Option<String>, StoreError> {
    let mut wanted: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
    wanted.extend(paths.iter().filter_map(|path| Some(Path::new("/").join(path.strip_prefix("/usr").ok()?))));
    let lists = tree.entries().into_iter().filter(|entry| {
        let list = entry.path.extension().is_some_and(|extension| extension == "list");
        list && entry.path.parent() == Some(Path::new(INFO)) && matches!(entry.kind, EntryKind::File { .. })
    });
    for list in lists {
        let bytes = tree.read(&list.path, MAX_LIST)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        if text.lines().any(|line| wanted.iter().any(|path| path.as_os_str() == line)) {
            return Ok(list.path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}
