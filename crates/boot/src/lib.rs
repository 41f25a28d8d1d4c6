//! The contract between the runtime and PID 1 of a server (`kiln-init`).
//!
//! - [`render`]: files rendered from templates before services start;
//! - [`setup`]: operations that shape a server's mounts, described as data by the runtime and executed by PID 1;
//! - [`spec`]: what PID 1 runs and how it is told;
//! - [`control`]: what it is asked while it runs;
//! - [`spool`]: the frames it writes the services' output in;
//! - [`users`]: users and groups of an image.
//!
//! A running PID 1 may be older than the runtime that talks to it: every message tolerates additions, and the meaning
//! of what is there never changes.
#![forbid(unsafe_code)]

pub mod control;
pub mod render;
pub mod setup;
pub mod spec;
pub mod spool;
pub mod users;
