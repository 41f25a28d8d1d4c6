//! What all servers of this host stand on, made once when the runtime is opened: PID 1's program, the tree of devices,
//! the empty mounts that servers start from, the filter of system calls, and the control groups.
//!
//! All of it is descriptors: nothing is mounted on the host, and all vanishes with this process.

use std::{
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use kiln_sys::{
    cgroup,
    mount::{self, Attributes, Setting},
    seccomp,
    shelf::Template,
};

use crate::error::{OnFile as _, Result};

mod devices;
mod mounts;

static INIT: &[u8] = include_bytes!(env!("KILN_INIT"));

/// Shared by all servers.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) init: File,
    pub(crate) null: File,
    pub(crate) devices: Template,
    pub(crate) mounts: OwnedFd,
    /// The filter of all servers, and the one that those with a shared directory have beside it.
    pub(crate) filters: Vec<OwnedFd>,
    pub(crate) cgroups: cgroup::Host,
    /// All control groups of this state directory are below this one.
    pub(crate) cgroup: String,
}

impl Ground {
    /// Makes it. `id` tells this state directory from others on the host.
    pub(crate) fn new(run_dir: &Path, id: &str) -> Result<Self> {
        Ok(Self {
            init: install_init(run_dir)?,
            null: File::options().read(true).write(true).open("/dev/null").on("open", "/dev/null")?,
            devices: Template::new(devices::tree()?)?,
            mounts: mounts::template(run_dir)?,
            filters: [seccomp::server_filter(), seccomp::marks_filter()]
                .into_iter()
                .flat_map(|filter| &filter.programs)
                .map(|program| memory_file("kiln-filter", program))
                .collect::<Result<_>>()?,
            cgroups: cgroup::Host::detect()?,
            cgroup: format!("kiln/{id}"),
        })
    }

    /// The control group of a slot.
    pub(crate) fn group(&self, slot: u16) -> cgroup::Group {
        self.cgroups.group(&format!("{}/slot-{slot}", self.cgroup))
    }
}

/// Writes PID 1's program to the run directory, where the host's root owns it and nobody may write it, and opens it. The
/// name tells versions apart: running servers keep theirs.
fn install_init(run_dir: &Path) -> Result<File> {
    let path = run_dir.join(format!("init-{}", kiln_model::Digest::of(INIT).short()));
    if !path.exists() {
        let temporary = run_dir.join(format!("init.{}.new", std::process::id()));
        std::fs::write(&temporary, INIT).on("write", &temporary)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o555);
        std::fs::set_permissions(&temporary, mode).on("make executable", &temporary)?;
        std::fs::rename(&temporary, &path).on("put in place", &path)?;
    }
    File::open(&path).on("open", &path)
}

/// A file without a name that can no longer be changed.
pub(crate) fn memory_file(name: &str, content: &[u8]) -> Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .on("make a memory file", name)?;
    let mut rest = content;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest).on("write a memory file", name)?;
        rest = &rest[written..];
    }
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).on("seal a memory file", name)?;
    Ok(file)
}

/// A detached memory file system.
pub(crate) fn tmpfs(size: &str, mode: &str, attributes: Attributes) -> Result<OwnedFd> {
    Ok(mount::create("tmpfs", &[Setting::Text("size", size), Setting::Text("mode", mode)], attributes)?)
}

/// A copy of a mount, or of a path in it, seen with the owners of a user namespace.
pub(crate) fn mapped_copy(tree: &Template, path: &str, users: &OwnedFd) -> Result<OwnedFd> {
    let copy = tree.copy(Path::new(path))?;
    mount::map_owners(copy.as_fd(), users.as_fd())?;
    Ok(copy)
}
