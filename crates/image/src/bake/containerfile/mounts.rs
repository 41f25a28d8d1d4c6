//! `RUN --mount=…`: made ready before a command, and gone, or kept for the next one, after it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{OpenOptionsExt as _, PermissionsExt as _, chown, lchown, symlink},
    },
    path::{Path, PathBuf},
};

use kiln_model::{
    Digest,
    containerfile::{Instruction, Mount, MountKind, Sharing},
};
use rustix::fs::{FlockOperation, flock};

use super::{
    BakeError,
    files::{Files, What},
    settings::plain,
    stage::Stage,
};
use crate::{
    bake::{chain::Chain, key::Key},
    layer::{Content, Meta},
    sandbox::{Bind, Memory},
    store::{Work, objects::Tree},
    tree::{Missing, resolve},
};

/// A secret longer than this (bytes) is refused.
const MAX_SECRET: u64 = 1 << 20;
/// A private cache is the first free one of so many.
const PRIVATE: u32 = 64;

/// The mounts of one command, their words filled in.
pub(super) struct Mounts(Vec<Ready>);

struct Ready {
    target: PathBuf,
    what: Shown,
}

enum Shown {
    Files { files: Files, writable: bool },
    Cache { id: String, sharing: Sharing, writable: bool, meta: Meta },
    Memory(Option<u64>),
    Secret { path: PathBuf, meta: Meta, env: Option<String> },
}

/// What the sandbox is told.
#[derive(Default)]
pub(super) struct Prepared {
    pub(super) binds: Vec<Bind>,
    pub(super) memory: Vec<Memory>,
    /// Secrets that are variables.
    pub(super) variables: Vec<(String, String)>,
    /// Caches that are held.
    locks: Vec<File>,
}

impl Stage<'_, '_> {
    /// Finds what each mount shows.
    pub(super) fn mounts(&mut self, instruction: &Instruction, mounts: &[Mount]) -> Result<Mounts, BakeError> {
        let mut ready = Vec::new();
        for mount in mounts {
            let target = self.absolute(&self.filled(instruction, &mount.target)?);
            if target == Path::new("/") {
                return Err(self.build.wrong(instruction, "a mount cannot cover the root directory"));
            }
            if let Some(what) = self.shown(instruction, mount, &target)? {
                ready.push(Ready { target, what });
            }
        }
        Ok(Mounts(ready))
    }

    fn shown(&mut self, instruction: &Instruction, mount: &Mount, target: &Path) -> Result<Option<Shown>, BakeError> {
        Ok(Some(match &mount.kind {
            MountKind::Bind { from, source, writable } => {
                let source = self.value(instruction, source)?;
                let found = match from {
                    Some(name) => self.of_other(name, &source)?,
                    None => {
                        let found = self.build.context.find(&source);
                        found.map_err(|error| self.build.wrong(instruction, error.to_string()))?
                    }
                };
                let place = from.as_ref().map_or("the context".to_owned(), |from| format!("`{from}`"));
                let Some(files) = found.into_iter().next() else {
                    return Err(self.build.wrong(instruction, format!("there is no `{source}` in {place}")));
                };
                Shown::Files { files, writable: *writable }
            }
            MountKind::Cache { id, sharing, writable, mode, uid, gid } => {
                let id = match id {
                    Some(word) => self.filled(instruction, word)?,
                    None => target.to_string_lossy().into_owned(),
                };
                let meta = Meta { mode: *mode, uid: *uid, gid: *gid, ..Meta::default() };
                Shown::Cache { id, sharing: *sharing, writable: *writable, meta }
            }
            MountKind::Tmpfs { size } => Shown::Memory(size.map(|size| size.as_bytes())),
            MountKind::Secret { id, required, mode, uid, gid, env } => {
                let Some(path) = self.build.base.secrets.get(id) else {
                    if *required {
                        let reason = format!(
                            "the recipe has no secret `{id}`: write `secrets = {{ {id} = \"FILE\" }}` into `[base]`"
                        );
                        return Err(self.build.wrong(instruction, reason));
                    }
                    return Ok(None);
                };
                let path = self.build.chain.request.directory.join(path);
                let meta = Meta { mode: *mode, uid: *uid, gid: *gid, ..Meta::default() };
                Shown::Secret { path, meta, env: env.clone() }
            }
        }))
    }
}

impl Mounts {
    /// What the command depends on: the content of files, and neither that of caches nor of secrets.
    pub(super) fn key(&self) -> Vec<[u8; 32]> {
        let one = |ready: &Ready| {
            let key = Key::new("mount", None).part(ready.target.as_os_str().as_bytes());
            let key = match &ready.what {
                Shown::Files { files, writable } => {
                    key.part("files").part(files.digest().as_bytes()).part([u8::from(*writable)])
                }
                Shown::Cache { id, .. } => key.part("cache").part(id),
                Shown::Memory(size) => key.part("memory").part(size.unwrap_or(0).to_le_bytes()),
                Shown::Secret { env, .. } => key.part("secret").part(env.as_deref().unwrap_or_default()),
            };
            *key.done().as_bytes()
        };
        self.0.iter().map(one).collect()
    }

    /// Makes everything ready in the work directory. The error says what is wrong.
    pub(super) fn prepare(&self, chain: &Chain<'_>, tree: &Tree, work: &Work) -> Result<Prepared, String> {
        let mut prepared = Prepared::default();
        for (number, ready) in self.0.iter().enumerate() {
            let target = place(tree, &ready.target)?;
            let own = work.path().join(format!("mount-{number}"));
            let failed = |error: io::Error| format!("`{}` cannot be shown: {error}", ready.target.display());
            match &ready.what {
                Shown::Memory(size) => prepared.memory.push(Memory { target, size: *size }),
                Shown::Files { files, writable } => {
                    write(files, &own).map_err(failed)?;
                    prepared.binds.push(Bind { source: own, target, writable: *writable });
                }
                Shown::Cache { id, sharing, writable, meta } => {
                    let (source, lock) = cache(chain.request.cache, id, *sharing, meta).map_err(failed)?;
                    prepared.locks.push(lock);
                    prepared.binds.push(Bind { source, target, writable: *writable });
                }
                Shown::Secret { path, meta, env } => {
                    let bytes = secret(path).map_err(failed)?;
                    match env {
                        Some(name) => {
                            let text = String::from_utf8(bytes).map_err(io::Error::other).map_err(failed)?;
                            prepared.variables.push((name.clone(), text));
                        }
                        None => {
                            file(&own, &bytes, meta).map_err(failed)?;
                            prepared.binds.push(Bind { source: own, target, writable: false });
                        }
                    }
                }
            }
        }
        Ok(prepared)
    }
}

/// Where a mount really is: the tree's links are followed.
fn place(tree: &Tree, target: &Path) -> Result<String, String> {
    let real = resolve(tree, target, Missing::Accept).map(|real| plain(&real));
    let real = real.ok_or_else(|| format!("`{}` leads nowhere in the tree", target.display()))?;
    if ["/proc", "/sys", "/dev"].iter().any(|kept| real.starts_with(kept)) {
        return Err(format!("`{}` is the kernel's own in every step", target.display()));
    }
    Ok(real.to_string_lossy().into_owned())
}

/// Writes files out. Nothing of them leads elsewhere: a path is a link or a directory, and never both.
fn write(files: &Files, to: &Path) -> io::Result<()> {
    for item in &files.items {
        let path = match item.path.is_empty() {
            true => to.to_owned(),
            false => to.join(std::ffi::OsStr::from_bytes(&item.path)),
        };
        match &item.what {
            What::Directory => fs::create_dir(&path)?,
            What::Symlink(target) => {
                symlink(std::ffi::OsStr::from_bytes(target), &path)?;
                lchown(&path, Some(item.meta.uid), Some(item.meta.gid))?;
                continue;
            }
            What::Hardlink(first) => {
                fs::hard_link(to.join(std::ffi::OsStr::from_bytes(first)), &path)?;
                continue;
            }
            What::Fifo => {
                rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::empty(), 0)?
            }
            What::File { content: Content::Bytes(bytes), .. } => fs::write(&path, bytes)?,
            What::File { content: Content::Path { path: from, .. }, .. } => fs::copy(from, &path).map(drop)?,
        }
        own(&path, &item.meta)?;
    }
    Ok(())
}

fn own(path: &Path, meta: &Meta) -> io::Result<()> {
    chown(path, Some(meta.uid), Some(meta.gid))?;
    fs::set_permissions(path, fs::Permissions::from_mode(meta.mode))
}

fn file(path: &Path, bytes: &[u8], meta: &Meta) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    own(path, meta)
}

fn secret(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(File::open(path)?, MAX_SECRET + 1), &mut bytes)?;
    match bytes.len() as u64 <= MAX_SECRET {
        true => Ok(bytes),
        false => Err(io::Error::other(format!("the secret is longer than {MAX_SECRET} bytes"))),
    }
}

/// The directory of a cache, held as its sharing says. Below a directory that only root enters, for its files are whose they
/// are in the image.
fn cache(downloads: &Path, id: &str, sharing: Sharing, meta: &Meta) -> io::Result<(PathBuf, File)> {
    let root = downloads.join("run");
    fs::create_dir_all(&root)?;
    fs::set_permissions(&root, fs::Permissions::from_mode(0o700))?;
    let name = Digest::of(id.as_bytes()).hex();
    let numbers = if sharing == Sharing::Private { 0..PRIVATE } else { 0..1 };
    for number in numbers {
        let name = if sharing == Sharing::Private { format!("{name}-{number}") } else { name.clone() };
        let lock = File::options().create(true).truncate(false).write(true).open(root.join(format!("{name}.lock")))?;
        let how = match sharing {
            Sharing::Shared => FlockOperation::LockShared,
            Sharing::Locked => FlockOperation::LockExclusive,
            Sharing::Private => FlockOperation::NonBlockingLockExclusive,
        };
        if flock(&lock, how).is_err() {
            continue;
        }
        let directory = root.join(name);
        match fs::create_dir(&directory) {
            Ok(()) => own(&directory, meta)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        return Ok((directory, lock));
    }
    Err(io::Error::other("every private cache of this name is in use"))
}
