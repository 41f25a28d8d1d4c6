//! Bake, store, OCI and evidence.
//!
//! An image is made from a recipe by [`bake`], kept in the [`store`] and named by the digest of its OCI manifest.
//! Nothing here launches servers: build steps run through the [`sandbox::Sandbox`] trait.
#![forbid(unsafe_code)]

pub mod debian;
pub mod sandbox;
