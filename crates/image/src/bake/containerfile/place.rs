//! Where copied things go in a tree, as `cp` would put them there.
//!
//! Directories that are there keep their owner and mode. A path that leads through a symbolic link is followed inside the
//! image; a file takes the place of a file or link.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use composefs::tree::Inode;

use super::files::{Files, Item, What};
use crate::{
    bake::{
        copy::{Editor, relative},
        owner::Owner,
    },
    layer::{self, Entry, Kind, Layer},
    store::objects::Tree,
    tree::{Missing, resolve},
};

/// What is put over a tree.
pub(super) struct Placer<'t> {
    editor: Editor<'t>,
    /// Where each path of the thing that is being put really is, for its hard links.
    real: BTreeMap<Vec<u8>, PathBuf>,
}

/// How things are changed on their way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Changes {
    pub(super) owner: Option<Owner>,
    pub(super) mode: Option<u32>,
}

impl<'t> Placer<'t> {
    pub(super) fn new(tree: &'t Tree, epoch: i64, owner: Owner) -> Self {
        let editor = Editor { tree, epoch, owner, entries: Vec::new(), made: BTreeSet::new() };
        Self { editor, real: BTreeMap::new() }
    }

    pub(super) fn done(self) -> Layer {
        Layer::new(self.editor.entries)
    }

    /// The directory itself, with those above it.
    pub(super) fn directory(&mut self, path: &Path) -> Result<PathBuf, String> {
        let real = self.resolve(path)?;
        self.editor.directory(&real, 0o755)?;
        Ok(real)
    }

    /// Whether there is a directory at this path.
    pub(super) fn is_directory(&self, path: &Path) -> bool {
        resolve(self.editor.tree, path, Missing::Refuse).is_some_and(|real| {
            real == Path::new("/") || matches!(self.editor.lookup(&real), Some(Inode::Directory(_)))
        })
    }

    /// Puts a thing at a path.
    pub(super) fn put(&mut self, files: &Files, to: &Path, changes: Changes) -> Result<(), String> {
        self.real.clear();
        let base = match files.is_directory() {
            true => self.directory(to)?,
            false => self.leaf_place(to)?,
        };
        for item in &files.items {
            match item.path.is_empty() {
                true if files.is_directory() => {}
                true => self.leaf(item, &base, changes)?,
                false => self.item(item, &base.join(OsStr::from_bytes(&item.path)), changes)?,
            }
        }
        Ok(())
    }

    fn item(&mut self, item: &Item, path: &Path, changes: Changes) -> Result<(), String> {
        match item.what {
            What::Directory => {
                let real = self.resolve(path)?;
                if self.editor.made.contains(&real) {
                    return Ok(());
                }
                match self.editor.lookup(&real) {
                    Some(_) => self.editor.directory(&real, 0o755),
                    None => {
                        if let Some(above) = real.parent() {
                            self.editor.directory(above, 0o755)?;
                        }
                        self.editor.made.insert(real.clone());
                        self.entry(item, &real, Kind::Directory { opaque: false }, changes);
                        Ok(())
                    }
                }
            }
            _ => {
                let real = self.leaf_place(path)?;
                self.leaf(item, &real, changes)
            }
        }
    }

    fn leaf(&mut self, item: &Item, real: &Path, changes: Changes) -> Result<(), String> {
        if matches!(self.editor.lookup(real), Some(Inode::Directory(_))) || self.editor.made.contains(real) {
            return Err(format!("{} is a directory there, and a file here", real.display()));
        }
        if let Some(above) = real.parent() {
            self.editor.directory(above, 0o755)?;
        }
        let kind = match &item.what {
            What::File { content, .. } => Kind::File(content.clone()),
            What::Symlink(target) => Kind::Symlink(target.clone()),
            What::Fifo => Kind::Fifo,
            What::Hardlink(first) => self.hard_link(first, real)?,
            What::Directory => return Err(format!("{} is a directory", real.display())),
        };
        self.real.insert(item.path.clone(), real.to_owned());
        self.entry(item, real, kind, changes);
        Ok(())
    }

    /// The first name of a file must sort before the others in a layer; one that does not is a file of its own.
    fn hard_link(&self, first: &[u8], real: &Path) -> Result<Kind, String> {
        let there = self.real.get(first).ok_or("a hard link leads to what is not copied")?;
        let there = relative(there);
        if layer::order(&there, &relative(real)).is_lt() {
            return Ok(Kind::Hardlink(there));
        }
        let entry = self.editor.entries.iter().rev().find(|entry| entry.path == there);
        entry.map(|entry| entry.kind.clone()).ok_or_else(|| "a hard link leads to what is not copied".to_owned())
    }

    fn entry(&mut self, item: &Item, real: &Path, kind: Kind, changes: Changes) {
        let mut meta = item.meta.clone();
        if let Some(owner) = changes.owner {
            (meta.uid, meta.gid) = (owner.uid, owner.gid);
        }
        if let Some(mode) = changes.mode.filter(|_| !matches!(kind, Kind::Symlink(_))) {
            meta.mode = mode;
        }
        self.editor.entries.push(Entry { path: relative(real), meta, kind });
    }

    fn resolve(&self, path: &Path) -> Result<PathBuf, String> {
        let real = resolve(self.editor.tree, path, Missing::Accept);
        real.ok_or_else(|| format!("{} leads nowhere in the tree", path.display()))
    }

    /// Where a file or link goes: the links above it are followed, and one at its end is replaced.
    fn leaf_place(&self, path: &Path) -> Result<PathBuf, String> {
        match (path.parent(), path.file_name()) {
            (Some(above), Some(name)) => Ok(self.resolve(above)?.join(name)),
            _ => Err("a file cannot be the root directory".to_owned()),
        }
    }
}
