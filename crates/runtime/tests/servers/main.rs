//! Root tests of servers on this host, with busybox as the image and the host's directory as its root.
#![allow(missing_docs)]

mod bench;
mod delivery;
mod faults;
mod isolation;
mod life;
mod limits;
mod messages;
mod nfs;
mod shared;
mod staged;
mod volumes;
mod written;
