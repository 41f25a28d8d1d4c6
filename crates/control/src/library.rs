//! [`Library`] over the image store and the keys of a state directory.

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::AsFd as _,
    sync::{Arc, Mutex},
};

use kiln_api::difference::{Change, Difference, Sizes};
use kiln_image::{
    diff::ImageDiff,
    store::{ImageRecord, Store, StoreError},
};
use kiln_model::{
    ChannelName, Digest, ImageDigest, ImageName, Suite, SuiteDigest,
    evidence::Envelope,
    fleet::{EvidencePolicy, ImageRef},
    trust::{self, TrustPolicy},
};

use crate::{
    harness::{
        ImageTree,
        tree::{self, TreeError, TreeFacts},
    },
    keys::Keys,
    releases::{ImageInfo, ImageOrigin, Releases, ReleasesError},
    reports::Library,
};

/// The images of a store, believed as the keys say.
pub struct StoreLibrary {
    store: Store,
    keys: Arc<Keys>,
    /// What was seen in the trees of images: an image never changes.
    facts: Mutex<HashMap<ImageDigest, TreeFacts>>,
}

impl StoreLibrary {
    /// The images of this store.
    pub fn new(store: Store, keys: Arc<Keys>) -> Self {
        Self { store, keys, facts: Mutex::default() }
    }
}

fn failed(error: StoreError) -> ReleasesError {
    match error {
        StoreError::NotFound(image) => ReleasesError::NotFound { image: image.to_string() },
        other => ReleasesError::Store(Box::new(other)),
    }
}

/// A difference as the daemon tells it, with at most so many files.
pub fn difference(found: &ImageDiff, before: &ImageDigest, after: &ImageDigest, most: usize) -> Difference {
    let files = &found.files[..found.files.len().min(most)];
    Difference {
        before: before.to_string(),
        after: after.to_string(),
        size: Sizes { before: found.size.0, after: found.size.1 },
        packages: found.packages.iter().map(change).collect(),
        manifest: found.manifest.iter().map(change).collect(),
        files: files.iter().map(change).collect(),
        files_left_out: (found.files.len() - files.len()) as u64,
    }
}

fn change<T: serde::Serialize>(change: &kiln_image::diff::Change<T>) -> Change {
    let value = |part: &Option<T>| part.as_ref().map(|part| serde_json::json!(part));
    let (before, after) = (value(&change.before), value(&change.after));
    Change { what: change.what.to_owned(), name: change.name.clone(), before, after }
}

impl StoreLibrary {
    fn info(&self, record: ImageRecord) -> Result<ImageInfo, ReleasesError> {
        let ImageRecord { digest, name, manifest, mut suite, fetched_from, .. } = record;
        let origin = if fetched_from.is_some() { ImageOrigin::Fetched } else { ImageOrigin::Baked };
        if origin == ImageOrigin::Fetched {
            let (reports, policy) = (self.reports(&digest)?, self.policy(EvidencePolicy::default())?);
            suite = trust::suite_of(digest, &name, &reports, &policy, jiff::Timestamp::now()).unwrap_or(suite);
        }
        Ok(ImageInfo { digest, name, manifest, suite, origin })
    }
}

impl Releases for StoreLibrary {
    fn resolve(&self, image: &ImageRef) -> Result<ImageInfo, ReleasesError> {
        let found = self.store.resolve(image).map_err(failed)?;
        self.info(found.ok_or_else(|| ReleasesError::NotFound { image: image.to_string() })?)
    }
    fn image(&self, image: &ImageDigest) -> Result<ImageInfo, ReleasesError> {
        let found = self.store.image(image).map_err(failed)?;
        self.info(found.ok_or_else(|| ReleasesError::NotFound { image: image.to_string() })?)
    }
    fn reports(&self, image: &ImageDigest) -> Result<Vec<Envelope>, ReleasesError> {
        self.store.reports(image).map_err(failed)
    }
    fn policy(&self, evidence: EvidencePolicy) -> Result<TrustPolicy, ReleasesError> {
        self.keys.policy(evidence).map_err(|error| ReleasesError::Trust(Box::new(error)))
    }
}

impl Library for StoreLibrary {
    fn suite(&self, suite: &SuiteDigest) -> Result<Option<Suite>, ReleasesError> {
        self.store.suite(suite).map_err(failed)
    }
    fn add_report(&self, image: &ImageDigest, report: &Envelope) -> Result<Digest, ReleasesError> {
        self.store.add_statement(image, report).map_err(failed)
    }
    fn approvals(&self, image: &ImageDigest) -> Result<Vec<Envelope>, ReleasesError> {
        self.store.approvals(image).map_err(failed)
    }
    fn channels(&self, name: &ImageName) -> Result<BTreeMap<ChannelName, ImageDigest>, ReleasesError> {
        self.store.channels(name).map_err(failed)
    }
    fn difference(&self, before: &ImageDigest, after: &ImageDigest, most: usize) -> Result<Difference, ReleasesError> {
        let found = self.store.diff(before, after).map_err(failed)?;
        Ok(difference(&found, before, after, most))
    }
    fn set_channel(&self, name: &ImageName, channel: &ChannelName, image: &ImageDigest) -> Result<(), ReleasesError> {
        self.store.set_channel(name, channel, image).map_err(failed)
    }
}

impl ImageTree for StoreLibrary {
    fn facts(&self, image: &ImageDigest) -> Result<TreeFacts, TreeError> {
        if let Some(known) = self.facts.lock().expect("no holder panics").get(image) {
            return Ok(known.clone());
        }
        let mount = self.store.mount(image, None).map_err(|error| TreeError::Mount(Box::new(error)))?;
        let facts = tree::scan(mount.as_fd())?;
        self.facts.lock().expect("no holder panics").insert(*image, facts.clone());
        Ok(facts)
    }
}
