//! The last layer of every image: what the runtime mounts over exists, and what must not be in an image does not.
//!
//! The root is read-only, so a mount point that is missing could not be made at launch.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use composefs::tree::Inode;
use kiln_model::manifest::Writable;

use super::{
    BakeError,
    chain::Chain,
    copy::Editor,
    owner::{self, Owner},
    remove::whiteout,
};
use crate::{
    layer::{
        Content, Kind, Layer,
        noise::{MOUNT_DIRECTORIES, MOUNT_FILES, Verdict, verdict},
    },
    store::objects::Tree,
    tree::{EntryKind, ImageTree, Missing, resolve},
};

/// The step's name.
pub(super) const NAME: &str = "mount points";

/// The layer over this tree.
pub(super) fn layer(tree: &Tree, chain: &Chain<'_>, writable: &[Writable]) -> Result<Layer, BakeError> {
    let wrong = |reason| BakeError::Step { step: NAME.to_owned(), reason };
    let view = ImageTree::new(tree.clone(), chain.store.repo().clone());
    let root = Owner { uid: 0, gid: 0 };
    let mut layer = Editor { tree, epoch: chain.epoch, owner: root, entries: Vec::new(), made: BTreeSet::new() };
    runtime_paths(&mut layer, &view).map_err(wrong)?;
    for path in writable {
        layer.owner = owner::find(&view, &path.user)?.map_err(wrong)?;
        let dead = || wrong(format!("the writable path `{}` leads nowhere", path.path));
        let real = resolve(tree, Path::new(&path.path), Missing::Accept).ok_or_else(dead)?;
        if layer.lookup(&real).is_none() {
            layer.directory(&real, path.mode).map_err(wrong)?;
        }
    }
    Ok(Layer::new(layer.entries))
}

fn runtime_paths(layer: &mut Editor<'_>, view: &ImageTree) -> Result<(), String> {
    for (dir, mode) in MOUNT_DIRECTORIES {
        let path = Path::new("/").join(dir);
        if !matches!(layer.lookup(&path), Some(Inode::Directory(_))) {
            layer.directory(&path, *mode)?;
        }
    }
    for file in MOUNT_FILES {
        let path = Path::new("/").join(file);
        if view.entry(&path).map(|entry| entry.kind) != Some(EntryKind::File { size: 0 }) {
            layer.leaf(&path, 0o644, Kind::File(Content::Bytes(Vec::new())))?;
        }
    }
    for path in unwanted(view) {
        whiteout(layer, &path)?;
    }
    Ok(())
}

/// What an image that Kiln did not bake may have brought.
fn unwanted(view: &ImageTree) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in view.entries() {
        let path = super::copy::relative(&entry.path);
        let gone = verdict(&path, entry.kind == EntryKind::Directory) == Verdict::Drop;
        if gone && !found.iter().any(|above| entry.path.starts_with(above)) {
            found.push(entry.path);
        }
    }
    found
}
