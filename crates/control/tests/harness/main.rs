//! Root tests of the harness: real servers on this host, with busybox as the image.
#![allow(missing_docs)]

mod bench;
mod dialects;
mod faults;
mod goss;
mod suite;
