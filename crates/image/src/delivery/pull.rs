//! `kiln pull`: an image from a registry.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use kiln_model::{oci::OciReference, recipe::ImportLimits};

use super::{DeliveryError, DeliveryEvent, Events, Received, receive::Receive};
use crate::{
    debian::http::{Expected, Limits},
    oci::Descriptor,
    registry::{Cache, Places, Registries, Remote},
    store::Store,
};

/// Which pull.
#[derive(Debug, Clone, Copy)]
pub struct PullRequest<'a> {
    /// Where from.
    pub from: &'a OciReference,
    /// What is known of registries.
    pub registries: &'a Registries,
    /// Where downloads are kept.
    pub cache: &'a Path,
    /// How much of it is taken in.
    pub limits: ImportLimits,
    /// The time now.
    pub now: jiff::Timestamp,
}

/// Pulls an image with its reports and its suite.
pub fn pull(store: &Store, request: &PullRequest<'_>, events: Events<'_>) -> Result<Received, DeliveryError> {
    let cache = Cache::open(request.cache)?;
    let remote = Remote::new(request.from, request.registries, cache, false, Limits::default())?;
    let fetch = |layers: &[&Descriptor]| {
        let blobs: Vec<_> = layers.iter().map(|l| Expected { size: l.size, digest: l.digest }).collect();
        let (total, done) = (blobs.iter().map(|blob| blob.size).sum(), AtomicU64::new(0));
        remote.prefetch(&blobs, &|more| {
            let bytes = done.fetch_add(more, Ordering::Relaxed) + more;
            events(DeliveryEvent::Transfer { bytes, total });
        })?;
        Ok(())
    };
    let (now, limits) = (request.now, request.limits);
    let receive = Receive { store, origin: &remote, from: request.from.to_string(), now, limits, events };
    let (received, layers) = receive.all(&fetch)?;
    let places = Places::open(request.cache)?;
    for layer in layers {
        places.remember(&layer, request.from);
        // The store has it now.
        remote.forget(&layer)?;
    }
    Ok(received)
}
