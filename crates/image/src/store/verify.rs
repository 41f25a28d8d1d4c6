//! Hashing again everything that an image consists of.
//!
//! Documents and layers are checked against their SHA-256 digests, the metadata image and every file against its
//! fs-verity digest. Files are named by their path in the image, which is what somebody who has to repair it needs.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _, Write},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use composefs::{
    fsverity::{FsVerityHashValue as _, FsVerityHasher},
    tree::{Directory, Inode, LeafContent, RegularFile},
};
use kiln_model::{Digest, ImageDigest};
use openssl::sha::Sha256;
use rayon::prelude::*;

use super::{
    Store, StoreError,
    objects::{self, Object, Tree},
};
use crate::{layer::apply, tree};

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Files that were hashed (one content under several names counts once).
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// What is not as its digest says, sorted.
    pub damage: Vec<Damage>,
}

impl Verification {
    /// Whether everything is as its digest says.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Something that is not as its digest says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damage {
    /// What: `manifest`, `layer sha256:…`, `metadata image`, or a path in the image.
    pub what: String,
    /// The file in the store.
    pub stored: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// How far a verification is: bytes hashed, and bytes to hash.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

impl Store {
    /// Hashes again everything that the image consists of. An error means that the store could not be read at all;
    /// damage is in the answer.
    pub fn verify(&self, image: &ImageDigest, progress: Progress<'_>) -> Result<Verification, StoreError> {
        let entry = self.index().image(image)?.ok_or(StoreError::NotFound(*image))?;
        let mut found = Verification::default();
        let documents = match self.read_documents(image) {
            Ok(documents) => documents,
            Err(e @ (StoreError::Damaged { .. } | StoreError::NotFound(_))) => {
                found.damage.push(self.damage("manifest or configuration", &objects::manifest_stream(&image.0), &e));
                return Ok(found);
            }
            Err(e) => return Err(e),
        };
        let layers = &documents.config.rootfs.diff_ids;
        let tree = match tree::load(self.repo(), &entry.tree) {
            Ok(tree) => tree,
            Err(e) => {
                let object = objects::parse(&entry.tree)?;
                found.damage.push(Damage {
                    what: "metadata image".into(),
                    stored: self.stored(&object),
                    problem: e.to_string(),
                });
                self.rebuilt(layers)
            }
        };
        self.verify_files(&tree, progress, &mut found);
        found.damage.extend(layers.par_iter().filter_map(|layer| self.verify_layer(layer)).collect::<Vec<_>>());
        found.damage.sort();
        Ok(found)
    }

    /// As much of the tree as the layers still give.
    fn rebuilt(&self, layers: &[Digest]) -> Tree {
        let mut tree = apply::empty(0);
        for layer in layers {
            // A layer that cannot be read is found when it is verified itself.
            if self.read_layer(layer, &mut tree).is_err() {
                tree.compact();
            }
        }
        tree
    }

    fn verify_files(&self, tree: &Tree, progress: Progress<'_>, found: &mut Verification) {
        let files = files(tree);
        let total = files.values().map(|(size, _)| size).sum();
        let done = AtomicU64::new(0);
        let damage = files.par_iter().filter_map(|(object, (size, paths))| {
            let problem = self.problem(object, *size);
            progress(done.fetch_add(*size, Ordering::Relaxed) + size, total);
            problem.map(|problem| (object, paths, problem))
        });
        let damage: Vec<_> = damage.collect();
        for (object, paths, problem) in damage {
            found.damage.extend(paths.iter().map(|path| Damage {
                what: path.display().to_string(),
                stored: self.stored(object),
                problem: problem.clone(),
            }));
        }
        found.files = files.len() as u64;
        found.bytes = total;
    }

    /// What is wrong with an object.
    fn problem(&self, object: &Object, size: u64) -> Option<String> {
        match hash(&self.stored(object)) {
            Ok((found, _)) if found == *object => None,
            Ok((_, found)) if found != size => Some(format!("it has {found} bytes instead of {size}")),
            Ok(_) => Some("its content has changed".into()),
            Err(e) => Some(format!("it cannot be read: {e}")),
        }
    }

    fn verify_layer(&self, layer: &Digest) -> Option<Damage> {
        let name = objects::layer_stream(layer);
        let damage = |problem: String| Some(self.damage(&format!("layer {layer}"), &name, &problem));
        let mut stream = match self.repo().open_stream(&name, None, Some(objects::LAYER_STREAM)) {
            Ok(stream) => stream,
            Err(e) => return damage(format!("{e:#}")),
        };
        let mut sha = Hashing(Sha256::new());
        match stream.cat(self.repo(), &mut sha) {
            Ok(()) if sha.0.finish() == *layer.as_bytes() => None,
            Ok(()) => damage("its content has changed".into()),
            Err(e) => damage(format!("{e:#}")),
        }
    }

    fn damage(&self, what: &str, stream: &str, problem: &impl ToString) -> Damage {
        let link = self.dir().join("composefs/streams").join(stream);
        let stored = std::fs::canonicalize(&link).unwrap_or(link);
        Damage { what: what.to_owned(), stored, problem: problem.to_string() }
    }

    fn stored(&self, object: &Object) -> PathBuf {
        self.dir().join("composefs/objects").join(object.to_object_pathname())
    }
}

struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The digest and the size of a file.
pub(super) fn hash(path: &std::path::Path) -> io::Result<(Object, u64)> {
    let (mut file, mut buffer, mut size) = (File::open(path)?, vec![0; 1 << 18], 0);
    let mut hasher = FsVerityHasher::<Object>::new();
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hasher.digest(), size)),
            length => {
                hasher.write_all(&buffer[..length])?;
                size += length as u64;
            }
        }
    }
}

/// Every content of a tree with its size and the paths that have it.
fn files(tree: &Tree) -> HashMap<Object, (u64, Vec<PathBuf>)> {
    let mut found = HashMap::new();
    walk(tree, &tree.root, &PathBuf::from("/"), &mut found);
    found
}

fn walk(
    tree: &Tree,
    dir: &Directory<Object>,
    path: &std::path::Path,
    found: &mut HashMap<Object, (u64, Vec<PathBuf>)>,
) {
    for (name, inode) in dir.sorted_entries() {
        let path = path.join(name);
        match inode {
            Inode::Directory(dir) => walk(tree, dir, &path, found),
            Inode::Leaf(id, _) => {
                if let LeafContent::Regular(RegularFile::External(object, size)) = &tree.leaf(*id).content {
                    found.entry(object.clone()).or_insert_with(|| (*size, Vec::new())).1.push(path);
                }
            }
        }
    }
}
