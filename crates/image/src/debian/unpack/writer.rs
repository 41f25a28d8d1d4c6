//! One package into the tree.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
};

use md5::{Digest as _, Md5};
use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, Uid},
    io::Errno,
};
use tar::EntryType;

use super::{
    Contents, Job, UnpackError,
    claims::{Wanted, times},
};

type Entry<'a> = tar::Entry<'a, Box<dyn Read + Send>>;

/// Unpacks package number `at`.
pub fn package(job: &Job<'_>, at: usize) -> Result<Contents, UnpackError> {
    let deb = job.debs[at];
    let damaged = |source| UnpackError::Data { package: deb.name().to_owned(), source };
    let mut writer = Writer {
        job,
        at,
        conffiles: job.conffiles(at),
        hash_all: !deb.files.contains_key("md5sums"),
        parent: None,
        buffer: vec![0; 256 << 10],
        contents: Contents::default(),
    };
    let mut archive = tar::Archive::new(deb.data()?);
    for entry in archive.entries().map_err(damaged)? {
        writer.entry(entry.map_err(damaged)?)?;
    }
    // The tar ends before what it is packed in, which compares its checksum only at its own end.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged)?;
    Ok(writer.contents)
}

struct Writer<'a> {
    job: &'a Job<'a>,
    at: usize,
    conffiles: BTreeSet<String>,
    hash_all: bool,
    /// The directory of the last file: the next one is mostly in the same.
    parent: Option<(String, OwnedFd)>,
    buffer: Vec<u8>,
    contents: Contents,
}

/// Owner, mode and time of an entry.
#[derive(Clone, Copy)]
struct Attributes {
    uid: u32,
    gid: u32,
    mode: u32,
    mtime: i64,
}

impl Writer<'_> {
    fn entry(&mut self, mut entry: Entry<'_>) -> Result<(), UnpackError> {
        let raw = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&raw).into_owned();
        let Some(path) = normal(&raw) else { return Err(self.refused(&shown, "a path that leads out of the tree")) };
        if path.is_empty() {
            self.contents.list.push("/.".to_owned());
            return Ok(());
        }
        let listed = format!("/{path}");
        let target = self.diverted(&listed).unwrap_or(path);
        let attributes = self.attributes(&entry, &listed).map_err(|source| self.data(source))?;
        let written = match entry.header().entry_type() {
            EntryType::Directory => self.directory(&target, attributes).map(|()| true),
            EntryType::Regular | EntryType::Continuous => self.file(&listed, &target, attributes, &mut entry)?,
            EntryType::Symlink => self.symlink(&listed, &target, attributes, &entry)?,
            EntryType::Link => self.hard_link(&listed, &target, &entry)?,
            _ => return Err(self.refused(&shown, "a device node, pipe or other special file")),
        };
        if written.map_err(|source| self.write(&shown, source))? {
            self.contents.list.push(listed);
        }
        Ok(())
    }

    fn attributes(&self, entry: &Entry<'_>, listed: &str) -> io::Result<Attributes> {
        let header = entry.header();
        let number = |value: u64| u32::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
        let (uid, gid, mode) = match self.job.rules.overrides.get(listed) {
            Some(changed) => *changed,
            None => (number(header.uid()?)?, number(header.gid()?)?, header.mode()? & 0o7777),
        };
        Ok(Attributes { uid, gid, mode, mtime: header.mtime()?.try_into().unwrap_or(i64::MAX) })
    }

    fn diverted(&self, listed: &str) -> Option<String> {
        let (to, owner) = self.job.rules.diversions.get(listed)?;
        let foreign = owner != self.job.debs[self.at].name();
        foreign.then(|| to.trim_start_matches('/').to_owned())
    }

    fn directory(&self, path: &str, attributes: Attributes) -> io::Result<()> {
        let Attributes { uid, gid, mode, mtime } = attributes;
        let wanted = Wanted { package: self.at, uid, gid, mode, mtime };
        self.job.directories.make(self.job.root, &self.job.claims.canonical(path), wanted)
    }

    /// Opens the directory that holds `path`, making it where the archive did not.
    fn open_parent(&mut self, path: &str) -> io::Result<()> {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        if self.parent.as_ref().is_some_and(|(open, _)| open == directory) {
            return Ok(());
        }
        let fd = match self.job.root.directory(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let plain = Attributes { uid: 0, gid: 0, mode: 0o755, mtime: 0 };
                self.directory(directory, plain)?;
                self.job.root.directory(directory)?
            }
            fd => fd?,
        };
        self.parent = Some((directory.to_owned(), fd));
        Ok(())
    }

    /// Makes one name in its directory, if this package may have it: removes what was there and calls `make`.
    /// The outer error is a clash with another package; none inside says that another package keeps the name.
    fn make<T>(
        &mut self,
        listed: &str,
        path: &str,
        make: impl Fn(&OwnedFd, &str) -> rustix::io::Result<T>,
    ) -> Result<io::Result<Option<T>>, UnpackError> {
        if let Err(error) = self.open_parent(path) {
            return Ok(Err(error));
        }
        let mut claim = self.job.claims.lock(path);
        match claim.owner() {
            Some(other) if other != self.at && self.job.replaces(other, self.at) => return Ok(Ok(None)),
            Some(other) if other != self.at && self.job.replaces(self.at, other) => {
                self.job.claims.take_over(other, listed);
            }
            Some(other) if other != self.at => return Err(self.clash(listed, other)),
            _ => {}
        }
        let Some((_, directory)) = &self.parent else { return Ok(Ok(None)) };
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        let made = match make(directory, name) {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(directory, name, AtFlags::empty()).and_then(|()| make(directory, name))
            }
            made => made,
        };
        claim.set_owner(self.at);
        Ok(made.map(Some).map_err(io::Error::from))
    }

    fn file(
        &mut self,
        listed: &str,
        path: &str,
        attributes: Attributes,
        entry: &mut Entry<'_>,
    ) -> Result<io::Result<bool>, UnpackError> {
        let conffile = self.conffiles.contains(listed);
        let kept = conffile && self.job.rules.keep_conffiles && matches!(self.job.root.stat(path), Ok(Some(_)));
        let path = if kept { format!("{path}.dpkg-dist") } else { path.to_owned() };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create =
            |directory: &OwnedFd, name: &str| rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600));
        let file = match self.make(listed, &path, create)? {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(Ok(false)),
            Err(error) => return Ok(Err(error)),
        };
        let mut hash = (conffile || self.hash_all).then(Md5::new);
        if let Err(error) = self.fill(file, attributes, entry, hash.as_mut()) {
            return Ok(Err(error));
        }
        if let Some(hash) = hash {
            self.contents.md5.insert(listed.to_owned(), hex::encode(hash.finalize()));
        }
        Ok(Ok(true))
    }

    /// Content first, then owner, then mode: a set-user-id bit is never on a half-written file.
    fn fill(
        &mut self,
        file: OwnedFd,
        attributes: Attributes,
        entry: &mut Entry<'_>,
        mut hash: Option<&mut Md5>,
    ) -> io::Result<()> {
        let mut file = File::from(file);
        loop {
            let count = read_full(entry, &mut self.buffer)?;
            file.write_all(&self.buffer[..count])?;
            if let Some(hash) = hash.as_mut() {
                hash.update(&self.buffer[..count]);
            }
            if count < self.buffer.len() {
                break;
            }
        }
        if attributes.uid != 0 || attributes.gid != 0 {
            let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(attributes.mode))?;
        Ok(rustix::fs::futimens(&file, &times(attributes.mtime))?)
    }

    fn symlink(
        &mut self,
        listed: &str,
        path: &str,
        attributes: Attributes,
        entry: &Entry<'_>,
    ) -> Result<io::Result<bool>, UnpackError> {
        let target = entry.link_name_bytes().unwrap_or_default().into_owned();
        if self.is_that_link(path, &target) {
            return Ok(Ok(true));
        }
        let make = |directory: &OwnedFd, name: &str| {
            rustix::fs::symlinkat(target.as_slice(), directory, name)?;
            let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
            rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            rustix::fs::utimensat(directory, name, &times(attributes.mtime), AtFlags::SYMLINK_NOFOLLOW)
        };
        Ok(self.make(listed, path, make)?.map(|made| made.is_some()))
    }

    /// The links of merged-/usr are there before the package that ships them.
    fn is_that_link(&self, path: &str, target: &[u8]) -> bool {
        let place = self.job.root.place(path);
        let link = place.ok().and_then(|place| rustix::fs::readlinkat(&place.directory, place.name, Vec::new()).ok());
        !path.contains('/') && link.is_some_and(|link| link.as_bytes() == target)
    }

    fn hard_link(&mut self, listed: &str, path: &str, entry: &Entry<'_>) -> Result<io::Result<bool>, UnpackError> {
        let raw = entry.link_name_bytes().unwrap_or_default().into_owned();
        let Some(target) = normal(&raw).filter(|target| !target.is_empty()) else {
            return Err(self.refused(listed, "a link to a path that leads out of the tree"));
        };
        let target = self.diverted(&format!("/{target}")).unwrap_or(target);
        let from = match self.job.root.place(&target) {
            Ok(from) => from,
            Err(error) => return Ok(Err(error)),
        };
        let make = |directory: &OwnedFd, name: &str| {
            rustix::fs::linkat(&from.directory, from.name, directory.as_fd(), name, AtFlags::empty())
        };
        Ok(self.make(listed, path, make)?.map(|made| made.is_some()))
    }

    fn name(&self) -> String {
        self.job.debs[self.at].name().to_owned()
    }
    fn refused(&self, path: &str, what: &'static str) -> UnpackError {
        UnpackError::Refused { package: self.name(), path: path.to_owned(), what }
    }
    fn data(&self, source: io::Error) -> UnpackError {
        UnpackError::Data { package: self.name(), source }
    }
    fn write(&self, path: &str, source: io::Error) -> UnpackError {
        UnpackError::Write { package: self.name(), path: path.to_owned(), source }
    }
    fn clash(&self, path: &str, other: usize) -> UnpackError {
        let other = self.job.debs[other].name().to_owned();
        UnpackError::Clash { package: self.name(), other, path: path.to_owned() }
    }
}

/// The path without `./`, `//` and a final `/`; none if it is absolute, holds `..` or is not UTF-8.
fn normal(raw: &[u8]) -> Option<String> {
    let text = str::from_utf8(raw).ok()?;
    if text.starts_with('/') || text.contains('\0') {
        return None;
    }
    let mut parts = Vec::new();
    for part in text.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            return None;
        }
        parts.push(part);
    }
    Some(parts.join("/"))
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
