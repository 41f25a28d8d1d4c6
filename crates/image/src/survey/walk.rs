//! Every entry of the tree, without following a link.

use std::{collections::BTreeMap, os::fd::OwnedFd};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, readlinkat, statat},
    io::Errno,
};

use super::{SurveyError, Unread, generated::PASSED_OVER};
use crate::debian::root::Root;

/// More entries than any server has.
const MOST: usize = 5_000_000;
/// Directories in directories that are followed.
const DEEPEST: usize = 128;
/// File systems whose files are others' (`statfs(2)`): NFS, CIFS, SMB2, FUSE, 9p, Ceph, autofs.
const ELSEWHERE: [u64; 7] = [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x6573_5546, 0x0102_1997, 0x00c3_6400, 0x0187];

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    File,
    Directory,
    Link(String),
    Special,
}

/// An entry.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) what: What,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    /// Seconds since 1970.
    pub(super) modified: i64,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// By path, so that what is in a directory follows it.
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) unread: Vec<Unread>,
}

pub(super) fn walk(root: &Root, except: &[String]) -> Result<Walked, SurveyError> {
    let mut walked = Walked::default();
    let failed = |source| SurveyError::Read { path: "/".to_owned(), source };
    let top = root.directory("").map_err(failed)?;
    Walk { except, walked: &mut walked }.directory(&top, "", 0)?;
    Ok(walked)
}

struct Walk<'a> {
    except: &'a [String],
    walked: &'a mut Walked,
}

impl Walk<'_> {
    fn directory(&mut self, parent: &OwnedFd, path: &str, depth: usize) -> Result<(), SurveyError> {
        if let Err(reason) = self.names(parent, path, depth)? {
            self.walked.unread.push(Unread { path: shown(path).to_owned(), reason });
        }
        Ok(())
    }

    /// What is in a directory; the inner error is why it could not be read.
    fn names(&mut self, parent: &OwnedFd, path: &str, depth: usize) -> Result<Result<(), String>, SurveyError> {
        let directory = match open(parent, ".") {
            Ok(directory) => directory,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if rustix::fs::fstatfs(&directory).is_ok_and(|fs| ELSEWHERE.contains(&(fs.f_type as u64))) {
            return Ok(Err("it is a file system of another machine".to_owned()));
        }
        let entries = match Dir::read_from(&directory) {
            Ok(entries) => entries,
            Err(error) => return Ok(Err(error.to_string())),
        };
        for entry in entries {
            let Ok(entry) = entry else { return Ok(Err("it cannot be read to its end".to_owned())) };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(name) = name.to_str() else {
                let reason = "its name is no text".to_owned();
                self.walked.unread.push(Unread { path: format!("{path}/{}", name.to_string_lossy()), reason });
                continue;
            };
            self.entry(&directory, name, format!("{path}/{name}"), depth)?;
        }
        Ok(Ok(()))
    }

    fn entry(&mut self, directory: &OwnedFd, name: &str, path: String, depth: usize) -> Result<(), SurveyError> {
        if PASSED_OVER.contains(&path.as_str()) {
            return Ok(());
        }
        if self.except.iter().any(|except| except.trim_end_matches('/') == path) {
            self.walked.unread.push(Unread { path, reason: "it was left out as asked".to_owned() });
            return Ok(());
        }
        // What vanished meanwhile is no matter.
        let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
        let what = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => What::File,
            FileType::Directory => What::Directory,
            FileType::Symlink => {
                let target = readlinkat(directory, name, Vec::new()).unwrap_or_default();
                What::Link(target.to_string_lossy().into_owned())
            }
            _ => What::Special,
        };
        let is_directory = what == What::Directory;
        let entry = Entry {
            what,
            size: stat.st_size as u64,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            modified: stat.st_mtime,
        };
        self.walked.entries.insert(path.clone(), entry);
        if self.walked.entries.len() > MOST {
            return Err(SurveyError::TooMany { most: MOST });
        }
        if is_directory && depth >= DEEPEST {
            self.walked.unread.push(Unread { path, reason: "it is too deep".to_owned() });
        } else if is_directory {
            match open(directory, name) {
                Ok(inner) => self.directory(&inner, &path, depth + 1)?,
                Err(Errno::NOENT) => {}
                Err(error) => self.walked.unread.push(Unread { path, reason: error.to_string() }),
            }
        }
        Ok(())
    }
}

fn open(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn shown(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}
