//! Brings the files of a draft beside its recipe.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::fs::{FileType, Mode, OFlags};

use super::DraftFile;
use crate::{
    debian::root::Root,
    survey::secret::{LOOKED_AT, Secret},
};

/// What was not copied, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Where it is in the tree.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Copies files, links and directories with their permission bits into `directory`. What holds a secret is left, and named.
pub fn copy(root: &Root, files: &[DraftFile], directory: &Path) -> io::Result<Vec<Left>> {
    let mut left = Vec::new();
    for file in files {
        one(root, &file.from, &directory.join(&file.to), &mut left)?;
    }
    Ok(left)
}

fn one(root: &Root, from: &str, to: &Path, left: &mut Vec<Left>) -> io::Result<()> {
    let Some(stat) = root.stat(&from[1..])? else { return Ok(()) };
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            fs::create_dir_all(to)?;
            for (name, _) in root.list(&from[1..])? {
                one(root, &format!("{from}/{name}"), &to.join(&name), left)?;
            }
            Ok(())
        }
        FileType::Symlink => {
            let place = root.place(&from[1..])?;
            let target = rustix::fs::readlinkat(&place.directory, place.name, Vec::new())?;
            std::os::unix::fs::symlink(target.to_string_lossy().as_ref(), to)
        }
        FileType::RegularFile => content(root, from, stat.st_mode & 0o777, to, left),
        _ => {
            left.push(Left {
                path: from.to_owned(),
                reason: "it is neither a file, a link nor a directory".to_owned(),
            });
            Ok(())
        }
    }
}

fn content(root: &Root, from: &str, mode: u32, to: &Path, left: &mut Vec<Left>) -> io::Result<()> {
    let place = root.place(&from[1..])?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut source = fs::File::from(rustix::fs::openat(&place.directory, place.name, flags, Mode::empty())?);
    let mut beginning = Vec::new();
    source.by_ref().take(LOOKED_AT as u64).read_to_end(&mut beginning)?;
    if let Some(secret) = Secret::of(mode, &beginning) {
        left.push(Left { path: from.to_owned(), reason: secret.words().to_owned() });
        return Ok(());
    }
    let mut target = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut beginning.as_slice().chain(source), &mut target)?;
    target.set_permissions(fs::Permissions::from_mode(mode))
}
