//! Files in a tree that is not `/`, safe against what is in the tree and what an archive asks for: every path is
//! resolved by the kernel with the tree as its root (`openat2`, `RESOLVE_IN_ROOT`), so that a symbolic link, absolute
//! or with `..`, never leads out of it.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};

/// A tree, by its root directory.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// A directory and the last part of a path in it.
#[derive(Debug)]
pub struct Place<'p> {
    /// The directory.
    pub directory: OwnedFd,
    /// The name in it.
    pub name: &'p str,
}

impl Root {
    /// The tree below this directory.
    pub fn new(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// The root directory.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn open(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.is_empty() { "." } else { path };
        loop {
            match rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                outcome => return Ok(outcome?),
            }
        }
    }

    /// A directory, following links inside the tree.
    pub fn directory(&self, path: &str) -> io::Result<OwnedFd> {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
    }

    /// The directory that holds `path`, and its last part.
    pub fn place<'p>(&self, path: &'p str) -> io::Result<Place<'p>> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok(Place { directory: self.directory(directory)?, name })
    }

    /// Makes a directory and those above it that are missing (mode 0755).
    pub fn make_directories(&self, path: &str) -> io::Result<()> {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for part in ends.map(|end| &path[..end]).filter(|part| !part.is_empty()) {
            if self.directory(part).is_ok() {
                continue;
            }
            let place = self.place(part)?;
            match rustix::fs::mkdirat(&place.directory, place.name, Mode::from_raw_mode(0o755)) {
                // The caller's umask is not the image's.
                Ok(()) => rustix::fs::chmodat(
                    &place.directory,
                    place.name,
                    Mode::from_raw_mode(0o755),
                    rustix::fs::AtFlags::empty(),
                )?,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// A file's content, following links; none if there is no such file. At most 256 MiB.
    pub fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut content = Vec::new();
        file.take(256 << 20).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    /// A text file; empty if there is none.
    pub fn read_text(&self, path: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.read(path)?.unwrap_or_default()).into_owned())
    }

    /// Writes a file with this mode, in place of what had its name (a link is replaced, not followed).
    pub fn write(&self, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
        self.remove(path)?;
        let place = self.place(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&place.directory, place.name, flags, Mode::from_raw_mode(0o600))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        File::from(file).write_all(content)
    }

    /// Removes a file or link if it is there.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let place = match self.place(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            place => place?,
        };
        match rustix::fs::unlinkat(&place.directory, place.name, AtFlags::empty()) {
            Err(Errno::NOENT) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What is there, not following a link at the end.
    pub fn stat(&self, path: &str) -> io::Result<Option<Stat>> {
        let place = match self.place(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            place => place?,
        };
        match rustix::fs::statat(&place.directory, place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            outcome => Ok(Some(outcome?)),
        }
    }

    /// The names in a directory with the kind of each, sorted; none if it is not there.
    pub fn list(&self, path: &str) -> io::Result<Vec<(String, FileType)>> {
        let directory = match self.open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            directory => directory?,
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push((name, entry.file_type()));
            }
        }
        names.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(names)
    }
}
