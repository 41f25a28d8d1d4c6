//! What `COPY`, `ADD` and bind mounts read: files with everything that counts of them, wherever they come from.

use std::{
    collections::HashMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use composefs::{
    fsverity::FsVerityHashValue as _,
    tree::{Directory, Inode, LeafContent, RegularFile},
};
use kiln_model::{Digest, containerfile::glob};

use crate::{
    bake::key::Key,
    layer::{Content, Meta, apply},
    store::objects::{Object, Tree},
    tree::{Missing, resolve},
};

/// One thing that is read: a file, a link, or a directory with what is in it.
#[derive(Debug)]
pub(super) struct Files {
    /// Its own name.
    pub(super) name: Vec<u8>,
    /// Parents before what they hold; the thing itself has the empty path.
    pub(super) items: Vec<Item>,
}

/// One path.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Relative to the thing itself.
    pub(super) path: Vec<u8>,
    pub(super) meta: Meta,
    pub(super) what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Directory,
    File {
        content: Content,
        /// Stands for the content: its SHA-256, or the name of the store's object.
        id: Vec<u8>,
        /// Its SHA-256, where it is a file of the host.
        sha256: Option<[u8; 32]>,
    },
    Symlink(Vec<u8>),
    /// The same file as this earlier path.
    Hardlink(Vec<u8>),
    Fifo,
}

impl Files {
    pub(super) fn is_directory(&self) -> bool {
        matches!(self.items.first(), Some(Item { what: What::Directory, .. }))
    }

    /// Stands for everything that counts. Times do not.
    pub(super) fn digest(&self) -> Digest {
        let key = Key::new("files", None).part(&self.name);
        let add = |key: Key, item: &Item| {
            let meta = [item.meta.mode, item.meta.uid, item.meta.gid].map(u32::to_le_bytes).concat();
            let attributes = item.meta.xattrs.iter().flat_map(|(name, value)| [name, value]);
            let key = key.part(&item.path).part(meta).parts(attributes);
            match &item.what {
                What::Directory => key.part("directory"),
                What::File { id, .. } => key.part("file").part(id),
                What::Symlink(target) => key.part("link").part(target),
                What::Hardlink(first) => key.part("same").part(first),
                What::Fifo => key.part("fifo"),
            }
        };
        self.items.iter().fold(key, add).done()
    }
}

/// What is at a path of a tree of the store, patterns in its names filled in. None if there is nothing.
pub(super) fn of_tree(tree: &Tree, objects: &Path, path: &Path) -> Vec<Files> {
    let mut found = vec![PathBuf::from("/")];
    for part in path.components() {
        let std::path::Component::Normal(part) = part else { continue };
        found = found.into_iter().flat_map(|above| below(tree, &above, part)).collect();
    }
    found.iter().filter_map(|path| thing(tree, objects, path)).collect()
}

fn below(tree: &Tree, above: &Path, part: &OsStr) -> Vec<PathBuf> {
    match part.to_str().filter(|part| glob::is_pattern(part)) {
        None => vec![above.join(part)],
        Some(pattern) => {
            let Some(real) = resolve(tree, above, Missing::Refuse) else { return Vec::new() };
            let Ok(directory) = tree.root.get_directory(real.as_os_str()) else { return Vec::new() };
            let names = directory.sorted_entries().map(|(name, _)| name);
            names.filter(|name| glob::name(pattern, &name.to_string_lossy())).map(|name| above.join(name)).collect()
        }
    }
}

fn thing(tree: &Tree, objects: &Path, path: &Path) -> Option<Files> {
    let real = resolve(tree, path, Missing::Refuse)?;
    let mut walk = Walk { tree, objects, items: Vec::new(), first: HashMap::new() };
    match real == Path::new("/") {
        true => walk.directory(&tree.root, Vec::new()),
        false => {
            let (directory, name) = tree.root.split(real.as_os_str()).ok()?;
            walk.inode(directory.lookup(name)?, Vec::new());
        }
    }
    let name = path.file_name().map(|name| name.as_bytes().to_vec()).unwrap_or_default();
    (!walk.items.is_empty()).then_some(Files { name, items: walk.items })
}

struct Walk<'t> {
    tree: &'t Tree,
    objects: &'t Path,
    items: Vec<Item>,
    /// The first path of each file with several names, by the tree's number for it.
    first: HashMap<usize, Vec<u8>>,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &Directory<Object>, path: Vec<u8>) {
        self.items.push(Item { path: path.clone(), meta: apply::meta(&directory.stat), what: What::Directory });
        for (name, inode) in directory.sorted_entries() {
            let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
            self.inode(inode, [&path, slash, name.as_bytes()].concat());
        }
    }

    fn inode(&mut self, inode: &Inode<Object>, path: Vec<u8>) {
        let id = match inode {
            Inode::Directory(directory) => return self.directory(directory, path),
            Inode::Leaf(id, _) => *id,
        };
        let leaf = self.tree.leaf(id);
        let what = match (self.first.get(&id.0), &leaf.content) {
            (Some(first), _) => What::Hardlink(first.clone()),
            (None, LeafContent::Regular(file)) => self.file(file),
            (None, LeafContent::Symlink(target)) => What::Symlink(target.as_bytes().to_vec()),
            (None, LeafContent::Fifo) => What::Fifo,
            // No image of Kiln's store has others.
            (None, _) => return,
        };
        self.first.entry(id.0).or_insert_with(|| path.clone());
        self.items.push(Item { path, meta: apply::meta(&leaf.stat), what });
    }

    fn file(&self, file: &RegularFile<Object>) -> What {
        match file {
            RegularFile::Inline(bytes) => {
                let id = openssl::sha::sha256(bytes).to_vec();
                What::File { content: Content::Bytes(bytes.to_vec()), id, sha256: None }
            }
            RegularFile::External(object, size) | RegularFile::ExternalNoVerity(object, size) => {
                let path = self.objects.join(object.to_object_pathname());
                let id = object.to_hex().into_bytes();
                What::File { content: Content::Path { path, size: *size, take: false }, id, sha256: None }
            }
            RegularFile::Sparse(size) => {
                let bytes = vec![0; usize::try_from(*size).unwrap_or_default()];
                let id = openssl::sha::sha256(&bytes).to_vec();
                What::File { content: Content::Bytes(bytes), id, sha256: None }
            }
        }
    }
}
