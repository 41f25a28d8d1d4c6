//! `kiln push`: an image to a registry.
//!
//! Order: blobs, the image under its digest, what is said of it, and the tag last. Whoever sees the tag sees the reports.

use std::{
    io::{self, Read},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use kiln_model::{
    ImageDigest,
    evidence::Envelope,
    oci::{OciReference, OciVersion},
};

use super::{
    DeliveryError, DeliveryEvent, Events, Pushed, cosign,
    outgoing::{Outgoing, OutgoingBlob},
};
use crate::{
    debian::http::Limits,
    oci::{self, Artifact},
    registry::{Blob, Places, Referrer, Registries, RegistryError, Repository, Sent, parallel},
    store::Store,
};

/// Which push.
#[derive(Debug, Clone, Copy)]
pub struct PushRequest<'a> {
    /// The image.
    pub image: ImageDigest,
    /// Where to.
    pub to: &'a OciReference,
    /// What is known of registries.
    pub registries: &'a Registries,
    /// Where downloads are kept, and what is known of blobs elsewhere.
    pub cache: &'a Path,
    /// Whether reports, provenance and these statements are put where cosign looks for them, too.
    pub cosign: Option<&'a [Envelope]>,
}

/// Pushes an image with everything that is said of it.
pub fn push(store: &Store, request: &PushRequest<'_>, events: Events<'_>) -> Result<Pushed, DeliveryError> {
    if let OciVersion::Digest(asked) = request.to.version
        && asked != request.image.0
    {
        return Err(DeliveryError::OtherDigest { image: request.image, asked });
    }
    let mut outgoing = Outgoing::read(store, &request.image)?;
    let attestations = request.cosign.map(|more| cosign::Attestations::of(&mut outgoing, more));
    let repository = Repository::to_write(request.to, request.registries, Limits::default())?;
    let places = Places::open(request.cache)?;
    let push = Push { to: request.to, repository, places, outgoing, attestations, events };
    let pushed = push.blobs()?;
    push.manifests()?;
    Ok(pushed)
}

struct Push<'a> {
    to: &'a OciReference,
    repository: Repository,
    places: Places,
    outgoing: Outgoing,
    attestations: Option<cosign::Attestations>,
    events: Events<'a>,
}

/// What was done so far.
#[derive(Default)]
struct Tally {
    bytes: AtomicU64,
    total: u64,
    sent: AtomicUsize,
    mounted: AtomicUsize,
}

impl Push<'_> {
    fn blobs(&self) -> Result<Pushed, DeliveryError> {
        let missing = self.missing()?;
        let tally = Tally { total: missing.iter().map(|blob| blob.size).sum(), ..Tally::default() };
        parallel::each(&missing, parallel::TRANSFERS, |blob| self.blob(blob, &tally))?;
        let sent = tally.sent.into_inner();
        Ok(Pushed {
            image: self.outgoing.image,
            sent,
            bytes: tally.bytes.into_inner(),
            mounted: tally.mounted.into_inner(),
            there: self.outgoing.blobs.len() - missing.len(),
            reports: self.outgoing.reports,
        })
    }

    fn missing(&self) -> Result<Vec<&OutgoingBlob>, RegistryError> {
        let missing = Mutex::new(Vec::new());
        let all: Vec<_> = self.outgoing.blobs.iter().collect();
        parallel::each(&all, parallel::TRANSFERS, |blob| {
            match self.repository.has_blob(&blob.digest)? {
                true => self.places.remember(&blob.digest, self.to),
                false => missing.lock().expect("no holder panics").push(*blob),
            }
            Ok::<_, RegistryError>(())
        })?;
        Ok(missing.into_inner().expect("no holder panics"))
    }

    fn blob(&self, blob: &OutgoingBlob, tally: &Tally) -> Result<(), RegistryError> {
        let open = |from| {
            let inner = self.outgoing.open(blob, from)?;
            Ok(Box::new(Counted { inner, tally, events: self.events }) as Box<dyn Read>)
        };
        let wanted = Blob { digest: blob.digest, size: blob.size, open: &open };
        match self.repository.send_blob(&wanted, &self.places.of(&blob.digest, self.to))? {
            Sent::There => {}
            Sent::Mounted => drop(tally.mounted.fetch_add(1, Ordering::Relaxed)),
            Sent::Whole => drop(tally.sent.fetch_add(1, Ordering::Relaxed)),
        }
        self.places.remember(&blob.digest, self.to);
        Ok(())
    }

    fn manifests(&self) -> Result<(), RegistryError> {
        let (repository, image) = (&self.repository, &self.outgoing.image.0);
        if !repository.has_manifest(image)? {
            repository.send_manifest(&image.to_string(), oci::MANIFEST, &self.outgoing.manifest)?;
        }
        let listed: Vec<_> = repository.referrers(image)?.into_iter().map(|entry| entry.digest).collect();
        let mut new = self.outgoing.artifacts.iter().filter(|artifact| !listed.contains(&artifact.digest()));
        new.try_for_each(|artifact| self.artifact(artifact))?;
        if let Some(attestations) = &self.attestations {
            repository.add_attestations(image, attestations)?;
        }
        match &self.to.version {
            OciVersion::Tag(tag) => repository.send_manifest(tag, oci::MANIFEST, &self.outgoing.manifest).map(drop),
            OciVersion::Digest(_) => Ok(()),
        }
    }

    fn artifact(&self, artifact: &Artifact) -> Result<(), RegistryError> {
        let digest = artifact.digest();
        let taken = self.repository.send_manifest(&digest.to_string(), oci::MANIFEST, &artifact.manifest)?;
        if taken.lists_referrers {
            return Ok(());
        }
        let entry = Referrer {
            media_type: oci::MANIFEST.to_owned(),
            digest,
            size: artifact.manifest.len() as u64,
            artifact_type: Some(artifact.kind.to_owned()),
            annotations: Default::default(),
        };
        self.repository.list_referrer(&self.outgoing.image.0, &entry)
    }
}

/// Counts what is sent.
struct Counted<'a> {
    inner: Box<dyn Read>,
    tally: &'a Tally,
    events: Events<'a>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let bytes = self.tally.bytes.fetch_add(count as u64, Ordering::Relaxed) + count as u64;
        (self.events)(DeliveryEvent::Transfer { bytes, total: self.tally.total });
        Ok(count)
    }
}
