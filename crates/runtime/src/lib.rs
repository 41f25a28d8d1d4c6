//! One server on this host: plan, launch, adopt, destroy.
#![forbid(unsafe_code)]

pub mod network;
pub mod sandbox;
