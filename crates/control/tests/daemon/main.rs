//! Root tests of the whole daemon: its own process, killed and started again, with real servers, the real gateway and the
//! real client. In place of the image store, directories with busybox.
#![allow(missing_docs)]

mod bench;
mod bindings;
#[path = "../sources/certificates.rs"]
mod certificates;
mod child;
#[path = "../../src/logs/tests/collector.rs"]
mod collector;
mod config;
mod drills;
mod faults;
mod following;
mod health;
mod library;
mod life;
mod live;
mod logs;
mod loss;
mod matrix;
mod metadata;
mod observing;
#[path = "../../src/traces/tests/receiver.rs"]
#[allow(dead_code, reason = "shared with the tests of sending, which use all of it")]
mod receiver;
#[path = "../sources/registry.rs"]
#[allow(dead_code, reason = "shared with the tests of sources, which use all of it")]
mod registry;
mod scarce;
mod shared;
mod sources;
mod spares;
mod throwaway;
mod traces;
mod volumes;
