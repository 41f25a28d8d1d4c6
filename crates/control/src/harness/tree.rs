//! Facts of an image's files, read once for each image from the image itself.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use kiln_model::ImageDigest;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use serde::{Deserialize, Serialize};

/// What the conformance tests want to know of an image's files. Paths are absolute, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeFacts {
    /// Files that hold a machine id.
    pub machine_ids: Vec<String>,
    /// Keys of an ssh server.
    pub ssh_host_keys: Vec<String>,
    /// Directories that everybody may write to, without the sticky bit.
    pub world_writable: Vec<String>,
    /// Downloads and indexes of package tools.
    pub package_caches: Vec<String>,
}

/// The files of an image could not be looked through.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// There is no such image, or it cannot be mounted.
    #[error("could not mount the image")]
    Mount(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A file or directory could not be read.
    #[error("could not read {path}")]
    Read {
        /// Absolute path in the image.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The thread that looked ended.
    #[error("the search ended early: {0}")]
    Ended(String),
}

/// Looks through the files of images. Implementations remember what they saw: an image never changes.
pub trait ImageTree: Send + Sync {
    /// The facts of an image. Blocks.
    fn facts(&self, image: &ImageDigest) -> Result<TreeFacts, TreeError>;
}

/// Looks through a whole tree, staying on its file system; symbolic links are not followed.
pub fn scan(root: BorrowedFd<'_>) -> Result<TreeFacts, TreeError> {
    let mut facts = TreeFacts::default();
    let top = openat(root, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| TreeError::Read { path: "/".to_owned(), source: e.into() })?;
    directory(&mut facts, top, &mut String::new())?;
    for list in [&mut facts.machine_ids, &mut facts.ssh_host_keys, &mut facts.world_writable, &mut facts.package_caches]
    {
        list.sort();
    }
    Ok(facts)
}

/// Goes through one directory; `path` is its path without a trailing `/`, and is as it was when this returns.
fn directory(facts: &mut TreeFacts, directory_fd: OwnedFd, path: &mut String) -> Result<(), TreeError> {
    let failed = |path: &str, e: rustix::io::Errno| TreeError::Read { path: format!("{path}/"), source: e.into() };
    let mode = rustix::fs::fstat(&directory_fd).map_err(|e| failed(path, e))?.st_mode;
    if mode & 0o1002 == 0o002 {
        facts.world_writable.push(if path.is_empty() { "/".to_owned() } else { path.clone() });
    }
    for entry in Dir::read_from(&directory_fd).map_err(|e| failed(path, e))? {
        let entry = entry.map_err(|e| failed(path, e))?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let length = path.len();
        path.push('/');
        path.push_str(&entry.file_name().to_string_lossy());
        visit(facts, directory_fd.as_fd(), entry.file_name(), entry.file_type(), path)?;
        path.truncate(length);
    }
    Ok(())
}

fn visit(
    facts: &mut TreeFacts,
    parent: BorrowedFd<'_>,
    name: &CStr,
    kind: FileType,
    path: &mut String,
) -> Result<(), TreeError> {
    let failed = |path: &str, e: rustix::io::Errno| TreeError::Read { path: path.to_owned(), source: e.into() };
    let kind = match kind {
        FileType::Unknown => {
            let status = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(path, e))?;
            FileType::from_raw_mode(status.st_mode)
        }
        known => known,
    };
    match kind {
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let child = openat(parent, name, flags, Mode::empty()).map_err(|e| failed(path, e))?;
            directory(facts, child, path)
        }
        FileType::RegularFile => {
            if let Some(list) = noted(facts, path) {
                let size = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(path, e))?.st_size;
                if size > 0 && !says_uninitialized(parent, name, size).map_err(|e| failed(path, e))? {
                    list.push(path.clone());
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The list that a file with content belongs to, if it should not be there.
fn noted<'a>(facts: &'a mut TreeFacts, path: &str) -> Option<&'a mut Vec<String>> {
    const MACHINE_IDS: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
    if MACHINE_IDS.contains(&path) {
        return Some(&mut facts.machine_ids);
    }
    if path.strip_prefix("/etc/ssh/ssh_host_").is_some_and(|rest| rest.contains("_key")) {
        return Some(&mut facts.ssh_host_keys);
    }
    is_cache(path).then_some(&mut facts.package_caches)
}

/// Where package tools leave downloads and indexes: apt, dpkg's front end, dnf and yum, apk, pip, npm.
fn is_cache(path: &str) -> bool {
    const DIRECTORIES: [&str; 10] = [
        "/var/cache/apt/",
        "/var/lib/apt/lists/",
        "/var/cache/debconf/",
        "/var/cache/dnf/",
        "/var/cache/yum/",
        "/var/cache/apk/",
        "/root/.cache/pip/",
        "/root/.cache/uv/",
        "/root/.npm/",
        "/var/cache/pip/",
    ];
    const EXCEPT: [&str; 3] =
        ["/var/cache/debconf/config.dat", "/var/cache/debconf/templates.dat", "/var/cache/debconf/passwords.dat"];
    let named = Path::new(path).extension().is_some_and(|extension| extension == "deb") && path.starts_with("/var/");
    named
        || (DIRECTORIES.iter().any(|top| path.starts_with(top)) && !EXCEPT.contains(&path) && !path.ends_with("/lock"))
}

/// Whether a file says `uninitialized` (machine-id(5): an id to be made at first boot).
fn says_uninitialized(parent: BorrowedFd<'_>, name: &CStr, size: i64) -> rustix::io::Result<bool> {
    const TEXT: &[u8] = b"uninitialized";
    if size > TEXT.len() as i64 + 1 {
        return Ok(false);
    }
    let file = openat(parent, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = [0; 16];
    let read = rustix::io::read(&file, &mut bytes)?;
    Ok(bytes[..read].trim_ascii_end() == TEXT)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn scan_dir(dir: &Path) -> TreeFacts {
        scan(fs::File::open(dir).unwrap().as_fd()).unwrap()
    }

    #[test]
    fn host_a_clean_tree_has_nothing_to_note() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["etc", "var/lib/apt/lists", "var/cache/debconf", "tmp"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        fs::set_permissions(dir.path().join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::write(dir.path().join("etc/machine-id"), "uninitialized\n").unwrap();
        fs::write(dir.path().join("var/lib/apt/lists/lock"), "").unwrap();
        fs::write(dir.path().join("var/cache/debconf/config.dat"), "x").unwrap();
        assert_eq!(scan_dir(dir.path()), TreeFacts::default());
    }

    #[test]
    fn host_what_should_not_be_in_an_image_is_found() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["etc/ssh", "var/cache/apt/archives", "open/deep", "root/.cache/pip/http"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        for file in
            ["etc/machine-id", "etc/ssh/ssh_host_rsa_key", "var/cache/apt/archives/a.deb", "root/.cache/pip/http/x"]
        {
            fs::write(dir.path().join(file), "0123456789abcdef0123456789abcdef").unwrap();
        }
        std::os::unix::fs::symlink("/", dir.path().join("loop")).unwrap();
        fs::set_permissions(dir.path().join("open/deep"), fs::Permissions::from_mode(0o777)).unwrap();
        let facts = scan_dir(dir.path());
        assert_eq!(facts.machine_ids, ["/etc/machine-id"]);
        assert_eq!(facts.ssh_host_keys, ["/etc/ssh/ssh_host_rsa_key"]);
        assert_eq!(facts.world_writable, ["/open/deep"]);
        assert_eq!(facts.package_caches, ["/root/.cache/pip/http/x", "/var/cache/apt/archives/a.deb"]);
    }
}
