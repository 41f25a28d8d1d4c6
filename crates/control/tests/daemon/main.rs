//! Root tests of the whole daemon: its own process, killed and started again, with real servers, the real gateway and the
//! real client. In place of the image store, directories with busybox.
#![allow(missing_docs)]

mod bench;
mod child;
mod config;
mod faults;
mod library;
mod life;
mod matrix;
mod metadata;
