//! Root tests of the harness: real servers on this host, with busybox as the image.
#![allow(missing_docs)]

mod bench;
#[path = "../sources/certificates.rs"]
mod certificates;
mod dialects;
mod faults;
mod goss;
mod suite;
