//! The mount namespace that servers start from: an empty read-only directory tree with the host's `/proc` and `/sys`, which
//! the kernel must see before it lets a user namespace mount its own.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use kiln_sys::{
    SysError,
    mount::{Attributes, Depth, Setting, attach, create, pivot, restrict},
    namespace,
};
use rustix::fs::{CWD, Mode};

use crate::error::Result;

const DIRECTORIES: [&str; 7] = ["proc", "sys", "root", "stage", "stage/proc", "stage/sys", "stage/dev"];

/// Makes it. `anywhere` is a directory of the host to work on; nothing of it is changed.
pub(super) fn template(anywhere: &Path) -> Result<OwnedFd> {
    Ok(namespace::new_mounts(|| shape(anywhere))?)
}

fn shape(anywhere: &Path) -> kiln_sys::Result<()> {
    let data = Attributes::NO_SUID | Attributes::NO_DEVICES | Attributes::NO_EXECUTE;
    let root = create("tmpfs", &[Setting::Text("size", "64k"), Setting::Text("mode", "0755")], data)?;
    for name in DIRECTORIES {
        rustix::fs::mkdirat(&root, name, Mode::from_raw_mode(0o755)).map_err(|errno| SysError {
            action: format!("make the directory {name} of the empty root"),
            outcome: kiln_sys::Outcome::from_errno(errno.raw_os_error()),
        })?;
    }
    attach(root.as_fd(), CWD, anywhere)?;
    for (filesystem, path) in [("proc", "proc"), ("sysfs", "sys")] {
        attach(create(filesystem, &[], data)?.as_fd(), root.as_fd(), Path::new(path))?;
    }
    restrict(root.as_fd(), Depth::One, Attributes::READ_ONLY)?;
    pivot(anywhere)
}
