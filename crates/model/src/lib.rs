//! Kiln's words as types.
//!
//! This crate is pure: it reads no clock, file, socket or random source. What comes from outside is parsed
//! here, once, into types that cannot be wrong; what must be decided (the plan of a rollout, whether a release
//! may be launched) is decided here from plain values.
#![forbid(unsafe_code)]

pub mod cases;
pub mod config;
pub mod containerfile;
pub mod diagnostic;
pub mod digest;
pub mod duration;
pub mod evidence;
pub mod exposition;
pub mod fleet;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod goss;
pub mod id;
pub mod lock;
pub mod loss;
pub mod manifest;
pub mod oci;
pub mod plan;
pub mod promotion;
pub mod reason;
pub mod recipe;
pub mod release;
pub mod schema;
pub mod server;
pub mod shared;
pub mod size;
pub mod suite;
pub mod syslog;
pub mod systemd;
mod text;
pub mod trust;
pub mod volume;

pub use config::FrozenConfig;
pub use digest::{ConfigDigest, Digest, ImageDigest, ReleaseId, SuiteDigest};
pub use fleet::{Fleet, Group};
pub use id::{
    BindingName, ChannelName, EnvironmentName, GroupName, ImageName, KeyName, MatrixName, ServerId, ServiceName,
    SharedName, SnapshotName, VolumeName,
};
pub use lock::Lock;
pub use manifest::ImageManifest;
pub use reason::Reason;
pub use recipe::Recipe;
pub use release::Release;
pub use server::ServerState;
pub use size::ByteSize;
pub use suite::Suite;
pub use trust::VerifiedRelease;
pub use volume::VolumeId;
