//! State, journal, reconcilers, rollouts, the test harness, the daemon.
//!
//! [`Control`] is the handle. Behind it, one task for each group (`group`) asks the pure planner of `kiln-model` what to do
//! next and does it; one task looks at the engine (`observer`); one sends the gateway its table (`routes`); one thread
//! writes the state file (`db`).
#![forbid(unsafe_code)]

pub mod attest;
pub mod audit;
mod bound;
mod check;
pub mod config;
pub mod daemon;
mod db;
mod descriptor;
pub mod failpoint;
mod foreign;
mod group;
pub mod handle;
pub mod harness;
pub mod http;
pub mod keys;
pub mod library;
pub mod live;
mod liveness;
pub mod logs;
mod loss;
pub mod metadata;
pub mod moves;
mod observer;
mod pause;
mod readiness;
pub mod reads;
mod recovery;
pub mod releases;
pub mod reports;
pub mod retry;
mod routes;
mod shared;
pub mod sources;
pub mod throwaway;
pub mod traces;
pub mod traffic;
mod volumes;
mod waker;

pub use db::DbError;
pub use failpoint::{FailPoint, NeverFails};
pub use group::Data;
pub use handle::{
    Control, ControlError, ControlOptions, InService, RebuildTarget, Settled, Sourced, Unsettled, Wanted,
};
pub use recovery::Target as DrillTarget;
pub use releases::{ImageInfo, ImageOrigin, NotAdmitted, Releases, ReleasesError};
pub use shared::Clock;
pub use traffic::{
    Asked, Backend, Bound, Carried, Drained, Failures, Route, Routes, Traffic, TrafficError, TrafficLoad,
};
pub use volumes::VolumesError;
