//! Bake, store, OCI and evidence.
//!
//! An image is made from a recipe by [`bake`], kept in the [`store`] and named by the digest of its OCI manifest.
//! Nothing here launches servers: build steps run through the [`sandbox::Sandbox`] trait.
#![forbid(unsafe_code)]

pub mod bake;
mod credential;
pub mod debian;
pub mod delivery;
pub mod diff;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod import;
mod layer;
pub mod lineage;
pub mod oci;
mod proxy;
pub mod registry;
pub mod sandbox;
pub mod sbom;
pub mod store;
pub mod survey;
pub mod tree;
pub mod why;

pub use store::{ImageRecord, Store, StoreError};
pub use tree::ImageTree;
