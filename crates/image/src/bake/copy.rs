//! The `copy` step: files of the recipe's directory into the tree, without running anything.
//!
//! Directories that the tree already has keep their owner and mode, so that copying onto `/` does not change `/etc`;
//! files replace what is there. Times are `SOURCE_DATE_EPOCH`.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use composefs::tree::Inode;
use kiln_model::Digest;

use super::{
    BakeError,
    chain::Chain,
    key::Key,
    owner::{self, Owner},
    source::{Item, ItemKind, Source, hash},
};
use crate::{
    layer::{Content, Entry, Kind, Layer, Meta, apply},
    store::objects::Tree,
    tree::{Missing, resolve},
};

/// A `copy` step with its source read.
pub(super) struct Copy<'a> {
    pub(super) to: &'a str,
    pub(super) owner: &'a str,
    pub(super) mode: Option<u32>,
    pub(super) source: Source,
}

impl Copy<'_> {
    pub(super) fn key(&self, parent: &Digest) -> Digest {
        let mode = self.mode.map(|mode| mode.to_string()).unwrap_or_default();
        Key::new("copy", Some(parent))
            .part(self.to)
            .part(self.owner)
            .part(mode)
            .part(self.source.digest().as_bytes())
            .done()
    }

    /// The layer that does it over this tree.
    pub(super) fn layer(&self, step: &str, tree: &Tree, chain: &Chain<'_>) -> Result<Layer, BakeError> {
        let wrong = |reason| BakeError::Step { step: step.to_owned(), reason };
        let owner = owner::find(tree, chain.store.repo(), self.owner)?.map_err(wrong)?;
        let target = self.target(tree).map_err(wrong)?;
        let mut layer = Editor { tree, epoch: chain.epoch, owner, entries: Vec::new(), made: BTreeSet::new() };
        for item in &self.source.items {
            self.unchanged(step, item)?;
            let path = match item.path.is_empty() {
                true => target.clone(),
                false => target.join(OsStr::from_bytes(&item.path)),
            };
            self.item(&mut layer, &path, item).map_err(wrong)?;
        }
        Ok(Layer::new(layer.entries))
    }

    /// Where the source itself goes.
    fn target(&self, tree: &Tree) -> Result<PathBuf, String> {
        let dead = || format!("`{}` leads nowhere in the tree", self.to);
        let to = Path::new(self.to);
        if self.source.is_directory() {
            return resolve(tree, to, Missing::Accept).ok_or_else(dead);
        }
        let (dir, name) = match self.to.ends_with('/') {
            true => (to, OsStr::from_bytes(&self.source.name)),
            false => (to.parent().ok_or_else(dead)?, to.file_name().ok_or_else(dead)?),
        };
        Ok(resolve(tree, dir, Missing::Accept).ok_or_else(dead)?.join(name))
    }

    fn item(&self, layer: &mut Editor<'_>, path: &Path, item: &Item) -> Result<(), String> {
        match &item.kind {
            ItemKind::Directory => layer.directory(path, self.directory_mode()),
            ItemKind::Symlink(target) => layer.leaf(path, 0o777, Kind::Symlink(target.clone())),
            ItemKind::File { content, executable, .. } => {
                let mode = self.mode.unwrap_or(if *executable { 0o755 } else { 0o644 });
                layer.leaf(path, mode, Kind::File(content.clone()))
            }
        }
    }

    fn directory_mode(&self) -> u32 {
        self.mode.map_or(0o755, |mode| (mode & 0o777) | ((mode & 0o444) >> 2))
    }

    /// A large file is read twice: for the key and when it is stored. In between it must not have changed.
    fn unchanged(&self, step: &str, item: &Item) -> Result<(), BakeError> {
        let ItemKind::File { content: Content::Path { path, .. }, sha256, .. } = &item.kind else { return Ok(()) };
        let shown = path.display().to_string();
        match hash(path) {
            Ok(found) if found == *sha256 => Ok(()),
            Ok(_) => {
                Err(BakeError::Step { step: step.to_owned(), reason: format!("{shown} changes while it is read") })
            }
            Err(source) => Err(BakeError::Source { step: step.to_owned(), path: shown, source }),
        }
    }
}

/// Collects the entries of a layer over a tree.
pub(super) struct Editor<'a> {
    pub(super) tree: &'a Tree,
    pub(super) epoch: i64,
    pub(super) owner: Owner,
    pub(super) entries: Vec<Entry>,
    /// Directories that the layer has already.
    pub(super) made: BTreeSet<PathBuf>,
}

impl Editor<'_> {
    /// A directory, with those above it. One that is there keeps its owner and mode.
    pub(super) fn directory(&mut self, path: &Path, mode: u32) -> Result<(), String> {
        if path == Path::new("/") || self.made.contains(path) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.directory(parent, 0o755)?;
        }
        let meta = match self.lookup(path) {
            Some(Inode::Directory(dir)) => apply::meta(&dir.stat),
            Some(Inode::Leaf(..)) => return Err(format!("{} is not a directory", path.display())),
            None => self.meta(mode),
        };
        self.made.insert(path.to_owned());
        self.entries.push(Entry { path: relative(path), meta, kind: Kind::Directory { opaque: false } });
        Ok(())
    }

    /// A file or link, with the directories above it.
    pub(super) fn leaf(&mut self, path: &Path, mode: u32, kind: Kind) -> Result<(), String> {
        if matches!(self.lookup(path), Some(Inode::Directory(_))) || self.made.contains(path) {
            let path = path.display();
            return Err(format!("{path} is a directory: write `{path}/` to copy into it"));
        }
        if let Some(parent) = path.parent() {
            self.directory(parent, 0o755)?;
        }
        self.entries.push(Entry { path: relative(path), meta: self.meta(mode), kind });
        Ok(())
    }

    pub(super) fn lookup(&self, path: &Path) -> Option<&Inode<crate::store::objects::Object>> {
        let (dir, name) = self.tree.root.split(path.as_os_str()).ok()?;
        dir.lookup(name)
    }

    fn meta(&self, mode: u32) -> Meta {
        Meta { mode, uid: self.owner.uid, gid: self.owner.gid, mtime: self.epoch, ..Meta::default() }
    }
}

/// As layers name it.
pub(super) fn relative(path: &Path) -> Vec<u8> {
    let bytes = path.as_os_str().as_bytes();
    bytes.strip_prefix(b"/").unwrap_or(bytes).to_vec()
}
