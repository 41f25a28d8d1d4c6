//! An OCI image as the base: found as the lock says, fetched, and its layers taken in as the first layers of the chain.
//!
//! A layer is a step like any other: its key is the parent's and the digest of what it unpacks to, so an image that was
//! taken in once is known from then on, and neither fetched nor read again.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use kiln_model::{
    Digest, Lock,
    lock::{LockedOci, wanted},
    oci::OciSource,
    recipe::{ImportLimits, OciBase},
};

use super::{BakeError, BakeEvent, BakeRequest, Events, chain::Chain, key::Key, lock};
use crate::{
    debian::http::{Expected, Limits},
    import::{self, Ground, Meter, Packed},
    oci::{
        Execution,
        foreign::Described,
        source::{self, Found, FoundLayer, LayerBytes, OciError, Origin},
    },
    registry::{Cache, Remote},
    store::Work,
};

/// The base's image, and where its layers are read from.
pub(super) struct Opened {
    origin: Place,
    pub(super) found: Found,
}

enum Place {
    Disk(Box<dyn Origin>),
    Registry(Remote),
}

impl Place {
    fn origin(&self) -> &dyn Origin {
        match self {
            Self::Disk(origin) => origin.as_ref(),
            Self::Registry(remote) => remote,
        }
    }
}

/// Finds the image that the lock names, or the one that the recipe names now, which is locked then.
pub(super) fn open(request: &BakeRequest<'_>, base: &OciBase, events: Events<'_>) -> Result<(Opened, Lock), BakeError> {
    let failed = |source| BakeError::Oci { base: base.source.to_string(), source: Box::new(source) };
    let locked = lock::usable(request, None, events)?;
    let expected = locked.as_ref().and_then(|lock| lock.oci.as_ref()).map(|oci| oci.manifest);
    let opened = find(request, &base.source, expected).map_err(failed)?;
    let lock = match locked {
        Some(lock) => lock,
        None => {
            let oci = LockedOci { source: base.source.to_string(), manifest: opened.found.id };
            let version = kiln_model::lock::VERSION;
            let oci = Some(oci);
            let (images, archives, sets, tools) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            let lock = Lock { version, suite: None, over: None, oci, images, archives, sets, tools };
            // Where packages go over it, the lock is not whole yet.
            if wanted(request.recipe).is_empty() {
                lock::write_lock(request, &lock)?;
            }
            lock
        }
    };
    Ok((opened, lock))
}

/// Finds the image with this manifest, or the one that has the name now.
pub(super) fn find(
    request: &BakeRequest<'_>,
    source: &OciSource,
    expected: Option<Digest>,
) -> Result<Opened, OciError> {
    let origin = place(request, source)?;
    let found = source::find(origin.origin(), expected)?;
    match expected.filter(|expected| *expected != found.id) {
        Some(expected) => Err(OciError::WrongDocument { what: "manifest", expected, found: found.id }),
        None => Ok(Opened { origin, found }),
    }
}

fn place(request: &BakeRequest<'_>, source: &OciSource) -> Result<Place, OciError> {
    if let OciSource::Registry(reference) = source {
        let cache = Cache::open(request.cache)?;
        let remote = Remote::new(reference, request.registries, cache, request.offline, Limits::default())?;
        return Ok(Place::Registry(remote));
    }
    let origin = source::open_place(source, request.directory)?;
    origin.map(Place::Disk).ok_or_else(|| OciError::document("index", "it is in no place that is known"))
}

impl Chain<'_> {
    /// The base's layers, lowest first.
    pub(super) fn oci_layers(
        &mut self,
        source: &OciSource,
        limits: ImportLimits,
        opened: &Opened,
    ) -> Result<(), BakeError> {
        let failed = |error| BakeError::Oci { base: source.to_string(), source: Box::new(error) };
        let keys = keys(&self.key, &opened.found.layers);
        let mut missing = Vec::new();
        for (key, layer) in keys.iter().zip(&opened.found.layers) {
            if self.known(key)?.is_none() {
                missing.push(layer);
            }
        }
        if let Place::Registry(remote) = &opened.origin {
            fetch(remote, &missing, self.events).map_err(failed)?;
        }
        let mut meter = Meter::new(limits);
        for (key, layer) in keys.iter().zip(&opened.found.layers) {
            self.oci_layer(*key, layer, opened, &mut meter).map_err(|error| match error {
                Failed::Bake(error) => error,
                Failed::Oci(source) => failed(*source),
            })?;
        }
        self.remember_tree()
    }

    fn oci_layer(&mut self, key: Digest, layer: &FoundLayer, opened: &Opened, meter: &mut Meter) -> Result<(), Failed> {
        let mut work = None;
        let objects = self.store.dir().join("composefs/objects");
        self.edit(&layer.name, key, Instant::now(), |tree, chain| {
            let taken = take_in(chain, tree, &objects, layer, opened, meter)?;
            taken.1.iter().for_each(|warning| (chain.events)(BakeEvent::Warning(warning.clone())));
            work = Some(taken.2);
            Ok::<_, Failed>(taken.0)
        })?;
        work.map_or(Ok(()), |work: Work| Ok(work.remove()?))
    }

    /// Nothing of an image's own command is taken over: the recipe says what runs.
    pub(super) fn say_what_would_run(&self, execution: &Execution) {
        if !self.request.recipe.manifest.services.is_empty() {
            return;
        }
        let parts = execution.entrypoint.iter().chain(&execution.cmd);
        let command: Vec<_> = parts.map(|part| format!("{part:?}")).collect();
        if command.is_empty() {
            return;
        }
        let set = |name: &str, value: &str| match value {
            "" => String::new(),
            value => format!(", {name} = {value:?}"),
        };
        let ports: Vec<_> = execution.exposed_ports.keys().map(String::as_str).collect();
        let ports = if ports.is_empty() { String::new() } else { format!("; it listens on {}", ports.join(", ")) };
        (self.events)(BakeEvent::Warning(format!(
            "nothing runs in this image. What it is made from would run command = [{}]{}{}{}{ports}: write a [service] with that",
            command.join(", "),
            set("user", &execution.user),
            set("working_directory", &execution.working_dir),
            set("stop.signal", &execution.stop_signal),
        )));
    }
}

/// What goes wrong with a layer: the base's fault, or the bake's.
enum Failed {
    Bake(BakeError),
    Oci(Box<OciError>),
}

impl<T: Into<BakeError>> From<T> for Failed {
    fn from(error: T) -> Self {
        Self::Bake(error.into())
    }
}

type Taken = (crate::layer::Layer, Vec<String>, Work);

fn take_in(
    chain: &Chain<'_>,
    below: &crate::store::objects::Tree,
    objects: &std::path::Path,
    layer: &FoundLayer,
    opened: &Opened,
    meter: &mut Meter,
) -> Result<Taken, Failed> {
    let work = Work::new(chain.store)?;
    let expected = match &layer.bytes {
        LayerBytes::Blob(blob) => Some((blob.size, blob.digest)),
        LayerBytes::Member(_) => None,
    };
    let reader = opened.origin.origin().open(&layer.bytes).map_err(|e| Failed::Oci(Box::new(e)))?;
    let ground = Ground { below, objects, work: &work.upper(), epoch: chain.epoch };
    let imported = import::layer(Packed::new(reader, expected), layer.diff_id, meter, &ground);
    let refused = |source| Failed::Oci(Box::new(OciError::Layer { layer: layer.diff_id, source }));
    let imported = imported.map_err(refused)?;
    Ok((imported.layer, imported.warnings, work))
}

/// The keys of the layers, each below the one before.
fn keys(start: &Digest, layers: &[FoundLayer]) -> Vec<Digest> {
    let below = |parent: &mut Digest, layer: &FoundLayer| {
        *parent = Key::new("oci layer", Some(parent)).part(layer.diff_id.as_bytes()).done();
        Some(*parent)
    };
    layers.iter().scan(*start, below).collect()
}

fn fetch(remote: &Remote, layers: &[&FoundLayer], events: Events<'_>) -> Result<(), OciError> {
    let blobs: Vec<Expected> = layers.iter().filter_map(|layer| expected(&layer.bytes)).collect();
    let (total, done) = (blobs.iter().map(|blob| blob.size).sum(), AtomicU64::new(0));
    remote.prefetch(&blobs, &|more| {
        let bytes = done.fetch_add(more, Ordering::Relaxed) + more;
        events(BakeEvent::Download { bytes, total });
    })?;
    Ok(())
}

fn expected(bytes: &LayerBytes) -> Option<Expected> {
    match bytes {
        LayerBytes::Blob(Described { size, digest, .. }) => Some(Expected { size: *size, digest: *digest }),
        LayerBytes::Member(_) => None,
    }
}

/// The image's variables, for `run` steps.
pub(super) fn environment(variables: &[String]) -> BTreeMap<String, String> {
    let pairs = variables.iter().filter_map(|variable| variable.split_once('='));
    let usable = pairs.filter(|(name, value)| !name.is_empty() && !name.contains('\0') && !value.contains('\0'));
    usable.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
