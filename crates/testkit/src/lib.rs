//! Fakes, and the suite every engine must pass. Never a normal dependency of anything.
#![forbid(unsafe_code)]

pub mod conformance;
pub mod fake;

pub use fake::{FakeEngine, Manners};
