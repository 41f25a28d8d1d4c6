//! An image's tree, read without mounting it.
//!
//! The metadata image holds every path, mode, owner, time and attribute; file contents come from the objects. Used by
//! whoever wants to know what is in an image: the bake (owners' names, symbolic links), the conformance tests,
//! `kiln inspect`.

use std::{
    ffi::OsStr,
    io::Read as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use composefs::{
    erofs::reader::erofs_to_filesystem,
    fsverity::compute_verity,
    tree::{Directory, Inode, LeafContent, RegularFile, Stat},
};
use kiln_model::ImageDigest;

use crate::store::{
    Store, StoreError,
    error::Context as _,
    objects::{self, Object, Repo, Tree},
};

/// Symbolic links followed on one path, as the kernel does (`MAXSYMLINKS`).
const MAX_LINKS: u32 = 40;

/// A read-only tree.
#[derive(Debug)]
pub struct ImageTree {
    pub(crate) tree: Tree,
    repo: Arc<Repo>,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file of so many bytes.
    File {
        /// Bytes.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it leads.
        target: PathBuf,
    },
    /// A named pipe.
    Fifo,
    /// A device or socket, which Kiln itself never writes.
    Other,
}

/// A path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Absolute.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, 0 to 07777.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
}

impl Store {
    /// An image's tree.
    pub fn tree(&self, image: &ImageDigest) -> Result<ImageTree, StoreError> {
        let entry = self.index().image(image)?.ok_or(StoreError::NotFound(*image))?;
        self.stored_tree(&entry.tree)
    }

    /// The tree with this metadata image.
    pub(crate) fn stored_tree(&self, hex: &str) -> Result<ImageTree, StoreError> {
        Ok(ImageTree { tree: load(self.repo(), hex)?, repo: self.repo().clone() })
    }
}

/// Reads a metadata image, checked against its name.
pub(crate) fn load(repo: &Repo, hex: &str) -> Result<Tree, StoreError> {
    let object = objects::parse(hex)?;
    let what = || format!("metadata image {hex}");
    let bytes = repo.read_object(&object).doing(|| format!("read {}", what()))?;
    if compute_verity::<Object>(&bytes) != object {
        return Err(StoreError::damaged(what(), "its digest is another"));
    }
    erofs_to_filesystem(&bytes).map_err(|e| StoreError::damaged(what(), format!("{e:#}")))
}

impl ImageTree {
    /// Every path but the root, parents before what they hold.
    pub fn entries(&self) -> Vec<TreeEntry> {
        let mut found = Vec::new();
        self.walk(&self.tree.root, Path::new("/"), &mut found);
        found
    }

    /// What is at a path itself, without following a symbolic link at its end.
    pub fn entry(&self, path: &Path) -> Option<TreeEntry> {
        let (dir, name) = self.tree.root.split(path.as_os_str()).ok()?;
        Some(self.describe(path.to_owned(), dir.lookup(name)?))
    }

    /// The content of the regular file at a path (symbolic links followed), or none if there is no such file.
    /// A file of more than `limit` bytes is cut there.
    pub fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        read(&self.tree, &self.repo, path, limit)
    }

    /// The regular file at a path, not through a symbolic link; none if its content is so small that it is kept in no file.
    pub(crate) fn open(&self, path: &Path) -> Result<Option<std::fs::File>, StoreError> {
        let Ok((dir, name)) = self.tree.root.split(path.as_os_str()) else { return Ok(None) };
        match dir.get_file(name, &self.tree.leaves) {
            Ok(RegularFile::External(object, _) | RegularFile::ExternalNoVerity(object, _)) => {
                let file = self.repo.open_object(object).doing(|| format!("read {}", path.display()))?;
                Ok(Some(file.into()))
            }
            _ => Ok(None),
        }
    }

    /// The path with every symbolic link followed, also one at its end; none if something of it is missing.
    pub fn resolve(&self, path: &Path) -> Option<PathBuf> {
        resolve(&self.tree, path, Missing::Refuse)
    }

    fn walk(&self, dir: &Directory<Object>, path: &Path, found: &mut Vec<TreeEntry>) {
        for (name, inode) in dir.sorted_entries() {
            let path = path.join(name);
            found.push(self.describe(path.clone(), inode));
            if let Inode::Directory(dir) = inode {
                self.walk(dir, &path, found);
            }
        }
    }

    fn describe(&self, path: PathBuf, inode: &Inode<Object>) -> TreeEntry {
        let stat: &Stat = inode.stat(&self.tree.leaves);
        let kind = match inode {
            Inode::Directory(_) => EntryKind::Directory,
            Inode::Leaf(id, _) => match &self.tree.leaf(*id).content {
                LeafContent::Regular(file) => EntryKind::File { size: file.file_size() },
                LeafContent::Symlink(target) => EntryKind::Symlink { target: PathBuf::from(target.as_ref()) },
                LeafContent::Fifo => EntryKind::Fifo,
                LeafContent::BlockDevice(_) | LeafContent::CharacterDevice(_) | LeafContent::Socket => EntryKind::Other,
            },
        };
        TreeEntry {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: stat.st_mtim_sec,
        }
    }
}

/// The content of a regular file, cut at `limit` bytes.
pub(crate) fn read(tree: &Tree, repo: &Repo, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(real) = resolve(tree, path, Missing::Refuse) else { return Ok(None) };
    let Ok((dir, name)) = tree.root.split(real.as_os_str()) else { return Ok(None) };
    let Ok(file) = dir.get_file(name, &tree.leaves) else { return Ok(None) };
    let bytes = match file {
        RegularFile::Inline(bytes) => bytes.to_vec(),
        RegularFile::External(object, _) | RegularFile::ExternalNoVerity(object, _) => {
            let doing = || format!("read {}", path.display());
            let file = std::fs::File::from(repo.open_object(object).doing(doing)?);
            let mut bytes = Vec::new();
            file.take(limit).read_to_end(&mut bytes).doing(doing)?;
            bytes
        }
        RegularFile::Sparse(size) => vec![0; (*size).min(limit) as usize],
    };
    Ok(Some(bytes))
}

/// What happens to a path whose end does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Refuse,
    /// The rest is taken as written: it is about to be made.
    Accept,
}

/// Follows symbolic links inside a tree; `..` at the root stays there.
pub(crate) fn resolve(tree: &Tree, path: &Path, missing: Missing) -> Option<PathBuf> {
    let mut todo: Vec<Vec<u8>> = parts(path.as_os_str());
    let mut real = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = todo.pop() {
        match part.as_slice() {
            b".." => {
                real.pop();
                continue;
            }
            part => {
                match tree.root.get_directory(real.as_os_str()).ok().and_then(|d| d.lookup(OsStr::from_bytes(part))) {
                    None if missing == Missing::Accept => real.push(OsStr::from_bytes(part)),
                    None => return None,
                    Some(Inode::Leaf(id, _)) if links < MAX_LINKS => match &tree.leaf(*id).content {
                        LeafContent::Symlink(target) => {
                            links += 1;
                            if target.as_bytes().starts_with(b"/") {
                                real = PathBuf::from("/");
                            }
                            todo.extend(parts(target));
                        }
                        _ => real.push(OsStr::from_bytes(part)),
                    },
                    Some(Inode::Leaf(..)) => return None,
                    Some(Inode::Directory(_)) => real.push(OsStr::from_bytes(part)),
                }
            }
        }
    }
    Some(real)
}

/// The parts of a path, last first.
fn parts(path: &OsStr) -> Vec<Vec<u8>> {
    let parts = path.as_bytes().split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.rev().map(<[u8]>::to_vec).collect()
}
