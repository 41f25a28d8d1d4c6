//! What a `copy` step reads from the recipe's directory.
//!
//! Content, names and execute bits count; times, owners and the order in which the file system lists files do not. A
//! symbolic link inside a copied directory is copied as a link; the source itself may not lead out of the recipe's
//! directory.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use kiln_model::Digest;
use openssl::sha::Sha256;

use super::{BakeError, key::Key};
use crate::layer::Content;

/// Files up to this size (bytes) are kept in memory between hashing and storing.
const KEPT: u64 = 1 << 20;

/// What a `copy` step reads.
#[derive(Debug)]
pub(super) struct Source {
    /// The source's own name, for a target that ends with `/`.
    pub(super) name: Vec<u8>,
    /// Sorted by path, parents first; a single file has the empty path.
    pub(super) items: Vec<Item>,
}

/// One path of a source.
#[derive(Debug)]
pub(super) struct Item {
    /// Relative to the source; empty for the source itself.
    pub(super) path: Vec<u8>,
    pub(super) kind: ItemKind,
}

#[derive(Debug)]
pub(super) enum ItemKind {
    Directory,
    File { content: Content, sha256: [u8; 32], executable: bool },
    Symlink(Vec<u8>),
}

impl Source {
    /// Reads and hashes everything that the step copies.
    pub(super) fn read(step: &str, directory: &Path, from: &str) -> Result<Self, BakeError> {
        let failed = |source| BakeError::Source { step: step.to_owned(), path: from.to_owned(), source };
        let real = inside(directory, from).map_err(failed)?;
        let mut items = Vec::new();
        read(&real, Vec::new(), &mut items).map_err(failed)?;
        let name = Path::new(from).file_name().map(|n| n.as_bytes().to_vec()).unwrap_or_default();
        Ok(Self { name, items })
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self.items.first(), Some(Item { kind: ItemKind::Directory, .. }))
    }

    /// Stands for everything that counts.
    pub(super) fn digest(&self) -> Digest {
        let key = Key::new("source", None).part(&self.name);
        let add = |key: Key, item: &Item| match &item.kind {
            ItemKind::Directory => key.part(&item.path).part("directory"),
            ItemKind::Symlink(target) => key.part(&item.path).part("link").part(target),
            ItemKind::File { sha256, executable, .. } => {
                key.part(&item.path).part(if *executable { "program" } else { "file" }).part(sha256)
            }
        };
        self.items.iter().fold(key, add).done()
    }
}

/// The real path of a source, which lies in the recipe's directory.
fn inside(directory: &Path, from: &str) -> io::Result<PathBuf> {
    let root = fs::canonicalize(directory)?;
    let real = fs::canonicalize(root.join(from))?;
    match real.starts_with(&root) {
        true => Ok(real),
        false => Err(io::Error::other("it leads out of the recipe's directory")),
    }
}

fn read(host: &Path, path: Vec<u8>, items: &mut Vec<Item>) -> io::Result<()> {
    let stat = fs::symlink_metadata(host)?;
    if stat.is_symlink() {
        let target = fs::read_link(host)?.as_os_str().as_bytes().to_vec();
        items.push(Item { path, kind: ItemKind::Symlink(target) });
    } else if stat.is_file() {
        items.push(Item { path, kind: file(host, &stat)? });
    } else if stat.is_dir() {
        items.push(Item { path: path.clone(), kind: ItemKind::Directory });
        let mut names: Vec<_> = fs::read_dir(host)?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
        names.sort();
        for name in names {
            let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
            read(&host.join(&name), [&path, slash, name.as_bytes()].concat(), items)?;
        }
    } else {
        return Err(io::Error::other(format!("{} is neither a file, a directory nor a link", host.display())));
    }
    Ok(())
}

pub(super) fn file(host: &Path, stat: &fs::Metadata) -> io::Result<ItemKind> {
    let executable = stat.mode() & 0o111 != 0;
    if stat.len() <= KEPT {
        let bytes = fs::read(host)?;
        let sha256 = openssl::sha::sha256(&bytes);
        return Ok(ItemKind::File { content: Content::Bytes(bytes), sha256, executable });
    }
    let sha256 = hash(host)?;
    let content = Content::Path { path: host.to_owned(), size: stat.len(), take: false };
    Ok(ItemKind::File { content, sha256, executable })
}

/// The SHA-256 of a large file.
pub(super) fn hash(host: &Path) -> io::Result<[u8; 32]> {
    let (mut file, mut sha, mut buffer) = (fs::File::open(host)?, Sha256::new(), vec![0; 1 << 18]);
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(sha.finish()),
            length => sha.update(&buffer[..length]),
        }
    }
}
