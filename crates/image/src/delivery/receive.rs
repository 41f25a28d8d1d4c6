//! An image as it comes in: found, checked, read into the store, named last.

use std::{collections::BTreeSet, io::Read as _};

use jiff::Timestamp;
use kiln_model::{
    Digest, ImageDigest, ImageManifest, SuiteDigest,
    evidence::{Attestation, Envelope},
    manifest,
    recipe::ImportLimits,
};

use super::{DeliveryError, DeliveryEvent, Events, Received};
use crate::{
    import::{self, Ground, Meter, Packed},
    layer::{apply, write},
    oci::{
        self, Descriptor, OciError, artifact,
        artifact::Said,
        foreign::{self, Described, Document, ForeignManifest},
        source::{self, LayerBytes, Origin, Top},
    },
    registry::RegistryError,
    sbom::SbomFormat,
    store::{
        Documents, ImageEntry, Store, Work,
        objects::{Batch, Object, Tree},
    },
};

/// An index may list indexes, so deep.
const MAX_DEPTH: u32 = 3;
/// So many things that are said of an image are looked at, those that were said last.
pub(super) const MAX_REFERRERS: usize = 256;
/// All of them together, bytes.
const MAX_SAID: u64 = 64 << 20;
/// So many reports on one image are kept: what comes when there are as many is left out.
pub(super) const MAX_REPORTS: usize = 512;
/// An image has at most so many layers.
const MAX_LAYERS: usize = 500;
/// A step's name is cut to so many characters.
const MAX_STEP: usize = 200;

/// An image on its way in.
pub(super) struct Receive<'a> {
    pub(super) store: &'a Store,
    pub(super) origin: &'a dyn Origin,
    /// Where it comes from, in words.
    pub(super) from: String,
    pub(super) now: Timestamp,
    /// How much of it is taken in.
    pub(super) limits: ImportLimits,
    pub(super) events: Events<'a>,
}

/// Brings layers here before they are read.
pub(super) type Fetch<'a> = &'a dyn Fn(&[&Descriptor]) -> Result<(), DeliveryError>;

/// The documents of an image, checked against their digests.
struct Whole {
    image: ImageDigest,
    manifest_bytes: Vec<u8>,
    manifest: oci::Manifest,
    config_bytes: Vec<u8>,
    config: oci::Config,
    label: ImageManifest,
}

/// What was said of the image.
#[derive(Default)]
struct Heard {
    reports: Vec<Envelope>,
    suites: BTreeSet<SuiteDigest>,
    provenance: usize,
    approvals: usize,
    sboms: Vec<(SbomFormat, Vec<u8>)>,
    /// Statements about the image that the store has.
    kept: BTreeSet<Digest>,
    /// Statements for which there was no room.
    left_out: usize,
}

impl Receive<'_> {
    /// Takes everything in. The digests of the layers that were new come with it.
    pub(super) fn all(&self, fetch: Fetch<'_>) -> Result<(Received, Vec<Digest>), DeliveryError> {
        let writing = self.store.writing()?;
        let whole = self.documents()?;
        let known = self.store.index().image(&whole.image)?;
        let known = known.filter(|_| self.store.read_documents(&whole.image).is_ok());
        let new = match &known {
            Some(_) => Vec::new(),
            None => self.missing(&whole)?,
        };
        fetch(&new)?;
        let (tree, size) = match &known {
            Some(entry) => (entry.tree.clone(), entry.size),
            None => self.layers(&whole)?,
        };
        let heard = self.hear(&whole)?;
        self.name(&whole, known, tree, size, &heard)?;
        let sboms = self.same_sboms(&whole.image, &heard.sboms)?;
        writing.settled()?;
        let received = Received {
            image: whole.image,
            name: whole.label.name.clone(),
            layers: whole.manifest.layers.len(),
            new_layers: new.len(),
            bytes: new.iter().map(|layer| layer.size).sum(),
            reports: heard.reports.len(),
            suites: heard.suites.len(),
            provenance: heard.provenance,
            approvals: heard.approvals,
            sboms,
        };
        Ok((received, new.iter().map(|layer| layer.digest).collect()))
    }

    fn documents(&self) -> Result<Whole, DeliveryError> {
        let (id, manifest_bytes) = self.manifest()?;
        let manifest: oci::Manifest = parse(&manifest_bytes, "its manifest")?;
        let described = Described::of(&manifest.config);
        let config_bytes = source::document(self.origin, "configuration", &described)?;
        // Another platform, or no configuration of an image at all, is said first.
        foreign::ForeignConfig::parse(&config_bytes)?;
        let config: oci::Config = parse(&config_bytes, "its configuration")?;
        let label = config.config.labels.get(manifest::LABEL).ok_or_else(|| not_kiln("it has no manifest of Kiln"))?;
        let label: ImageManifest =
            serde_json::from_str(label).map_err(|error| not_kiln(&format!("its manifest of Kiln: {error}")))?;
        let whole = Whole { image: ImageDigest(id), manifest_bytes, manifest, config_bytes, config, label };
        whole.check()?;
        Ok(whole)
    }

    /// The manifest of this host's platform.
    fn manifest(&self) -> Result<(Digest, Vec<u8>), DeliveryError> {
        let (mut id, mut bytes) = match self.origin.top(None)? {
            Top::Document(id, bytes) => (id, bytes),
            Top::Whole(_) => return Err(not_kiln("it was written by `docker save`")),
        };
        for _ in 0..=MAX_DEPTH {
            match Document::parse(&bytes)? {
                Document::Image(_) => return Ok((id, bytes)),
                Document::Index(manifests) => {
                    let chosen = foreign::choose(&manifests)?;
                    (id, bytes) = (chosen.digest, source::document(self.origin, "manifest", chosen)?);
                }
            }
        }
        Err(OciError::document("index", format!("it lists indexes that list indexes, more than {MAX_DEPTH} deep"))
            .into())
    }

    fn missing<'w>(&self, whole: &'w Whole) -> Result<Vec<&'w Descriptor>, DeliveryError> {
        let mut missing: Vec<&Descriptor> = Vec::new();
        for layer in &whole.manifest.layers {
            let twice = missing.iter().any(|known| known.digest == layer.digest);
            if !twice && !self.store.has_layer(&layer.digest)? {
                missing.push(layer);
            }
        }
        Ok(missing)
    }

    /// Reads every layer over those below it, and writes the image's documents.
    fn layers(&self, whole: &Whole) -> Result<(String, u64), DeliveryError> {
        let epoch = whole.config.created.as_second();
        let (mut tree, mut objects) = (apply::empty(epoch), Vec::new());
        let mut meter = Meter::new(self.limits);
        let count = whole.manifest.layers.len();
        for (at, layer) in whole.manifest.layers.iter().enumerate() {
            (self.events)(DeliveryEvent::Unpack { layer: at + 1, count });
            match self.store.has_layer(&layer.digest)? {
                true => self.store.read_layer(&layer.digest, &mut tree)?,
                false => self.layer(layer, epoch, &mut tree, &mut meter)?,
            }
            objects.push((layer.digest, self.store.layer_object(&layer.digest)?));
        }
        self.write(whole, &objects, &tree)
    }

    fn layer(&self, layer: &Descriptor, epoch: i64, tree: &mut Tree, meter: &mut Meter) -> Result<(), DeliveryError> {
        let work = Work::new(self.store)?;
        let contents = self.store.dir().join("composefs/objects");
        let reader = self.origin.open(&LayerBytes::Blob(Described::of(layer)))?;
        let packed = Packed::new(reader, Some((layer.size, layer.digest)));
        let ground = Ground { below: tree, objects: &contents, work: &work.upper(), epoch };
        let imported = import::layer(packed, layer.digest, meter, &ground)
            .map_err(|source| DeliveryError::Layer { layer: layer.digest, source })?;
        let mut batch = Batch::new(self.store.repo());
        let written = write::write(self.store.repo(), &mut batch, &imported.layer)?;
        if written.digest != layer.digest {
            return Err(DeliveryError::ForeignLayer { layer: layer.digest });
        }
        apply::apply(tree, &imported.layer, &written.contents)?;
        batch.publish()?;
        Ok(work.remove()?)
    }

    fn write(&self, whole: &Whole, layers: &[(Digest, Object)], tree: &Tree) -> Result<(String, u64), DeliveryError> {
        let documents = Documents { image: whole.image, manifest: &whole.manifest_bytes, config: &whole.config_bytes };
        let mut batch = Batch::new(self.store.repo());
        let written = self.store.write_image(&mut batch, &documents, layers, tree)?;
        batch.publish()?;
        Ok(written)
    }

    /// Reads what is said of the image. What cannot be read is said and left out: it can only be missed.
    fn hear(&self, whole: &Whole) -> Result<Heard, DeliveryError> {
        let kept = self.store.statement_digests(&whole.image)?.into_iter().collect();
        let mut heard = Heard { kept, ..Heard::default() };
        let mut referrers = self.origin.referrers(&whole.image.0)?;
        referrers.retain(artifact::may_be_ours);
        let count = referrers.len();
        if count > MAX_REFERRERS {
            referrers.drain(..count - MAX_REFERRERS);
            self.warn(format!("{count} things are said of the image; only the last {MAX_REFERRERS} are looked at"));
        }
        let mut left = Some(MAX_SAID);
        for referrer in &referrers {
            if left.is_none() {
                self.warn(format!(
                    "what is said of the image has more than {MAX_SAID} bytes: the rest is not looked at"
                ));
                break;
            }
            match self.said(&whole.image.0, referrer, &mut left) {
                Ok(Some(Said::Report(envelope))) => self.keep_report(whole, *envelope, &mut heard)?,
                Ok(Some(Said::Provenance(envelope))) => {
                    heard.provenance += usize::from(self.keep_statement(whole, &envelope, &mut heard)?);
                }
                Ok(Some(Said::Approval(envelope))) => {
                    heard.approvals += usize::from(self.keep_statement(whole, &envelope, &mut heard)?);
                }
                Ok(Some(Said::Sbom(format, document))) => heard.sboms.push((format, document)),
                Ok(Some(Said::Suite(suite))) => drop(heard.suites.insert(self.store.index().put_suite(&suite)?)),
                Ok(None) => {}
                Err(error) if is_away(&error) => return Err(error.into()),
                Err(error) => {
                    self.warn(format!("what {} says of the image cannot be read: {error}", referrer.digest.short()));
                }
            }
        }
        if heard.left_out > 0 {
            let left_out = heard.left_out;
            self.warn(format!("{left_out} reports are left out: {MAX_REPORTS} on this image are kept already"));
        }
        Ok(heard)
    }

    /// How many of these are what Kiln makes of the image. An SBOM follows from the image, so none that came is kept: it is made
    /// when it is asked for, and one that says otherwise is said.
    fn same_sboms(&self, image: &ImageDigest, came: &[(SbomFormat, Vec<u8>)]) -> Result<usize, DeliveryError> {
        if came.is_empty() {
            return Ok(0);
        }
        let own = self.store.travelling_sboms(image)?;
        let same = |(format, document): &&(SbomFormat, Vec<u8>)| {
            SbomFormat::ALL.into_iter().zip(&own).any(|(own, sbom)| own == *format && sbom.bytes == *document)
        };
        let (same, other): (Vec<_>, Vec<_>) = came.iter().partition(same);
        for (format, _) in other {
            let version = env!("CARGO_PKG_VERSION");
            self.warn(format!(
                "an SBOM ({format}) that came is not what Kiln {version} makes of the image: it is left out"
            ));
        }
        Ok(same.len())
    }

    /// Keeps a report that is one on this image.
    fn keep_report(&self, whole: &Whole, envelope: Envelope, heard: &mut Heard) -> Result<(), DeliveryError> {
        let about = kiln_model::evidence::peek(&envelope).is_some_and(|report| report.image == whole.image);
        if about && self.room(whole, &envelope, heard)? {
            self.store.add_statement(&whole.image, &envelope)?;
            heard.reports.push(envelope);
        }
        Ok(())
    }

    /// Keeps another statement if it is one on this image: where it comes from, or that it may go to a channel.
    fn keep_statement(&self, whole: &Whole, envelope: &Envelope, heard: &mut Heard) -> Result<bool, DeliveryError> {
        let about = Attestation::peek(envelope).is_some_and(|said| said.image == whole.image);
        let kept = about && self.room(whole, envelope, heard)?;
        if kept {
            self.store.add_statement(&whole.image, envelope)?;
        }
        Ok(kept)
    }

    /// Whether there is room for a statement; one that is kept needs none.
    fn room(&self, whole: &Whole, envelope: &Envelope, heard: &mut Heard) -> Result<bool, DeliveryError> {
        let digest = self.store.statement_digest(&whole.image, envelope)?;
        if heard.kept.len() >= MAX_REPORTS && !heard.kept.contains(&digest) {
            heard.left_out += 1;
            return Ok(false);
        }
        heard.kept.insert(digest);
        Ok(true)
    }

    fn said(&self, image: &Digest, referrer: &Described, left: &mut Option<u64>) -> Result<Option<Said>, OciError> {
        let manifest = source::document(self.origin, "manifest", referrer)?;
        *left = left.and_then(|left| left.checked_sub(manifest.len() as u64));
        let manifest: ForeignManifest = serde_json::from_slice(&manifest)
            .map_err(|error| OciError::document("manifest", error.to_string().escape_debug().to_string()))?;
        let Some((layer, limit)) = artifact::wanted(&manifest, image) else { return Ok(None) };
        *left = left.and_then(|left| left.checked_sub(layer.size));
        if left.is_none() {
            return Ok(None);
        }
        let mut content = Vec::new();
        let reader = self.origin.open(&LayerBytes::Blob(Described::of(&layer)))?;
        let read = reader.take(limit + 1).read_to_end(&mut content);
        read.map_err(|error| OciError::document("report", error.to_string()))?;
        let found = Digest::of(&content);
        match found == layer.digest {
            true => Ok(artifact::said(&layer.media_type, &content)),
            false => Err(OciError::WrongDocument { what: "report", expected: layer.digest, found }),
        }
    }

    /// Makes the image visible. One that was baked here stays that.
    fn name(
        &self,
        whole: &Whole,
        known: Option<ImageEntry>,
        tree: String,
        size: u64,
        heard: &Heard,
    ) -> Result<(), DeliveryError> {
        let steps = whole.config.history.iter().map(|step| plain(&step.created_by)).collect();
        let fetched = || ImageEntry {
            version: 1,
            image: whole.image,
            name: whole.label.name.clone(),
            suite: heard.suite(),
            baked_at: self.now,
            tree,
            size,
            steps,
            fetched_from: Some(self.from.clone()),
            suites: Vec::new(),
        };
        let mut entry = known.unwrap_or_else(fetched);
        if entry.fetched_from.is_some() {
            entry.fetched_from = Some(self.from.clone());
            entry.suite = if heard.is_empty() { entry.suite } else { heard.suite() };
        }
        let suites: BTreeSet<_> = entry.suites.iter().chain(&heard.suites).copied().collect();
        entry.suites = suites.into_iter().collect();
        Ok(self.store.index().put_image(&entry)?)
    }

    fn warn(&self, text: String) {
        (self.events)(DeliveryEvent::Warning(text));
    }
}

impl Heard {
    fn is_empty(&self) -> bool {
        self.reports.is_empty() && self.suites.is_empty()
    }

    /// The tests that whoever tests the image here would run: those that the newest report says it is of, else those that
    /// came. Nothing is believed by this; evidence names its own suite.
    fn suite(&self) -> SuiteDigest {
        let newest = self.reports.iter().filter_map(kiln_model::evidence::peek).max_by_key(|report| report.finished_at);
        let came = || self.suites.first().copied();
        newest.map(|report| report.suite).or_else(came).unwrap_or_else(|| kiln_model::Suite::default().digest())
    }
}

impl Whole {
    /// The documents say the same, and what Kiln's own say.
    fn check(&self) -> Result<(), DeliveryError> {
        let layers = &self.manifest.layers;
        let described = |layer: &Descriptor| layer.media_type == oci::LAYER;
        if self.manifest.media_type != oci::MANIFEST || !layers.iter().all(described) || layers.len() > MAX_LAYERS {
            return Err(not_kiln("its layers are packed otherwise"));
        }
        let same = layers.iter().map(|layer| &layer.digest).eq(&self.config.rootfs.diff_ids);
        if !same || self.config.history.len() != layers.len() || self.label.version != 1 {
            return Err(not_kiln("its documents say different things of its layers"));
        }
        Ok(())
    }
}

/// Reads a document that is one of an image of Kiln.
fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, DeliveryError> {
    serde_json::from_slice(bytes).map_err(|error| not_kiln(&format!("{what}: {error}")))
}

fn not_kiln(why: &str) -> DeliveryError {
    DeliveryError::NotKiln { why: why.chars().take(200).collect::<String>().escape_debug().to_string() }
}

fn plain(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(MAX_STEP).collect()
}

fn is_away(error: &OciError) -> bool {
    matches!(error, OciError::Registry(RegistryError::Http(error)) if error.is_away())
}
