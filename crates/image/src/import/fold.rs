//! The entries of a layer, one after the other, to what the layer changes in the tree below.
//!
//! Order counts while reading: a later entry takes the place of an earlier one, and what an earlier entry was may decide
//! what a later one means. What comes out has no order but that of its paths. Rules where programs differ:
//!
//! - A path that leads through a symbolic link, of this layer or below, is followed inside the image, as containerd and
//!   umoci do, and the layer says afterwards what it really changed. A link that leads round in circles is refused.
//! - A directory on the way that nothing names is made: root's, 0755.
//! - A deletion concerns the layers below only (image-spec `layer.md`), wherever it stands in the layer.
//! - The root directory itself is always root's, 0755.
//! - Devices are refused; below `/dev`, which every server has its own of, they are left out.

use std::{collections::BTreeMap, ffi::OsStr, os::unix::ffi::OsStrExt as _};

use composefs::{
    fsverity::FsVerityHashValue as _,
    tree::{Directory, Inode as TreeInode, LeafContent, RegularFile},
};

use super::{
    Ground, ImportError, Imported, Spent,
    entries::{Archive, Entry, What},
    names::{self, Meant, refused},
    spool::Spool,
};
use crate::{
    layer::{self, Content, Kind, Layer, Meta, apply},
    store::objects::Object,
};

/// Symbolic links followed on one path, as the kernel does (`MAXSYMLINKS`).
const MAX_LINKS: u32 = 40;
/// So many warnings of a layer are kept.
const MAX_WARNINGS: usize = 50;

pub(super) struct Fold<'a> {
    ground: &'a Ground<'a>,
    places: BTreeMap<Vec<u8>, Place>,
    inodes: Vec<(Meta, Kind)>,
    /// The directory of the last path as written, and where it really is.
    last: Option<(Vec<u8>, Vec<u8>)>,
    warnings: Vec<String>,
    unsaid: usize,
    /// By the entry that is being taken in.
    spent: Spent,
}

/// What the layer has at a path.
enum Place {
    Directory { meta: Meta, opaque: bool },
    Leaf(usize),
    Whiteout,
}

/// What is at a path now.
enum At<'a> {
    /// With what the tree below has there, if this layer does not hide it.
    Directory(Option<&'a Directory<Object>>),
    Symlink(Vec<u8>),
    Other,
    Missing,
}

/// What happens to a directory on the way that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Refuse,
}

impl<'a> Fold<'a> {
    pub(super) fn new(ground: &'a Ground<'a>) -> Self {
        Self {
            ground,
            places: BTreeMap::new(),
            inodes: Vec::new(),
            last: None,
            warnings: Vec::new(),
            unsaid: 0,
            spent: Spent::default(),
        }
    }

    /// Takes an entry in, and its content from the archive.
    pub(super) fn add(
        &mut self,
        entry: Entry,
        archive: &mut Archive<'_, '_>,
        spool: &mut Spool<'_>,
    ) -> Result<(), ImportError> {
        let raw = entry.path.clone();
        self.taken(&raw, entry, archive, spool)?;
        archive.spent(std::mem::take(&mut self.spent))
    }

    fn taken(
        &mut self,
        raw: &[u8],
        entry: Entry,
        archive: &mut Archive<'_, '_>,
        spool: &mut Spool<'_>,
    ) -> Result<(), ImportError> {
        match names::meant(raw)? {
            Meant::Root => Ok(()),
            Meant::Aufs => {
                self.warn(raw, "a record of AUFS, left out");
                Ok(())
            }
            Meant::Gone(parts) => self.gone(raw, &parts),
            Meant::Emptied(parts) => self.emptied(raw, &parts),
            Meant::At(parts) => self.at_path(entry, &parts, archive, spool),
        }
    }

    /// The layer; of the names of one inode the first is the file and the others are links to it.
    pub(super) fn finish(mut self) -> Imported {
        let mut paths: Vec<_> = self.places.into_iter().collect();
        paths.sort_by(|a, b| layer::order(&a.0, &b.0));
        let mut first: Vec<Option<Vec<u8>>> = vec![None; self.inodes.len()];
        let entries = paths.into_iter().map(|(path, place)| match place {
            Place::Directory { meta, opaque } => layer::Entry { path, meta, kind: Kind::Directory { opaque } },
            Place::Whiteout => layer::Entry { path, meta: Meta::default(), kind: Kind::Whiteout },
            Place::Leaf(at) => {
                let (meta, kind) = &self.inodes[at];
                let kind = match &first[at] {
                    Some(first) => Kind::Hardlink(first.clone()),
                    None => kind.clone(),
                };
                first[at].get_or_insert_with(|| path.clone());
                layer::Entry { path, meta: meta.clone(), kind }
            }
        });
        let layer = Layer::new(entries.collect());
        if self.unsaid > 0 {
            self.warnings.push(format!("and {} more like these", self.unsaid));
        }
        Imported { layer, warnings: self.warnings }
    }

    fn at_path(
        &mut self,
        entry: Entry,
        parts: &[&[u8]],
        archive: &mut Archive<'_, '_>,
        spool: &mut Spool<'_>,
    ) -> Result<(), ImportError> {
        let Entry { path: raw, meta, what, dropped } = entry;
        dropped.iter().for_each(|name| self.warn(&raw, &format!("attribute {name} left out")));
        let kind = match what {
            What::Directory => return self.directory(&raw, parts, meta),
            What::Hardlink(target) => return self.hard_link(&raw, parts, &target),
            What::Device if parts[0] == b"dev" => {
                self.warn(&raw, "a device, left out: every server has a /dev of its own");
                return Ok(());
            }
            What::Device => {
                return Err(refused(&raw, "a device; servers have only those of their own /dev"));
            }
            What::Other => return Err(refused(&raw, "an entry of a kind that no image can hold")),
            What::Symlink(target) if target.is_empty() || target.len() > 4095 || target.contains(&0) => {
                return Err(refused(&raw, "a symbolic link that leads nowhere"));
            }
            What::Symlink(target) => Kind::Symlink(target),
            What::Fifo => Kind::Fifo,
            What::File(data) => Kind::File(spool.take(archive, &data)?),
        };
        self.inodes.push((meta, kind));
        let path = self.path(&raw, parts, Missing::Make)?;
        self.put(path, self.inodes.len() - 1);
        Ok(())
    }

    fn put(&mut self, path: Vec<u8>, inode: usize) {
        let before = self.places.insert(path.clone(), Place::Leaf(inode));
        self.replaced(&path);
        if matches!(before, Some(Place::Directory { .. })) {
            let (from, to) = ([&path[..], b"/"].concat(), [&path[..], b"0"].concat());
            let inside: Vec<_> = self.places.range(from..to).map(|(path, _)| path.clone()).collect();
            inside.iter().for_each(|path| drop(self.places.remove(path)));
        }
    }

    /// Forgets where the last directory is, if what is at this path now may lead elsewhere.
    fn replaced(&mut self, path: &[u8]) {
        self.last.take_if(|(_, real)| real != layer::parent(path));
    }

    fn directory(&mut self, raw: &[u8], parts: &[&[u8]], meta: Meta) -> Result<(), ImportError> {
        let path = self.path(raw, parts, Missing::Make)?;
        let opaque = match self.places.get(&path) {
            Some(Place::Directory { opaque, .. }) => *opaque,
            // What was there before it took the place of everything below.
            Some(Place::Leaf(_) | Place::Whiteout) => true,
            None => false,
        };
        self.places.insert(path, Place::Directory { meta, opaque });
        Ok(())
    }

    fn hard_link(&mut self, raw: &[u8], parts: &[&[u8]], target: &[u8]) -> Result<(), ImportError> {
        let outside = |_| refused(raw, "a hard link to a path that leads out of the layer");
        let target = names::parts(target).map_err(outside)?;
        if target.is_empty() || target.iter().any(|part| names::is_whiteout(part)) {
            return Err(refused(raw, "a hard link to what no hard link can lead to"));
        }
        let target = self.path(raw, &target, Missing::Refuse)?;
        let inode = match self.places.get(&target) {
            Some(Place::Leaf(inode)) => *inode,
            Some(Place::Directory { .. }) => return Err(refused(raw, "a hard link to a directory")),
            Some(Place::Whiteout) => return Err(refused(raw, "a hard link to a file that is not there")),
            None => {
                let inode =
                    self.copy_up(&target).ok_or_else(|| refused(raw, "a hard link to a file that is not there"))?;
                self.put(target.clone(), inode);
                inode
            }
        };
        let path = self.path(raw, parts, Missing::Make)?;
        if path != target {
            self.put(path, inode);
        }
        Ok(())
    }

    /// Takes a file of the tree below into the layer, so that a second name can be given to it.
    fn copy_up(&mut self, path: &[u8]) -> Option<usize> {
        let below = self.ground.below;
        let TreeInode::Leaf(id, _) = self.below(path)? else { return None };
        let leaf = below.leaf(*id);
        let kind = match &leaf.content {
            LeafContent::Regular(RegularFile::Inline(bytes)) => Kind::File(Content::Bytes(bytes.to_vec())),
            LeafContent::Regular(RegularFile::External(object, size) | RegularFile::ExternalNoVerity(object, size)) => {
                let path = self.ground.objects.join(Object::to_object_pathname(object));
                Kind::File(Content::Path { path, size: *size, take: false })
            }
            LeafContent::Symlink(target) => Kind::Symlink(target.as_bytes().to_vec()),
            LeafContent::Fifo => Kind::Fifo,
            _ => return None,
        };
        self.inodes.push((apply::meta(&leaf.stat), kind));
        Some(self.inodes.len() - 1)
    }

    fn gone(&mut self, raw: &[u8], parts: &[&[u8]]) -> Result<(), ImportError> {
        let path = self.path(raw, parts, Missing::Make)?;
        match self.places.get_mut(&path) {
            Some(Place::Directory { opaque, .. }) => *opaque = true,
            Some(_) => {}
            None => {
                self.replaced(&path);
                self.places.insert(path, Place::Whiteout);
            }
        }
        Ok(())
    }

    fn emptied(&mut self, raw: &[u8], parts: &[&[u8]]) -> Result<(), ImportError> {
        self.last = None;
        if parts.is_empty() {
            let names: Vec<_> = self.ground.below.root.sorted_entries().map(|(n, _)| n.as_bytes().to_vec()).collect();
            self.spent.words += names.iter().map(|name| name.len() as u64).sum::<u64>();
            return names.iter().try_for_each(|name| self.gone(raw, &[name]));
        }
        let path = self.real(raw, parts, Missing::Make)?;
        let meta = match self.below(&path) {
            Some(TreeInode::Directory(dir)) => apply::meta(&dir.stat),
            _ => self.plain(),
        };
        match self.places.get_mut(&path) {
            Some(Place::Directory { opaque, .. }) => *opaque = true,
            _ => drop(self.places.insert(path, Place::Directory { meta, opaque: true })),
        }
        Ok(())
    }

    /// Where a path really is: its directory with every symbolic link followed, and its own name.
    fn path(&mut self, raw: &[u8], parts: &[&[u8]], missing: Missing) -> Result<Vec<u8>, ImportError> {
        let (name, dir) = parts.split_last().expect("a path has a name");
        let written = dir.join(&b'/');
        let real = match &self.last {
            Some((last, real)) if *last == written => real.clone(),
            _ => {
                let real = self.real(raw, dir, missing)?;
                self.last = Some((written, real.clone()));
                real
            }
        };
        let path = join(&real, name);
        if path.len() > 4095 { Err(refused(raw, "its path is longer than Linux allows")) } else { Ok(path) }
    }

    /// Where a directory really is.
    fn real(&mut self, raw: &[u8], parts: &[&[u8]], missing: Missing) -> Result<Vec<u8>, ImportError> {
        let mut todo: Vec<Vec<u8>> = parts.iter().rev().map(|part| part.to_vec()).collect();
        let (mut way, mut links) = (Way::new(&self.ground.below.root), 0);
        while let Some(part) = todo.pop() {
            if part == b".." {
                way.up();
                continue;
            }
            let next = join(&way.path, &part);
            match self.at(&next, &part, way.below()) {
                At::Directory(below) => way.down(next, below),
                At::Other => return Err(refused(raw, "what should be its directory is a file")),
                At::Symlink(_) if links >= MAX_LINKS => {
                    return Err(refused(raw, "its path leads through symbolic links that go round in circles"));
                }
                At::Symlink(target) => {
                    links += 1;
                    self.spent.words += target.len() as u64;
                    if target.starts_with(b"/") {
                        way = Way::new(&self.ground.below.root);
                    }
                    let parts = target.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
                    todo.extend(parts.rev().map(<[u8]>::to_vec));
                }
                At::Missing if missing == Missing::Refuse => {
                    return Err(refused(raw, "a hard link to a file that is not there"));
                }
                At::Missing if names::is_whiteout(&part) || part.len() > 255 || next.len() > 4095 => {
                    return Err(refused(raw, "its path leads through a symbolic link to a name that cannot be"));
                }
                At::Missing => {
                    self.make(&next);
                    way.down(next, None);
                }
            }
        }
        Ok(way.path)
    }

    /// Makes a directory that nothing names.
    fn make(&mut self, path: &[u8]) {
        self.spent.directories += 1;
        self.spent.words += path.len() as u64;
        let opaque = matches!(self.places.get(path), Some(Place::Whiteout));
        self.places.insert(path.to_vec(), Place::Directory { meta: self.plain(), opaque });
    }

    /// What is at a path, `name` in a directory that the tree below has (if this layer does not hide it).
    fn at(&self, path: &[u8], name: &[u8], below: Option<&'a Directory<Object>>) -> At<'a> {
        let under = || below.and_then(|below| below.lookup(OsStr::from_bytes(name)));
        match self.places.get(path) {
            Some(Place::Directory { opaque, .. }) => At::Directory(directory(under().filter(|_| !opaque))),
            Some(Place::Whiteout) => At::Missing,
            Some(Place::Leaf(inode)) => match &self.inodes[*inode].1 {
                Kind::Symlink(target) => At::Symlink(target.clone()),
                _ => At::Other,
            },
            None => match under() {
                None => At::Missing,
                Some(TreeInode::Directory(directory)) => At::Directory(Some(directory)),
                Some(TreeInode::Leaf(id, _)) => match &self.ground.below.leaf(*id).content {
                    LeafContent::Symlink(target) => At::Symlink(target.as_bytes().to_vec()),
                    _ => At::Other,
                },
            },
        }
    }

    /// What the tree below has at a path, if this layer does not hide it.
    fn below(&self, path: &[u8]) -> Option<&TreeInode<Object>> {
        let mut above = layer::parent(path);
        while !above.is_empty() {
            match self.places.get(above) {
                Some(Place::Directory { opaque: false, .. }) | None => {}
                Some(_) => return None,
            }
            above = layer::parent(above);
        }
        let dir = self.ground.below.root.get_directory(OsStr::from_bytes(layer::parent(path))).ok()?;
        dir.lookup(OsStr::from_bytes(layer::name(path)))
    }

    fn plain(&self) -> Meta {
        Meta { mode: 0o755, mtime: self.ground.epoch, ..Meta::default() }
    }

    fn warn(&mut self, path: &[u8], what: &str) {
        match self.warnings.len() < MAX_WARNINGS {
            true => self.warnings.push(format!("{}: {what}", names::shown(path))),
            false => self.unsaid += 1,
        }
    }
}

fn directory(inode: Option<&TreeInode<Object>>) -> Option<&Directory<Object>> {
    match inode {
        Some(TreeInode::Directory(directory)) => Some(directory),
        _ => None,
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// The directories from the root to where a path has come.
struct Way<'a> {
    path: Vec<u8>,
    root: &'a Directory<Object>,
    /// Length of the path before each directory, and the directory as the tree below has it.
    steps: Vec<(usize, Option<&'a Directory<Object>>)>,
}

impl<'a> Way<'a> {
    fn new(root: &'a Directory<Object>) -> Self {
        Self { path: Vec::new(), root, steps: Vec::new() }
    }
    fn below(&self) -> Option<&'a Directory<Object>> {
        self.steps.last().map_or(Some(self.root), |(_, below)| *below)
    }
    fn down(&mut self, path: Vec<u8>, below: Option<&'a Directory<Object>>) {
        self.steps.push((self.path.len(), below));
        self.path = path;
    }
    fn up(&mut self) {
        if let Some((length, _)) = self.steps.pop() {
            self.path.truncate(length);
        }
    }
}
