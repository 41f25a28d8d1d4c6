//! The files beside a recipe, opened so that no symbolic link leads out of its directory (`openat2` with
//! `RESOLVE_BENEATH`).

use std::{fs::File, io::Read as _, os::fd::OwnedFd, path::Path};

use kiln_model::recipe::{FileKind, FileProblem, RecipeFiles};
use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat2},
    io::Errno,
};

use crate::failure::Failure;

/// So many names of a directory are read.
const MAX_NAMES: usize = 10_000;

/// A directory that answers for its files.
pub(super) struct DirectoryFiles(OwnedFd);

impl DirectoryFiles {
    /// Opens the directory.
    pub fn open(directory: &Path) -> Result<Self, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(CWD, directory, flags, Mode::empty());
        opened.map(Self).map_err(|errno| Failure::Read { path: directory.to_owned(), source: errno.into() })
    }

    fn beneath(&self, path: &str, flags: OFlags) -> Result<Option<OwnedFd>, FileProblem> {
        let flags = flags | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match openat2(&self.0, path, flags, Mode::empty(), resolve) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(Errno::XDEV | Errno::LOOP) => Err(FileProblem::Outside),
            Err(errno) => Err(unreadable(errno)),
        }
    }
}

impl RecipeFiles for DirectoryFiles {
    fn kind(&self, path: &str) -> Result<Option<FileKind>, FileProblem> {
        let Some(fd) = self.beneath(path, OFlags::PATH)? else { return Ok(None) };
        let status = fstat(&fd).map_err(unreadable)?;
        Ok(Some(match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Directory,
            _ => FileKind::Other,
        }))
    }

    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, FileProblem> {
        // NONBLOCK: opening a pipe that somebody put there must not wait for its writer.
        let opened = self.beneath(path, OFlags::RDONLY | OFlags::NONBLOCK)?.ok_or_else(|| unreadable(Errno::NOENT))?;
        let mut bytes = Vec::new();
        let mut reader = File::from(opened).take(limit + 1);
        reader.read_to_end(&mut bytes).map_err(|error| FileProblem::Unreadable { reason: error.to_string() })?;
        if bytes.len() as u64 > limit { Err(FileProblem::TooLong { limit }) } else { Ok(bytes) }
    }

    fn list(&self, path: &str) -> Result<Vec<String>, FileProblem> {
        let path = if path.is_empty() { "." } else { path };
        let Some(directory) = self.beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)? else { return Ok(Vec::new()) };
        let entries = Dir::read_from(&directory).map_err(unreadable)?.take(MAX_NAMES);
        let names = entries.map(|entry| Ok(entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<Result<Vec<_>, FileProblem>>()?;
        names.retain(|name| name != "." && name != "..");
        names.sort();
        Ok(names)
    }
}

fn unreadable(errno: Errno) -> FileProblem {
    FileProblem::Unreadable { reason: std::io::Error::from(errno).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, DirectoryFiles) {
        let temp = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(temp.path().join("page")).expect("a directory");
        std::fs::write(temp.path().join("page/index.html"), "Hello").expect("a file");
        std::os::unix::fs::symlink("/etc/passwd", temp.path().join("away")).expect("a link");
        std::os::unix::fs::symlink("page/index.html", temp.path().join("near")).expect("a link");
        let files = DirectoryFiles::open(temp.path()).expect("the directory opens");
        (temp, files)
    }

    #[test]
    fn host_kinds_are_told_apart_and_links_stay_inside() {
        let (_temp, files) = directory();
        assert_eq!(files.kind("page/"), Ok(Some(FileKind::Directory)));
        assert_eq!(files.kind("page/index.html"), Ok(Some(FileKind::File)));
        assert_eq!(files.kind("near"), Ok(Some(FileKind::File)));
        assert_eq!(files.kind("missing"), Ok(None));
        assert_eq!(files.kind("away"), Err(FileProblem::Outside));
    }

    #[test]
    fn host_names_are_listed_and_no_link_leads_out() {
        let (temp, files) = directory();
        std::os::unix::fs::symlink("/etc", temp.path().join("etc")).expect("a link");
        assert_eq!(files.list(""), Ok(["away", "etc", "near", "page"].map(str::to_owned).to_vec()));
        assert_eq!(files.list("page"), Ok(vec!["index.html".to_owned()]));
        assert_eq!((files.list("none"), files.list("etc")), (Ok(Vec::new()), Err(FileProblem::Outside)));
    }

    #[test]
    fn host_reading_is_bounded() {
        let (_temp, files) = directory();
        assert_eq!(files.read("near", 5), Ok(b"Hello".to_vec()));
        assert_eq!(files.read("near", 4), Err(FileProblem::TooLong { limit: 4 }));
        assert_eq!(files.read("away", 4), Err(FileProblem::Outside));
    }
}
