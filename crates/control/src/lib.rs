//! State, journal, reconcilers, rollouts, the test harness, the daemon.
#![forbid(unsafe_code)]

pub mod daemon;
pub mod handle;
pub mod harness;
pub mod http;
pub mod keys;
pub mod library;
pub mod releases;
pub mod reports;
pub mod retry;
pub mod traffic;

pub use handle::{Control, ControlError, ControlOptions, RebuildTarget, Settled, Unsettled, Wanted};
pub use releases::{ImageInfo, NotAdmitted, Releases, ReleasesError};
pub use traffic::{Backend, Bound, Drained, Route, Routes, Traffic, TrafficError};
