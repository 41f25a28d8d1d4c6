//! The context: the files beside the recipe that `COPY` and `ADD` see.
//!
//! A path never leads out of it: `..` stops at its top, and so does a symbolic link, as in a root directory of its own. What
//! `.dockerignore` hides is not there. Owners are root's, modes are those of the files; times do not count.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use kiln_model::{
    containerfile::{glob, ignore, ignore::Ignore},
    recipe::ContainerfileBase,
};
use rustix::fs::{Mode, OFlags};

use super::{
    BakeError,
    files::{Files, Item, What},
};
use crate::{
    bake::source::{self, ItemKind},
    layer::Meta,
};

/// A context that is open.
#[derive(Debug)]
pub(super) struct Context {
    root: PathBuf,
    ignore: Ignore,
    /// So many files are read at most.
    limit: u64,
}

impl Context {
    /// Opens the context of a base.
    pub(super) fn open(directory: &Path, base: &ContainerfileBase) -> Result<Self, BakeError> {
        let failed = |path: &Path| {
            let path = path.display().to_string();
            |source| BakeError::Source { step: base.path.clone(), path, source }
        };
        let root = directory.join(&base.context);
        let root = fs::canonicalize(&root).map_err(failed(&root))?;
        let own = format!("{}.dockerignore", base.path);
        let places = [directory.join(own), root.join(".containerignore"), root.join(".dockerignore")];
        let mut ignored = Ignore::default();
        if let Some(path) = places.iter().find(|path| path.is_file()) {
            let text = read(path).map_err(failed(path))?;
            ignored = Ignore::parse(&text).map_err(io::Error::other).map_err(failed(path))?;
        }
        Ok(Self { root, ignore: ignored, limit: base.limits.files })
    }

    /// What is at a path, patterns in its names filled in; nothing if there is none.
    pub(super) fn find(&self, path: &str) -> io::Result<Vec<Files>> {
        let mut found = vec![String::new()];
        for part in parts(path) {
            let mut next = Vec::new();
            for above in &found {
                next.extend(self.below(above, &part)?);
            }
            found = next;
        }
        let mut all = Vec::new();
        for path in found {
            all.extend(self.thing(&path)?);
        }
        Ok(all)
    }

    /// The names in a directory that a part means, as paths from the top.
    fn below(&self, above: &str, part: &str) -> io::Result<Vec<String>> {
        let joined = |name: &str| if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") };
        if !glob::is_pattern(part) {
            return Ok(vec![joined(part)]);
        }
        let Some(directory) = self.real(above)?.filter(|path| path.is_dir()) else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            if let Ok(name) = entry?.file_name().into_string()
                && glob::name(part, &name)
            {
                names.push(joined(&name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Where a path really is, every symbolic link followed inside the context.
    fn real(&self, path: &str) -> io::Result<Option<PathBuf>> {
        let path = if path.is_empty() { "." } else { path };
        let root = rustix::fs::open(&self.root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        match kiln_sys::within::open(&root, path, OFlags::PATH, Mode::empty()) {
            Ok(fd) => {
                use std::os::fd::AsRawFd as _;
                fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).map(Some)
            }
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn thing(&self, path: &str) -> io::Result<Option<Files>> {
        let Some(real) = self.real(path)? else { return Ok(None) };
        let Ok(inside) = real.strip_prefix(&self.root) else {
            return Err(io::Error::other(format!("`{path}` leads out of the context")));
        };
        let inside = inside.to_string_lossy().into_owned();
        let mut walk = Walk { context: self, items: Vec::new() };
        walk.path(&real, &inside, Vec::new())?;
        let name = path.rsplit('/').next().unwrap_or_default().as_bytes().to_vec();
        Ok((!walk.items.is_empty()).then_some(Files { name, items: walk.items }))
    }
}

struct Walk<'c> {
    context: &'c Context,
    items: Vec<Item>,
}

impl Walk<'_> {
    fn path(&mut self, host: &Path, inside: &str, path: Vec<u8>) -> io::Result<()> {
        let stat = fs::symlink_metadata(host)?;
        let hidden = !inside.is_empty() && self.context.ignore.hides(inside);
        let shows = hidden && stat.is_dir() && self.context.ignore.may_show_below(inside);
        if hidden && !shows {
            return Ok(());
        }
        if self.items.len() as u64 >= self.context.limit {
            let reason = format!(
                "there are more than {} files; `max_files` of `[base]` says how many may be",
                self.context.limit
            );
            return Err(io::Error::other(reason));
        }
        let meta = Meta { mode: stat.mode() & 0o7777, ..Meta::default() };
        let before = self.items.len();
        let what = if stat.is_symlink() {
            What::Symlink(fs::read_link(host)?.as_os_str().as_bytes().to_vec())
        } else if stat.is_file() {
            file(host, &stat)?
        } else if stat.is_dir() {
            What::Directory
        } else {
            return Err(io::Error::other(format!("{} is neither a file, a directory nor a link", host.display())));
        };
        let directory = matches!(what, What::Directory);
        let meta = if matches!(what, What::Symlink(_)) { Meta { mode: 0o777, ..meta } } else { meta };
        self.items.push(Item { path: path.clone(), meta, what });
        if directory {
            self.directory(host, inside, &path)?;
            if hidden && self.items.len() == before + 1 {
                self.items.pop();
            }
        }
        Ok(())
    }

    fn directory(&mut self, host: &Path, inside: &str, path: &[u8]) -> io::Result<()> {
        let mut names: Vec<_> = fs::read_dir(host)?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
        names.sort();
        for name in names {
            let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
            let below = Path::new(inside).join(&name).to_string_lossy().into_owned();
            self.path(&host.join(&name), &below, [path, slash, name.as_bytes()].concat())?;
        }
        Ok(())
    }
}

fn file(host: &Path, stat: &fs::Metadata) -> io::Result<What> {
    match source::file(host, stat)? {
        ItemKind::File { content, sha256, .. } => Ok(What::File { content, id: sha256.to_vec(), sha256: Some(sha256) }),
        ItemKind::Directory | ItemKind::Symlink(_) => unreachable!("a file is read as a file"),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = fs::File::open(path)?;
    let length = io::Read::read_to_string(&mut io::Read::take(file, ignore::MAX_BYTES + 1), &mut text)?;
    match length as u64 <= ignore::MAX_BYTES {
        true => Ok(text),
        false => Err(io::Error::other(format!("it is longer than {} bytes", ignore::MAX_BYTES))),
    }
}

/// The names of a path from the top; `..` stops there.
fn parts(path: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part.to_owned()),
        }
    }
    parts
}
