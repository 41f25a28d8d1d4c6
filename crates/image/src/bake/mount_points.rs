//! The last layer of every image: what the runtime mounts over exists, and what must not be in an image does not.
//!
//! The root is read-only, so a mount point that is missing could not be made at launch.

use std::{
    collections::BTreeSet,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use composefs::tree::{Inode, LeafContent};
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
        noise::{self, MOUNT_DIRECTORIES, MOUNT_FILES, Verdict},
    },
    store::objects::Tree,
    tree::{Missing, resolve},
};

/// The step's name.
pub(super) const NAME: &str = "mount points";

/// The layer over this tree.
pub(super) fn layer(tree: &Tree, chain: &Chain<'_>, writable: &[Writable]) -> Result<Layer, BakeError> {
    let wrong = |reason| BakeError::Step { step: NAME.to_owned(), reason };
    let root = Owner { uid: 0, gid: 0 };
    let mut layer = Editor { tree, epoch: chain.epoch, owner: root, entries: Vec::new(), made: BTreeSet::new() };
    runtime_paths(&mut layer).map_err(wrong)?;
    for path in writable {
        let dead = || wrong(format!("the writable path `{}` leads nowhere", path.path));
        let real = resolve(tree, Path::new(&path.path), Missing::Accept).ok_or_else(dead)?;
        if layer.lookup(&real).is_none() {
            layer.owner = owner::find(tree, chain.store.repo(), &path.user)?.map_err(wrong)?;
            layer.directory(&real, path.mode).map_err(wrong)?;
        }
    }
    Ok(Layer::new(layer.entries))
}

fn runtime_paths(layer: &mut Editor<'_>) -> Result<(), String> {
    for (dir, mode) in MOUNT_DIRECTORIES {
        let path = Path::new("/").join(dir);
        if !matches!(layer.lookup(&path), Some(Inode::Directory(_))) {
            layer.directory(&path, *mode)?;
        }
    }
    for file in MOUNT_FILES {
        let path = Path::new("/").join(file);
        if !is_empty_file(layer, &path) {
            layer.leaf(&path, 0o644, Kind::File(Content::Bytes(Vec::new())))?;
        }
    }
    for path in unwanted(layer.tree) {
        whiteout(layer, &path)?;
    }
    Ok(())
}

fn is_empty_file(layer: &Editor<'_>, path: &Path) -> bool {
    let Some(Inode::Leaf(id, _)) = layer.lookup(path) else { return false };
    matches!(&layer.tree.leaf(*id).content, LeafContent::Regular(file) if file.file_size() == 0)
}

/// What an image that Kiln did not bake may have brought, as [`noise`] knows it.
fn unwanted(tree: &Tree) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mounted = MOUNT_DIRECTORIES.iter().map(|(dir, _)| dir);
    for dir in mounted.chain(noise::CONTENT).chain(&["etc/ssh"]) {
        below(tree, Path::new(dir), &mut found);
    }
    for file in noise::FILES {
        let path = Path::new("/").join(file);
        let there = tree.root.split(path.as_os_str()).ok().and_then(|(dir, name)| dir.lookup(name));
        if matches!(there, Some(Inode::Leaf(..))) {
            found.push(path);
        }
    }
    found
}

fn below(tree: &Tree, path: &Path, found: &mut Vec<PathBuf>) {
    let Ok(dir) = tree.root.get_directory(path.as_os_str()) else { return };
    for (name, inode) in dir.entries() {
        let path = path.join(name);
        let directory = matches!(inode, Inode::Directory(_));
        match noise::verdict(path.as_os_str().as_bytes(), directory) {
            Verdict::Drop => found.push(Path::new("/").join(path)),
            _ if directory => below(tree, &path, found),
            _ => {}
        }
    }
}
