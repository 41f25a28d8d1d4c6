//! Shared directories: what a fleet binds is mounted for each server, and nowhere on the host.
//!
//! A directory of the host is handed in as an idmapped copy of its mount: user 1000 inside is user 1000 of the host there, and root
//! is root. So that this gives a server no power over the host, nothing on it is set-user-id, a device, or (unless the fleet says
//! so) executed for the server; nobody inside can make a file that the host would run as another user
//! ([`kiln_sys::seccomp::marks_filter`], and no capability for file capabilities); and no path inside it is ever followed from
//! outside: Kiln opens the directory itself and nothing below.
//!
//! What is on an NFS server is mounted for each server too ([`nfs`]). The kernel has one connection and one cache for all mounts of
//! the same export with the same options, however many there are, and lets go of it with the last one: nothing has to be counted,
//! found again or cleaned up.

mod error;
mod nfs;

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use kiln_model::shared::{Attachment, HostDirectory, Nfs, Place, SharedDirectory, Source};
use kiln_sys::{
    Outcome,
    mount::{self, Attributes, Depth, Setting},
};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, StatVfsMountFlags, fstat, fstatvfs, openat2},
    io::Errno,
};

pub use self::error::SharedError;

/// What a test server is given: so much can be written.
const OF_TESTS: &str = "256m";

/// Mounts shared directories for the servers of one state directory.
#[derive(Debug)]
pub(crate) struct SharedDirectories {
    /// Kiln's own directories: none of them, nothing above and nothing below is shared.
    own: Vec<PathBuf>,
    /// A user of a server, as an NFS server sees it.
    user: u32,
}

impl SharedDirectories {
    pub(crate) fn new(state_dir: &Path, run_dir: &Path, user: u32) -> Self {
        Self { own: vec![state_dir.to_owned(), run_dir.to_owned()], user }
    }

    /// Whether servers can be given it.
    pub(crate) fn check(&self, directory: &SharedDirectory) -> Result<(), SharedError> {
        let own: Vec<&Path> = self.own.iter().map(PathBuf::as_path).collect();
        match &directory.place {
            Place::Directory(_) => look(directory, &own),
            Place::Nfs(nfs) => self.over_network(nfs, directory).map(drop),
        }
    }

    fn over_network(&self, nfs: &Nfs, directory: &SharedDirectory) -> Result<OwnedFd, SharedError> {
        nfs::mount(nfs, attributes(directory), (self.user, !directory.read_only))
    }

    /// A detached mount for a server, with its owners.
    pub(crate) fn give(&self, attachment: &Attachment, users: &OwnedFd) -> Result<OwnedFd, SharedError> {
        let mounted = match &attachment.source {
            Source::Throwaway => throwaway()?,
            Source::Bound(directory) => match &directory.place {
                Place::Directory(path) => {
                    self.check(directory)?;
                    of_host(path, attributes(directory))?
                }
                // Linux shifts no owners there: the NFS server says whose everything is.
                Place::Nfs(nfs) => return self.over_network(nfs, directory),
            },
        };
        match mount::map_owners(mounted.as_fd(), users.as_fd()) {
            Err(error) if error.outcome == Outcome::Invalid => Err(SharedError::NoOwners(attachment.name.clone())),
            other => Ok(other.map(|()| mounted)?),
        }
    }
}

fn of_host(path: &HostDirectory, attributes: Attributes) -> Result<OwnedFd, SharedError> {
    let mounted = mount::clone_tree(open(path)?.as_fd(), Path::new(""), Depth::One)?;
    // What is mounted on the host later does not appear inside.
    mount::make_private(mounted.as_fd())?;
    mount::restrict(mounted.as_fd(), Depth::One, attributes)?;
    Ok(mounted)
}

fn attributes(directory: &SharedDirectory) -> Attributes {
    let mut attributes = Attributes::NO_SUID | Attributes::NO_DEVICES;
    if !directory.execute {
        attributes = attributes | Attributes::NO_EXECUTE;
    }
    if directory.read_only {
        attributes = attributes | Attributes::READ_ONLY;
    }
    attributes
}

/// Empty, everybody's, and gone with its last user.
fn throwaway() -> Result<OwnedFd, SharedError> {
    let attributes = Attributes::NO_SUID | Attributes::NO_DEVICES | Attributes::NO_EXECUTE;
    let settings = [Setting::Text("size", OF_TESTS), Setting::Text("mode", "1777")];
    Ok(mount::create("tmpfs", &settings, attributes)?)
}

/// Looks whether servers can be given it, without doing anything. `own` are Kiln's own directories.
pub fn look(directory: &SharedDirectory, own: &[&Path]) -> Result<(), SharedError> {
    let Place::Directory(path) = &directory.place else { return Ok(()) };
    let opened = open(path)?;
    for own in own {
        if touches(path, opened.as_fd(), own)? {
            return Err(SharedError::Own { path: path.clone(), own: (*own).to_owned() });
        }
    }
    let status = fstatvfs(&opened).map_err(|error| SharedError::unreadable(path, error))?;
    if status.f_flag.contains(StatVfsMountFlags::RDONLY) && !directory.read_only {
        return Err(SharedError::ReadOnly(path.clone()));
    }
    Ok(())
}

/// No symbolic link is followed on the way, so that what is checked is what the fleet says.
fn open(path: &HostDirectory) -> Result<OwnedFd, SharedError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(CWD, path.as_str(), flags, Mode::empty(), resolve).map_err(|error| match error {
        Errno::NOENT => SharedError::NotThere(path.clone()),
        Errno::NOTDIR => SharedError::NotADirectory(path.clone()),
        Errno::LOOP => {
            SharedError::SymbolicLink { path: path.clone(), leads_to: std::fs::canonicalize(path.as_str()).ok() }
        }
        error => SharedError::unreadable(path, error),
    })
}

/// Whether a directory is one of Kiln's own, or lies above or below: by its path, and by what it is, which a second mount of it does
/// not change.
fn touches(path: &HostDirectory, opened: BorrowedFd<'_>, own: &Path) -> Result<bool, SharedError> {
    let named = Path::new(path.as_str());
    let real = std::fs::canonicalize(own).unwrap_or_else(|_| own.to_owned());
    if named.starts_with(&real) || real.starts_with(named) {
        return Ok(true);
    }
    let stat = fstat(opened).map_err(|error| SharedError::unreadable(path, error))?;
    let same = |above: &Path| {
        rustix::fs::stat(above).is_ok_and(|other| (other.st_dev, other.st_ino) == (stat.st_dev, stat.st_ino))
    };
    Ok(real.ancestors().any(same))
}
