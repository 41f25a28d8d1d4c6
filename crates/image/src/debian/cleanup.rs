//! What package tools leave in a tree that depends on the day, the machine or chance, or that nobody needs: removed.

use std::io;

use super::{database, root::Root};

/// Single files.
const FILES: [&str; 18] = [
    "etc/.pwd.lock",
    "etc/group-",
    "etc/gshadow-",
    "etc/machine-id",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/status-old",
    "var/lib/systemd/random-seed",
    "var/log/alternatives.log",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
];

/// Directories whose files go, if their names end so.
const IN_DIRECTORIES: [(&str, &str); 4] =
    [("var/cache/debconf", "-old"), ("var/log/apt", ""), ("var/cache/apt/archives", ".deb"), ("var/cache/apt", ".bin")];

/// Removes it all, and sorts dpkg's status.
pub fn clean(root: &Root) -> io::Result<()> {
    for path in FILES {
        root.remove(path)?;
    }
    for (directory, ending) in IN_DIRECTORIES {
        for (name, kind) in root.list(directory)? {
            if name.ends_with(ending) && !kind.is_dir() {
                root.remove(&format!("{directory}/{name}"))?;
            }
        }
    }
    database::sort_status(root)
}
