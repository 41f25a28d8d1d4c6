//! Putting a layer over its parent's tree, in memory.

use std::{collections::BTreeMap, ffi::OsStr, os::unix::ffi::OsStrExt as _};

use composefs::{
    generic_tree::LeafId,
    tree::{Directory, Inode, LeafContent, RegularFile, Stat},
};

use super::{Entry, Kind, Layer, Meta, name, parent};
use crate::store::objects::{Object, Tree};

/// A layer that does not fit its parent.
#[derive(Debug, thiserror::Error)]
#[error("/{path} cannot be put over the parent's tree: {reason}")]
pub struct ApplyError {
    path: String,
    reason: String,
}

/// How a file's content is kept.
pub(crate) type Kept = RegularFile<Object>;

/// A tree with only a root directory.
pub(crate) fn empty(epoch: i64) -> Tree {
    Tree::new(stat(&Meta { mode: 0o755, mtime: epoch, ..Meta::default() }))
}

/// Puts the layer over the tree; `contents` holds what is at the entries with files, by index.
pub(crate) fn apply(tree: &mut Tree, layer: &Layer, contents: &[Option<Kept>]) -> Result<(), ApplyError> {
    for (entry, content) in layer.entries().iter().zip(contents) {
        one(tree, entry, content.as_ref())
            .map_err(|reason| ApplyError { path: String::from_utf8_lossy(&entry.path).into_owned(), reason })?;
    }
    tree.compact();
    Ok(())
}

fn one(tree: &mut Tree, entry: &Entry, content: Option<&Kept>) -> Result<(), String> {
    let filename = OsStr::from_bytes(name(&entry.path));
    let leaf = match &entry.kind {
        Kind::Directory { opaque } => return directory(tree, entry, *opaque),
        Kind::Whiteout => {
            dir(tree, parent(&entry.path))?.remove(filename);
            return Ok(());
        }
        Kind::Hardlink(target) => existing(tree, target)?,
        Kind::File(_) => {
            let content = content.ok_or("its content was not stored")?;
            tree.push_leaf(stat(&entry.meta), LeafContent::Regular(content.clone()))
        }
        Kind::Symlink(target) => {
            tree.push_leaf(stat(&entry.meta), LeafContent::Symlink(OsStr::from_bytes(target).into()))
        }
        Kind::Fifo => tree.push_leaf(stat(&entry.meta), LeafContent::Fifo),
    };
    dir(tree, parent(&entry.path))?.insert(filename, Inode::leaf(leaf));
    Ok(())
}

fn directory(tree: &mut Tree, entry: &Entry, opaque: bool) -> Result<(), String> {
    let filename = OsStr::from_bytes(name(&entry.path));
    let parent = dir(tree, parent(&entry.path))?;
    parent.merge(filename, Inode::Directory(Box::new(Directory::new(stat(&entry.meta)))));
    if opaque {
        parent.get_directory_mut(filename).map_err(|e| e.to_string())?.clear();
    }
    Ok(())
}

fn dir<'t>(tree: &'t mut Tree, path: &[u8]) -> Result<&'t mut Directory<Object>, String> {
    tree.root.get_directory_mut(OsStr::from_bytes(path)).map_err(|e| e.to_string())
}

fn existing(tree: &Tree, path: &[u8]) -> Result<LeafId, String> {
    let dir = tree.root.get_directory(OsStr::from_bytes(parent(path))).map_err(|e| e.to_string())?;
    dir.leaf_id(OsStr::from_bytes(name(path))).map_err(|e| e.to_string())
}

pub(crate) fn stat(meta: &Meta) -> Stat {
    let xattrs = meta.xattrs.iter();
    let xattrs = xattrs.map(|(name, value)| (OsStr::from_bytes(name).into(), value.as_slice().into()));
    Stat {
        st_mode: meta.mode,
        st_uid: meta.uid,
        st_gid: meta.gid,
        st_mtim_sec: meta.mtime,
        st_mtim_nsec: 0,
        xattrs: xattrs.collect(),
    }
}

pub(crate) fn meta(stat: &Stat) -> Meta {
    let xattrs = stat.xattrs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()));
    Meta {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtim_sec,
        xattrs: xattrs.collect::<BTreeMap<_, _>>(),
    }
}
