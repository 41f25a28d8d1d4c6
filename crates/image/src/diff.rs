//! What differs between two images: packages, files, and what the manifests say of services, paths and configuration.
//!
//! Times are left out: they say when something was baked, not what it is.

use std::{collections::BTreeMap, path::PathBuf};

use composefs::tree::{Directory, Inode, LeafContent, RegularFile};
use kiln_model::{ImageDigest, ImageManifest};
use serde::Serialize;
use serde_json::Value;

use crate::{
    store::{InstalledPackage, Store, StoreError, objects::Object},
    tree::ImageTree,
};

/// What differs between two images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageDiff {
    /// Bytes of the files, before and after.
    pub size: (u64, u64),
    /// Debian packages by name and architecture: their versions.
    pub packages: Vec<Change<String>>,
    /// Services, writable paths, configuration keys, templates and bindings, as the manifests have them.
    pub manifest: Vec<Change<Value>>,
    /// Paths.
    pub files: Vec<Change<FileState>>,
}

/// Something that is in one of two images, or in both and not the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change<T> {
    /// `package`, `service`, `writable`, `config`, `template`, `service_binding`, `file`.
    pub what: &'static str,
    /// Its name or path.
    pub name: String,
    /// As it was; null if it was not there.
    pub before: Option<T>,
    /// As it is; null if it is gone.
    pub after: Option<T>,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileState {
    /// `directory`, `file`, `link`, `fifo`.
    pub kind: &'static str,
    /// Octal.
    pub mode: String,
    /// Whether who runs it gets its owner's or group's rights.
    pub setuid: bool,
    /// Number of the user.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Bytes of a file.
    pub size: u64,
    /// Where a link leads; for a file, what tells its content from another's.
    pub content: String,
    /// Extended attributes, file capabilities among them: their names, and hexadecimal values.
    pub attributes: BTreeMap<String, String>,
}

impl Store {
    /// What differs between two images.
    pub fn diff(&self, before: &ImageDigest, after: &ImageDigest) -> Result<ImageDiff, StoreError> {
        let record = |image: &ImageDigest| self.image(image)?.ok_or(StoreError::NotFound(*image));
        let (old, new) = (record(before)?, record(after)?);
        let (old_tree, new_tree) = (self.tree(before)?, self.tree(after)?);
        Ok(ImageDiff {
            size: (old.size, new.size),
            packages: changes("package", packages(&old_tree)?, packages(&new_tree)?),
            manifest: manifests(&old.manifest, &new.manifest),
            files: changes("file", files(&old_tree), files(&new_tree)),
        })
    }
}

impl ImageDiff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.manifest.is_empty() && self.files.is_empty()
    }
}

fn changes<T: PartialEq>(
    what: &'static str,
    mut before: BTreeMap<String, T>,
    after: BTreeMap<String, T>,
) -> Vec<Change<T>> {
    let mut found = Vec::new();
    for (name, new) in after {
        match before.remove(&name) {
            Some(old) if old == new => {}
            old => found.push(Change { what, name, before: old, after: Some(new) }),
        }
    }
    found.extend(before.into_iter().map(|(name, old)| Change { what, name, before: Some(old), after: None }));
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn packages(tree: &ImageTree) -> Result<BTreeMap<String, String>, StoreError> {
    let named = |package: InstalledPackage| (format!("{}:{}", package.name, package.architecture), package.version);
    Ok(tree.packages()?.into_iter().map(named).collect())
}

fn manifests(before: &ImageManifest, after: &ImageManifest) -> Vec<Change<Value>> {
    let (old, new) = (parts(before), parts(after));
    old.into_iter().zip(new).flat_map(|((what, old), (_, new))| changes(what, old, new)).collect()
}

/// Everything of a manifest that has a name.
fn parts(manifest: &ImageManifest) -> [(&'static str, BTreeMap<String, Value>); 5] {
    [
        ("service", named(&manifest.services)),
        ("config", named(&manifest.config.0)),
        ("service_binding", named(&manifest.bindings)),
        ("writable", manifest.writable.iter().map(|part| (part.path.clone(), value(part))).collect()),
        ("template", manifest.templates.iter().map(|part| (part.path.clone(), value(part))).collect()),
    ]
}

fn named<K: ToString, T: Serialize>(parts: &BTreeMap<K, T>) -> BTreeMap<String, Value> {
    parts.iter().map(|(name, part)| (name.to_string(), value(part))).collect()
}

fn value(part: &impl Serialize) -> Value {
    serde_json::to_value(part).expect("plain data always serialises")
}

fn files(tree: &ImageTree) -> BTreeMap<String, FileState> {
    let mut found = BTreeMap::new();
    walk(tree, &tree.tree.root, &PathBuf::from("/"), &mut found);
    found
}

fn walk(tree: &ImageTree, dir: &Directory<Object>, path: &std::path::Path, found: &mut BTreeMap<String, FileState>) {
    for (name, inode) in dir.sorted_entries() {
        let path = path.join(name);
        found.insert(path.to_string_lossy().into_owned(), state(tree, inode));
        if let Inode::Directory(dir) = inode {
            walk(tree, dir, &path, found);
        }
    }
}

fn state(tree: &ImageTree, inode: &Inode<Object>) -> FileState {
    let stat = inode.stat(&tree.tree.leaves);
    let (kind, size, content) = match inode {
        Inode::Directory(_) => ("directory", 0, String::new()),
        Inode::Leaf(id, _) => match &tree.tree.leaf(*id).content {
            LeafContent::Regular(file) => ("file", file.file_size(), content(file)),
            LeafContent::Symlink(target) => ("link", 0, target.to_string_lossy().into_owned()),
            _ => ("fifo", 0, String::new()),
        },
    };
    let attributes = stat.xattrs.iter();
    FileState {
        kind,
        mode: format!("{:04o}", stat.st_mode & 0o7777),
        setuid: kind == "file" && stat.st_mode & 0o6000 != 0,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size,
        content,
        attributes: attributes.map(|(name, value)| (name.to_string_lossy().into_owned(), hex::encode(value))).collect(),
    }
}

fn content(file: &RegularFile<Object>) -> String {
    match file {
        RegularFile::Inline(bytes) => kiln_model::Digest::of(bytes).hex(),
        RegularFile::External(object, _) | RegularFile::ExternalNoVerity(object, _) => {
            composefs::fsverity::FsVerityHashValue::to_hex(object)
        }
        RegularFile::Sparse(_) => String::new(),
    }
}
