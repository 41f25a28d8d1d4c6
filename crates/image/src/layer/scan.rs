//! From an overlay's upper directory to a layer.
//!
//! Overlayfs (kernel `Documentation/filesystems/overlayfs.rst`) marks what a step removed with character devices 0:0
//! and directories that hide their parent's content with an `overlay.opaque` attribute, below `trusted.` or, in a user
//! namespace, `user.`. Redirected directories and files without data would need the parent to be read; a sandbox
//! mounts without these features, and a tree that has them is refused rather than misread.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use super::{Content, Entry, Kind, Layer, Meta, noise, noise::Verdict};

/// Servers map this many ids, so an image can have no other owners.
const IDS: u32 = 65_536;

/// How times are made the same everywhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clamp {
    /// `SOURCE_DATE_EPOCH`, seconds.
    pub(crate) epoch: i64,
    /// When the step began, seconds: what is newer was made by it, also on a host whose clock is behind the epoch.
    pub(crate) started: i64,
}

impl Clamp {
    fn apply(self, mtime: i64) -> i64 {
        if mtime > self.epoch || mtime >= self.started { self.epoch } else { mtime.max(0) }
    }
}

/// Why a tree cannot become a layer.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A system call failed.
    #[error("failed to read {path}")]
    Read {
        /// The path on the host.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Overlayfs left something that only the parent can explain.
    #[error("/{path} was left by overlayfs with the attribute `{attribute}`: the sandbox must mount without it")]
    Overlay {
        /// The path in the image.
        path: String,
        /// The attribute.
        attribute: String,
    },
    /// No server could map the owner.
    #[error("/{path} belongs to {uid}:{gid}; a server has only the ids 0 to 65535")]
    Owner {
        /// The path in the image.
        path: String,
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// A scanned tree.
pub(crate) struct Scanned {
    pub(crate) layer: Layer,
    /// Sockets, devices and attributes that were left out, in words.
    pub(crate) warnings: Vec<String>,
}

/// What becomes of files that are only for the build ([`noise`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leftovers {
    /// They are no part of the layer.
    Drop,
    /// The steps that follow see them; the image's last layer takes them away.
    Keep,
}

struct Scanner {
    leftovers: Leftovers,
    clamp: Clamp,
    entries: Vec<Entry>,
    warnings: Vec<String>,
    /// Inodes with several names, by device and number, to their first name.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// Reads a whole upper directory. Its files may be moved into the store afterwards.
pub(crate) fn upper(dir: &Path, clamp: Clamp, leftovers: Leftovers) -> Result<Scanned, ScanError> {
    let mut scanner = Scanner { leftovers, clamp, entries: Vec::new(), warnings: Vec::new(), links: HashMap::new() };
    scanner.directory(dir, b"")?;
    Ok(Scanned { layer: Layer::new(scanner.entries), warnings: scanner.warnings })
}

impl Scanner {
    fn directory(&mut self, dir: &Path, inside: &[u8]) -> Result<(), ScanError> {
        let read = |source| ScanError::Read { path: dir.to_owned(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(read)? {
            names.push(entry.map_err(read)?.file_name());
        }
        // Sorted as the layer is, so that the first name of a hard link is the one that sorts first.
        names.sort_by(|a, b| super::order(a.as_bytes(), b.as_bytes()));
        for name in names {
            let slash: &[u8] = if inside.is_empty() { b"" } else { b"/" };
            self.path(&dir.join(&name), [inside, slash, name.as_bytes()].concat())?;
        }
        Ok(())
    }

    fn path(&mut self, host: &Path, path: Vec<u8>) -> Result<(), ScanError> {
        let stat = fs::symlink_metadata(host).map_err(|source| ScanError::Read { path: host.to_owned(), source })?;
        let verdict = match self.leftovers {
            Leftovers::Drop => noise::verdict(&path, stat.is_dir()),
            Leftovers::Keep => noise::between_steps(&path),
        };
        if verdict == Verdict::Drop {
            return Ok(());
        }
        let Attributes { kept, opaque, dropped } = attributes(host, &path)?;
        self.warnings.extend(dropped.into_iter().map(|name| format!("{}: attribute {name} left out", shown(&path))));
        let Some(kind) = self.kind(host, &path, &stat, opaque, verdict)? else { return Ok(()) };
        let meta = self.meta(&path, &stat, kept, &kind)?;
        self.entries.push(Entry { path: path.clone(), meta, kind });
        if stat.is_dir() { self.directory(host, &path) } else { Ok(()) }
    }

    fn meta(
        &self,
        path: &[u8],
        stat: &fs::Metadata,
        xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
        kind: &Kind,
    ) -> Result<Meta, ScanError> {
        if *kind == Kind::Whiteout {
            return Ok(Meta::default());
        }
        let (uid, gid) = (stat.uid(), stat.gid());
        if uid >= IDS || gid >= IDS {
            return Err(ScanError::Owner { path: String::from_utf8_lossy(path).into_owned(), uid, gid });
        }
        Ok(Meta { mode: stat.mode() & 0o7777, uid, gid, mtime: self.clamp.apply(stat.mtime()), xattrs })
    }

    fn kind(
        &mut self,
        host: &Path,
        path: &[u8],
        stat: &fs::Metadata,
        opaque: bool,
        verdict: Verdict,
    ) -> Result<Option<Kind>, ScanError> {
        let kind = stat.file_type();
        if kind.is_dir() {
            return Ok(Some(Kind::Directory { opaque }));
        }
        if kind.is_char_device() && stat.rdev() == 0 {
            return Ok(Some(Kind::Whiteout));
        }
        if verdict == Verdict::Empty {
            return Ok(Some(Kind::File(Content::Bytes(Vec::new()))));
        }
        if stat.nlink() > 1 && !kind.is_char_device() {
            if let Some(first) = self.links.get(&(stat.dev(), stat.ino())) {
                return Ok(Some(Kind::Hardlink(first.clone())));
            }
            self.links.insert((stat.dev(), stat.ino()), path.to_vec());
        }
        if kind.is_file() {
            let content = Content::Path { path: host.to_owned(), size: stat.len(), take: true };
            return Ok(Some(Kind::File(content)));
        }
        if kind.is_symlink() {
            let target = fs::read_link(host).map_err(|source| ScanError::Read { path: host.to_owned(), source })?;
            return Ok(Some(Kind::Symlink(target.as_os_str().as_bytes().to_vec())));
        }
        if kind.is_fifo() {
            return Ok(Some(Kind::Fifo));
        }
        let what = if kind.is_socket() { "a socket" } else { "a device" };
        self.warnings.push(format!("{}: {what}, which no image can hold, left out", shown(path)));
        Ok(None)
    }
}

struct Attributes {
    kept: BTreeMap<Vec<u8>, Vec<u8>>,
    opaque: bool,
    dropped: Vec<String>,
}

fn attributes(host: &Path, path: &[u8]) -> Result<Attributes, ScanError> {
    let read = |e: rustix::io::Errno| ScanError::Read { path: host.to_owned(), source: e.into() };
    let mut found = Attributes { kept: BTreeMap::new(), opaque: false, dropped: Vec::new() };
    for name in names(host).map_err(read)? {
        let text = String::from_utf8_lossy(&name).into_owned();
        let overlay = text.strip_prefix("trusted.overlay.").or_else(|| text.strip_prefix("user.overlay."));
        match overlay {
            Some("opaque") => found.opaque = value(host, &name).map_err(read)? == b"y",
            Some("redirect" | "metacopy") => {
                let path = String::from_utf8_lossy(path).into_owned();
                return Err(ScanError::Overlay { path, attribute: text });
            }
            Some(_) => {}
            None if text == "security.capability" => {
                found.kept.insert(name.clone(), capability(value(host, &name).map_err(read)?));
            }
            None if text.starts_with("user.") => {
                found.kept.insert(name.clone(), value(host, &name).map_err(read)?);
            }
            // Labels of the host's security module are not the image's.
            None if text.starts_with("security.") => {}
            None => found.dropped.push(text),
        }
    }
    Ok(found)
}

fn names(host: &Path) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut buffer = vec![0_u8; 1024];
    loop {
        match rustix::fs::llistxattr(host, &mut buffer[..]) {
            Ok(length) => {
                let names = buffer[..length].split(|b| *b == 0).filter(|name| !name.is_empty());
                return Ok(names.map(<[u8]>::to_vec).collect());
            }
            Err(rustix::io::Errno::RANGE) => buffer.resize(buffer.len() * 8, 0),
            Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(e) => return Err(e),
        }
    }
}

fn value(host: &Path, name: &[u8]) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0_u8; 256];
    loop {
        match rustix::fs::lgetxattr(host, name, &mut buffer[..]) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(rustix::io::Errno::RANGE) => buffer.resize(buffer.len() * 16, 0),
            Err(e) => return Err(e),
        }
    }
}

/// Capabilities set inside a user namespace carry its root's id on the host (`VFS_CAP_REVISION_3`, kernel
/// `include/uapi/linux/capability.h`); in an image they are those of the image's root, revision 2.
pub(crate) fn capability(mut value: Vec<u8>) -> Vec<u8> {
    if value.len() == 24 && value[3] == 3 {
        value.truncate(20);
        value[3] = 2;
    }
    value
}

fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}
