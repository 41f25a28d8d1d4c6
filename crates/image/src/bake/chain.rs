//! The chain of layers of one bake: where it is, and how it gets one step further.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_model::{
    Digest, ImageDigest, ImageManifest, Lock as LockFile, SuiteDigest,
    evidence::Material,
    fleet::ImageRef,
    lock::LockedSet,
    recipe::{Base, DebianBase, OciBase, Step, StepKind},
};

use super::{
    BakeError, BakeEvent, BakeRequest, Events, StepOutcome, copy, inputs,
    key::Key,
    lock, mount_points,
    over::Over,
    packages::{self, Below, Packages},
    remove, run, secrets,
    source::Source,
};
use crate::{
    layer::{Layer, apply, write},
    oci::{self, Config, Descriptor, Execution, Manifest},
    sandbox::Sandbox,
    store::{
        Documents, ImageEntry, Lock, StepEntry, Store, StoreError,
        objects::{Batch, Object, Tree},
    },
    tree,
};

/// What differs between a bake for use and one for comparison.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Host name seen by programs of steps.
    pub(super) hostname: &'static str,
    /// Whether the steps are known afterwards.
    pub(super) remember: bool,
}

impl Manner {
    /// For use.
    pub(super) const USUAL: Self = Self { hostname: "kiln-build", remember: true };
}

/// A layer of the chain.
#[derive(Debug, Clone)]
struct Link {
    step: String,
    digest: Digest,
    size: u64,
    /// Its splitstream, if it was written by this bake.
    object: Option<Object>,
}

/// How the tree at the end of the chain is known.
#[derive(Clone)]
enum Standing {
    /// By its metadata image.
    Stored(String),
    /// By a metadata image and layers over it that have not been read.
    Layers(String, Vec<Digest>),
    /// In memory.
    Loaded(Box<Tree>),
}

/// Where a chain is: what a stage of a Containerfile ends with and another one goes on from.
#[derive(Clone)]
pub(super) struct Position {
    pub(super) key: Digest,
    epoch: i64,
    links: Vec<Link>,
    /// The metadata image of its tree.
    pub(super) tree: String,
}

/// A bake that has come this far.
pub(super) struct Chain<'a> {
    pub(super) request: &'a BakeRequest<'a>,
    pub(super) store: &'a Store,
    pub(super) sandbox: &'a dyn Sandbox,
    pub(super) events: Events<'a>,
    pub(super) manner: Manner,
    /// `SOURCE_DATE_EPOCH`, seconds.
    pub(super) epoch: i64,
    /// Where packages come from, and the sets of them that are not installed yet.
    pub(super) debian: Option<(Arc<DebianBase>, VecDeque<LockedSet>)>,
    /// What was locked.
    pub(super) lock: Option<LockFile>,
    /// Variables of the base, for `run` steps.
    pub(super) environment: BTreeMap<String, String>,
    /// What a Containerfile says of how the image is run.
    pub(super) execution: Option<Execution>,
    /// Steps of a Containerfile that had the network.
    pub(super) networked: Vec<String>,
    /// What went into the image so far, beside the recipe.
    pub(super) materials: Vec<Material>,
    pub(super) count: usize,
    pub(super) key: Digest,
    links: Vec<Link>,
    standing: Standing,
    outcomes: Vec<StepOutcome>,
    /// What was written and is not durable yet, and the steps that are known once it is.
    batch: Batch,
    unsettled: Vec<(Digest, StepEntry)>,
}

impl<'a> Chain<'a> {
    /// Begins with the base.
    pub(super) fn start(
        request: &'a BakeRequest<'a>,
        store: &'a Store,
        sandbox: &'a dyn Sandbox,
        events: Events<'a>,
        manner: Manner,
    ) -> Result<Self, BakeError> {
        match &request.recipe.base {
            Base::Image(reference) => Self::from_image(Self::empty(request, store, sandbox, events, manner), reference),
            Base::Debian(base) => Self::from_debian(Self::empty(request, store, sandbox, events, manner), base),
            Base::Oci(base) => Self::from_oci(Self::empty(request, store, sandbox, events, manner), base),
            Base::Containerfile(base) => {
                super::containerfile::build(Self::empty(request, store, sandbox, events, manner), base)
            }
        }
    }

    fn from_oci(mut chain: Self, base: &'a OciBase) -> Result<Self, BakeError> {
        let (opened, lock) = super::oci::open(chain.request, base, chain.events)?;
        chain.start_at(opened.found.config.created.map_or(0, |created| created.as_second().max(0)));
        // Known by its metadata image, so that known layers over it need not be read.
        chain.stored()?;
        chain.count += opened.found.layers.len() - usize::from(opened.found.layers.is_empty());
        chain.oci_layers(&base.source, base.limits, &opened)?;
        if let Some(config) = opened.found.config.config.clone() {
            let execution = config.execution();
            chain.start_environment(super::oci::environment(&execution.env));
            chain.say_what_would_run(&execution);
        }
        chain.settle()?;
        chain.packages_over(&base.source.to_string(), Over::Oci(Box::new(lock.clone())))?;
        let lock = chain.lock.get_or_insert(lock);
        chain.materials.extend(inputs::of_lock(lock));
        Ok(chain)
    }

    /// The tree so far belongs to the last layer, so that it need not be put together again.
    pub(super) fn remember_tree(&mut self) -> Result<(), BakeError> {
        if self.unsettled.is_empty() {
            return Ok(());
        }
        let stored = self.stored()?;
        if let Some((_, entry)) = self.unsettled.last_mut() {
            entry.tree = Some(stored);
        }
        Ok(())
    }

    /// Variables that every `run` step starts with.
    pub(super) fn start_environment(&mut self, environment: BTreeMap<String, String>) {
        let pairs = environment.iter().flat_map(|(name, value)| [name, value]);
        self.key = Key::new("environment", Some(&self.key)).parts(pairs).done();
        self.environment = environment;
    }

    /// Where the chain is now; all of it is durable then.
    pub(super) fn position(&mut self) -> Result<Position, BakeError> {
        self.remember_tree()?;
        let tree = self.stored()?;
        self.settle()?;
        Ok(Position { key: self.key, epoch: self.epoch, links: self.links.clone(), tree })
    }

    /// Goes on from where it was, or another one is.
    pub(super) fn go_to(&mut self, position: &Position) {
        let Position { key, epoch, links, tree } = position.clone();
        (self.key, self.epoch, self.links) = (key, epoch, links);
        self.standing = Standing::Stored(tree);
    }

    /// Goes on from nothing.
    pub(super) fn go_to_nothing(&mut self, epoch: i64) {
        self.links.clear();
        self.start_at(epoch);
    }

    /// Goes on from an image of this host.
    pub(super) fn go_to_image(&mut self, image: &ImageDigest) -> Result<(), BakeError> {
        let entry = self.store.index().image(image)?.ok_or(StoreError::NotFound(*image))?;
        let documents = self.store.documents(image)?;
        let layers = documents.manifest.layers.iter().zip(&documents.config.history);
        let links = layers.map(|(layer, history)| Link {
            step: history.created_by.clone(),
            digest: layer.digest,
            size: layer.size,
            object: None,
        });
        self.epoch = documents.config.created.as_second();
        self.materials.push(inputs::of_image(&entry.name, image));
        self.key = Key::new("image", None).part(image.to_string()).done();
        self.links = links.collect();
        self.standing = Standing::Stored(entry.tree);
        Ok(())
    }

    fn from_debian(mut chain: Self, base: &'a DebianBase) -> Result<Self, BakeError> {
        let lock = lock::lock_of(chain.request, base, chain.events)?;
        chain.materials.extend(inputs::of_lock(&lock));
        chain.start_at(lock.archives.iter().map(|archive| archive.date.as_second()).max().unwrap_or(0));
        chain.count += 1;
        let mut sets: VecDeque<_> = lock.sets.clone().into();
        let set = sets.pop_front().map(|set| set.packages).unwrap_or_default();
        chain.debian = Some((Arc::new(base.clone()), sets));
        chain.lock = Some(lock);
        let step = format!("debian {}", base.suite);
        let wanted = Packages { step: &step, base, set: &set };
        let key = wanted.key(&chain.key);
        chain.perform(&step, key, packages::TIME_LIMIT, |chain, lower| wanted.layer(chain, lower, Below::Nothing))?;
        Ok(chain)
    }

    fn from_image(mut chain: Self, reference: &ImageRef) -> Result<Self, BakeError> {
        let named = reference.to_string();
        let image = chain.store.resolve(reference)?.ok_or_else(|| BakeError::NoBaseImage(named.clone()))?.digest;
        chain.go_to_image(&image)?;
        chain.packages_over(&named, Over::Image(image.0))?;
        let locked: Vec<_> = chain.lock.iter().flat_map(inputs::of_lock).collect();
        chain.materials.extend(locked);
        Ok(chain)
    }

    /// Begins with nothing.
    pub(super) fn empty(
        request: &'a BakeRequest<'a>,
        store: &'a Store,
        sandbox: &'a dyn Sandbox,
        events: Events<'a>,
        manner: Manner,
    ) -> Self {
        let mut chain = Self {
            request,
            store,
            sandbox,
            events,
            manner,
            epoch: 0,
            debian: None,
            lock: None,
            environment: BTreeMap::new(),
            execution: None,
            networked: Vec::new(),
            materials: Vec::new(),
            count: request.recipe.steps.len() + 1,
            key: Digest::of(b""),
            links: Vec::new(),
            standing: Standing::Stored(String::new()),
            outcomes: Vec::new(),
            batch: Batch::new(store.repo()),
            unsettled: Vec::new(),
        };
        chain.start_at(0);
        chain
    }

    /// With nothing yet, sets `SOURCE_DATE_EPOCH`.
    pub(super) fn start_at(&mut self, epoch: i64) {
        self.epoch = epoch;
        self.key = Key::new("empty", None).part(epoch.to_le_bytes()).done();
        self.standing = Standing::Loaded(Box::new(apply::empty(epoch)));
    }

    /// The recipe's steps, and the last one.
    pub(super) fn all_steps(&mut self) -> Result<(), BakeError> {
        self.steps()?;
        self.mount_points(&self.request.recipe.manifest)
    }

    /// The recipe's steps.
    pub(super) fn steps(&mut self) -> Result<(), BakeError> {
        self.request.recipe.steps.iter().try_for_each(|step| self.step(step))
    }

    /// Every step's name and layer, which are in the store, though no step is known by them.
    pub(super) fn into_layers(mut self) -> Result<Vec<(String, Digest)>, BakeError> {
        self.batch.publish()?;
        Ok(self.links.into_iter().map(|link| (link.step, link.digest)).collect())
    }

    /// One step of the recipe.
    fn step(&mut self, step: &'a Step) -> Result<(), BakeError> {
        let name = &step.name;
        match &step.kind {
            StepKind::Copy { from, to, owner, mode } => {
                let begun = Instant::now();
                let source = Source::read(name, self.request.directory, from)?;
                self.materials.push(inputs::of_source(from, &source));
                let wanted = copy::Copy { to, owner, mode: *mode, source };
                let key = wanted.key(&self.key);
                let edit = |tree: &Tree, chain: &Self| {
                    let layer = wanted.layer(name, tree, chain)?;
                    secrets::found(&layer).into_iter().for_each(|warning| (chain.events)(BakeEvent::Warning(warning)));
                    Ok::<_, BakeError>(layer)
                };
                self.edit(name, key, begun, edit)
            }
            StepKind::Remove { paths } => {
                let key = Key::new("remove", Some(&self.key)).parts(paths).done();
                self.edit(name, key, Instant::now(), |tree, _| remove::layer(name, tree, paths))
            }
            StepKind::Run { command } => {
                let wanted = run::Run { step, command };
                let key = wanted.key(&self.key);
                self.perform(name, key, step.time_limit, |chain, lower| wanted.layer(chain, lower))
            }
            StepKind::Packages { .. } => self.packages(name),
            StepKind::Provision(what) => self.provision(step, what),
        }
    }

    fn packages(&mut self, name: &str) -> Result<(), BakeError> {
        let wrong = |reason: &str| BakeError::Step { step: name.to_owned(), reason: reason.to_owned() };
        let (base, sets) = self.debian.as_mut().ok_or_else(|| wrong("no lock knows its packages"))?;
        let base = base.clone();
        let set = sets.pop_front().ok_or_else(|| wrong("the lock has no packages for it"))?.packages;
        let wanted = Packages { step: name, base: &base, set: &set };
        let key = wanted.key(&self.key);
        self.perform(name, key, packages::TIME_LIMIT, |chain, lower| wanted.layer(chain, lower, Below::Tree))
    }

    /// The last layer: what the runtime mounts over.
    pub(super) fn mount_points(&mut self, manifest: &ImageManifest) -> Result<(), BakeError> {
        let writable = serde_json::to_vec(&manifest.writable).expect("plain data always serialises");
        let key = Key::new("mount points", Some(&self.key)).part(writable).done();
        let name = mount_points::NAME;
        self.edit(name, key, Instant::now(), |tree, chain| mount_points::layer(tree, chain, &manifest.writable))
    }

    /// A step that is an edit of the tree in memory.
    pub(super) fn edit<E: From<BakeError>>(
        &mut self,
        name: &str,
        key: Digest,
        begun: Instant,
        edit: impl FnOnce(&Tree, &Self) -> Result<Layer, E>,
    ) -> Result<(), E> {
        self.begin(name);
        if let Some(entry) = self.known(&key)? {
            return Ok(self.reuse(name, key, entry, begun)?);
        }
        let mut tree = self.load()?;
        let layer = edit(&tree, self)?;
        let written = write::write(self.store.repo(), &mut self.batch, &layer).map_err(BakeError::from)?;
        apply::apply(&mut tree, &layer, &written.contents)
            .map_err(|source| BakeError::Apply { step: name.to_owned(), source })?;
        self.standing = Standing::Loaded(Box::new(tree));
        self.advance(name, key, &written, None, begun);
        Ok(())
    }

    /// A step that runs programs over the tree.
    pub(super) fn perform(
        &mut self,
        name: &str,
        key: Digest,
        limit: Duration,
        perform: impl FnOnce(&Self, &str) -> Result<run::Made, BakeError>,
    ) -> Result<(), BakeError> {
        let begun = Instant::now();
        self.begin(name);
        // Another bake may be running the same step: its layer is worth the wait.
        let _lock = self.step_lock(name, &key, limit + Duration::from_secs(60))?;
        if let Some(entry) = self.known(&key)? {
            return self.reuse(name, key, entry, begun);
        }
        let lower = self.stored()?;
        // If this step fails, those before it are known to the next bake.
        self.settle()?;
        let made = perform(self, &lower)?;
        made.warnings.iter().for_each(|warning| (self.events)(BakeEvent::Warning(warning.clone())));
        let mut tree = tree::load(self.store.repo(), &lower)?;
        let written = write::write(self.store.repo(), &mut self.batch, &made.layer)?;
        apply::apply(&mut tree, &made.layer, &written.contents)
            .map_err(|source| BakeError::Apply { step: name.to_owned(), source })?;
        let stored = hex(&self.batch.tree(&tree)?);
        self.standing = Standing::Stored(stored.clone());
        self.advance(name, key, &written, Some(stored), begun);
        self.settle()?;
        Ok(made.work.remove()?)
    }

    fn step_lock(&self, name: &str, key: &Digest, patience: Duration) -> Result<Lock, BakeError> {
        match self.store.step_lock(key, Duration::ZERO) {
            Err(StoreError::Busy { .. }) => {
                (self.events)(BakeEvent::Warning(format!("another bake runs `{name}`; this one waits for it")));
                Ok(self.store.step_lock(key, patience)?)
            }
            locked => Ok(locked?),
        }
    }

    fn begin(&self, name: &str) {
        let index = self.outcomes.len();
        (self.events)(BakeEvent::Started { index, count: self.count, name: name.to_owned() });
    }

    /// The known layer of a step, if it is wanted and really there.
    pub(super) fn known(&self, key: &Digest) -> Result<Option<StepEntry>, BakeError> {
        if self.request.fresh {
            return Ok(None);
        }
        let Some(entry) = self.store.index().step(key)? else { return Ok(None) };
        Ok(self.store.has_layer(&entry.layer)?.then_some(entry))
    }

    fn reuse(&mut self, name: &str, key: Digest, entry: StepEntry, begun: Instant) -> Result<(), BakeError> {
        self.key = key;
        self.links.push(Link { step: name.to_owned(), digest: entry.layer, size: entry.layer_size, object: None });
        let before = std::mem::replace(&mut self.standing, Standing::Stored(String::new()));
        self.standing = match (entry.tree, before) {
            (Some(tree), _) => Standing::Stored(tree),
            (None, Standing::Stored(tree)) => Standing::Layers(tree, vec![entry.layer]),
            (None, Standing::Layers(tree, mut layers)) => {
                layers.push(entry.layer);
                Standing::Layers(tree, layers)
            }
            (None, Standing::Loaded(mut tree)) => {
                self.store.read_layer(&entry.layer, &mut tree)?;
                Standing::Loaded(tree)
            }
        };
        self.done(StepOutcome { name: name.to_owned(), cached: true, seconds: begun.elapsed().as_secs_f64() });
        Ok(())
    }

    fn advance(&mut self, name: &str, key: Digest, written: &write::Written, tree: Option<String>, begun: Instant) {
        let entry = StepEntry {
            version: 1,
            name: name.to_owned(),
            layer: written.digest,
            layer_size: written.size,
            tree,
            run_at: self.request.now,
        };
        self.unsettled.push((key, entry));
        self.key = key;
        let object = Some(written.object.clone());
        self.links.push(Link { step: name.to_owned(), digest: written.digest, size: written.size, object });
        self.done(StepOutcome { name: name.to_owned(), cached: false, seconds: begun.elapsed().as_secs_f64() });
    }

    /// Makes what was written durable, and the steps known.
    fn settle(&mut self) -> Result<(), BakeError> {
        self.batch.publish()?;
        for (key, entry) in self.unsettled.drain(..).filter(|_| self.manner.remember) {
            self.store.index().put_step(&key, &entry)?;
        }
        Ok(())
    }

    fn done(&mut self, outcome: StepOutcome) {
        (self.events)(BakeEvent::Done(outcome.clone()));
        self.outcomes.push(outcome);
    }

    /// Takes the tree into memory.
    pub(super) fn load(&mut self) -> Result<Tree, BakeError> {
        let standing = std::mem::replace(&mut self.standing, Standing::Stored(String::new()));
        Ok(match standing {
            Standing::Loaded(tree) => *tree,
            Standing::Stored(hex) => tree::load(self.store.repo(), &hex)?,
            Standing::Layers(hex, layers) => {
                let mut tree = tree::load(self.store.repo(), &hex)?;
                for layer in &layers {
                    self.store.read_layer(layer, &mut tree)?;
                }
                tree
            }
        })
    }

    /// The metadata image of the tree, written if it is not there.
    pub(super) fn stored(&mut self) -> Result<String, BakeError> {
        if let Standing::Stored(hex) = &self.standing {
            return Ok(hex.clone());
        }
        let tree = self.load()?;
        let stored = hex(&self.batch.tree(&tree)?);
        self.standing = Standing::Stored(stored.clone());
        Ok(stored)
    }

    /// Writes the image's documents and names it.
    pub(super) fn finish(mut self) -> Result<(ImageDigest, SuiteDigest, Vec<StepOutcome>), BakeError> {
        let recipe = self.request.recipe;
        let layers: Vec<_> = self.links.iter().map(|link| (link.digest, link.step.clone())).collect();
        let created = jiff::Timestamp::from_second(self.epoch).unwrap_or_default();
        let mut config = Config::new(&recipe.manifest, &layers, created);
        if let Some(ground) = self.execution.take() {
            config.config = config.config.over(ground);
        }
        let config = oci::render(&config);
        let sizes: Vec<_> = self.links.iter().map(|link| (link.digest, link.size)).collect();
        let manifest = oci::render(&Manifest::image(Descriptor::of(oci::CONFIG, &config), &sizes));
        let image = ImageDigest(Digest::of(&manifest));
        let suite = self.store.index().put_suite(&recipe.suite)?;
        let known = self.store.index().image(&image)?;
        let suites = known.as_ref().map(|known| known.suites.clone()).unwrap_or_default();
        let (tree, size) = match known {
            Some(known) if self.store.read_documents(&image).is_ok() => (known.tree, known.size),
            _ => self.publish(&image, &manifest, &config)?,
        };
        self.settle()?;
        self.store.index().put_image(&ImageEntry {
            version: 1,
            image,
            name: recipe.name.clone(),
            suite,
            baked_at: self.request.now,
            tree,
            size,
            steps: self.links.iter().map(|link| link.step.clone()).collect(),
            fetched_from: None,
            suites,
        })?;
        Ok((image, suite, self.outcomes))
    }

    fn publish(&mut self, image: &ImageDigest, manifest: &[u8], config: &[u8]) -> Result<(String, u64), BakeError> {
        let tree = self.load()?;
        let mut layers = Vec::new();
        for link in &self.links {
            let object = match &link.object {
                Some(object) => object.clone(),
                None => self.store.layer_object(&link.digest)?,
            };
            layers.push((link.digest, object));
        }
        let documents = Documents { image: *image, manifest, config };
        Ok(self.store.write_image(&mut self.batch, &documents, &layers, &tree)?)
    }
}

fn hex(object: &Object) -> String {
    composefs::fsverity::FsVerityHashValue::to_hex(object)
}
