//! Fakes, the suite every engine must pass, and a small image's tree. Never a normal dependency of anything.
#![forbid(unsafe_code)]

pub mod busybox;
pub mod conformance;
pub mod fake;

pub use fake::{FakeEngine, Manners};
