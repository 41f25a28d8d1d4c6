//! Adapters: what one part wants of another, given by a third. Nothing is decided here.

pub(crate) mod host;
pub(crate) mod registries;
pub(crate) mod sandbox;
