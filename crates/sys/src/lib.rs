//! The kernel calls Kiln makes; the only unsafe code.
//!
//! One file per kernel interface. An errno becomes a named [`Outcome`] here and nowhere above; no policy lives here, and
//! no type of Kiln's model. Everything works on file descriptors where the kernel lets it, so that nothing depends on a
//! path staying what it was.
#![warn(unsafe_op_in_unsafe_fn)]

pub mod cgroup;
pub mod confine;
pub mod error;
pub mod executable;
pub mod fds;
pub mod freeze;
pub mod idmap;
pub mod loop_device;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod nftables;
pub mod oom;
pub mod pidfd;
pub mod probe;
pub mod reflink;
pub mod remote;
pub mod resize;
pub mod seccomp;
pub mod shelf;
pub mod spawn;
pub mod within;

pub use error::{Outcome, Result, SysError};
