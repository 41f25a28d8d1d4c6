//! Operations that shape a server, as data: made by the runtime's plan, shown by `describe`, executed in order by PID 1.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where PID 1 puts the server's root before it becomes `/`. In the template's mount namespace.
pub const NEW_ROOT: &str = "/root";

/// One step. Paths are absolute: in the template's tree before [`Operation::Pivot`], in the server's after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Operation {
    /// Forbids user namespaces inside, and so every capability that one would bring.
    ForbidNamespaces,
    /// Brings the loopback interface up.
    Loopback,
    /// Sets the host name.
    Hostname {
        /// The name.
        name: String,
    },
    /// Mounts a new file system.
    Mount(Mount),
    /// Makes the socket of `/dev/log`, which PID 1 reads from then on, and mounts it on a file. Nothing inside can remove it.
    LogSocket {
        /// Where.
        path: String,
        /// Where it is made, in a file system of the server's own.
        via: String,
    },
    /// Mounts what came as a descriptor.
    Attach {
        /// Index in the message's descriptors.
        descriptor: usize,
        /// Where.
        path: String,
        /// Whether nothing happens where the path does not exist.
        optional: bool,
    },
    /// Moves a mount and all below it.
    Move {
        /// From here.
        from: String,
        /// To here.
        to: String,
        /// Whether nothing happens where the target does not exist.
        optional: bool,
    },
    /// Forbids writing to a path, by a read-only mount of itself.
    ReadOnly {
        /// The path; nothing happens where it does not exist.
        path: String,
    },
    /// Hides a file behind `/dev/null` of the given path, or a directory behind an empty one.
    Mask {
        /// The path; nothing happens where it does not exist.
        path: String,
        /// A null device to bind.
        null: String,
    },
    /// Makes a directory a user's. Only after the pivot.
    Own {
        /// The path.
        path: String,
        /// A user of the image, by name or number.
        owner: String,
        /// Permission bits.
        mode: u32,
    },
    /// Makes a directory in a new file system.
    Directory {
        /// The path.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Makes the tree at [`NEW_ROOT`] the root, and lets go of everything else.
    Pivot,
}

/// A new file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// `tmpfs`, `proc`, …
    pub filesystem: String,
    /// Settings; a flag has no value.
    pub settings: Vec<(String, Option<String>)>,
    /// `MOUNT_ATTR_…` bits.
    pub attributes: u32,
    /// Where.
    pub path: String,
    /// Owner of the top directory: a user of the image, by name or number. Only after the pivot.
    pub owner: Option<String>,
    /// Whether nothing happens where the path does not exist.
    pub optional: bool,
}

/// `MOUNT_ATTR_RDONLY`.
pub const READ_ONLY: u32 = 0x1;
/// `MOUNT_ATTR_NOSUID`.
pub const NO_SUID: u32 = 0x2;
/// `MOUNT_ATTR_NODEV`.
pub const NO_DEVICES: u32 = 0x4;
/// `MOUNT_ATTR_NOEXEC`.
pub const NO_EXECUTE: u32 = 0x8;

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForbidNamespaces => f.write_str("forbid user namespaces"),
            Self::Loopback => f.write_str("bring the loopback interface up"),
            Self::Hostname { name } => write!(f, "set the host name to {name}"),
            Self::Mount(mount) => write!(f, "mount {} at {}", mount.filesystem, mount.path),
            Self::LogSocket { path, .. } => write!(f, "listen to log messages at {path}"),
            Self::Attach { path, .. } => write!(f, "mount a prepared tree at {path}"),
            Self::Move { from, to, .. } => write!(f, "move the mounts at {from} to {to}"),
            Self::ReadOnly { path } => write!(f, "make {path} read-only"),
            Self::Mask { path, .. } => write!(f, "hide {path}"),
            Self::Own { path, owner, .. } => write!(f, "give {path} to {owner}"),
            Self::Directory { path, .. } => write!(f, "make the directory {path}"),
            Self::Pivot => f.write_str("make the image the root"),
        }
    }
}
