//! Registries: the OCI distribution API 1.1, version 2 of Docker's.
//!
//! Written thinly on the HTTP client that the Debian archive is read with, because three things must be ours to decide:
//! which host sees credentials (a redirect to another host never does), how long anything may take, and how many bytes
//! are read before a digest was checked. What comes is bounded, hashed while it streams and kept by its digest, so a
//! download that broke off is gone on with, and what is there is not fetched again.

mod auth;
mod blobs;
mod client;
mod credentials;
mod error;
mod pages;
pub(crate) mod parallel;
mod places;
mod referrers;
mod remote;
mod settings;
mod upload;

#[cfg(test)]
pub(crate) mod docker;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
pub(crate) mod proxy;
#[cfg(test)]
pub(crate) mod strict;
#[cfg(test)]
mod tests;

pub(crate) use blobs::Cache;
pub(crate) use client::Repository;
pub use error::RegistryError;
pub(crate) use places::Places;
pub(crate) use referrers::Referrer;
pub(crate) use remote::Remote;
pub use settings::{Registries, RegistrySettings};
pub(crate) use upload::{Blob, Sent};
