//! Removing what no image needs.
//!
//! Kept are the images that the caller names (those of running releases), what channels point to, and the newest image
//! of every name, each with its reports, suite and steps; and the steps of bakes that did not end, for a day, so that
//! they can go on. Names go before what they lead to, so a crash in between leaves a store that is only less tidy.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use composefs::fsverity::FsVerityHashValue as _;
use kiln_model::{Digest, ImageDigest, ImageName};

use super::{
    ImageEntry, StepEntry, Store, StoreError,
    error::{Context as _, at},
    objects::{self, Object},
};

/// How long the steps of a bake that did not end are kept.
const UNFINISHED: Duration = Duration::from_secs(86_400);

/// What was removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcOutcome {
    /// Images.
    pub images: Vec<ImageDigest>,
    /// Layers of steps that no image has.
    pub steps: u64,
    /// Objects: file contents, layers, metadata images, documents.
    pub objects: u64,
    /// Bytes of these objects.
    pub bytes: u64,
}

/// What stays, and what goes.
#[derive(Default)]
struct Plan {
    live: HashSet<Object>,
    layers: HashSet<Digest>,
    suites: BTreeSet<OsString>,
    images: Vec<ImageDigest>,
    steps: Vec<Digest>,
}

impl Store {
    /// Removes what none of the images to keep needs; with `dry_run` only says what it would remove.
    pub fn gc(&self, keep: &[ImageDigest], now: jiff::Timestamp, dry_run: bool) -> Result<GcOutcome, StoreError> {
        let _lock = self.sweeping()?;
        let plan = self.gc_plan(keep, now)?;
        if !dry_run {
            self.forget(&plan)?;
        }
        let (objects, bytes) = self.sweep_objects(&plan.live, dry_run)?;
        Ok(GcOutcome { images: plan.images, steps: plan.steps.len() as u64, objects, bytes })
    }

    fn gc_plan(&self, keep: &[ImageDigest], now: jiff::Timestamp) -> Result<Plan, StoreError> {
        let images = self.index().images()?;
        let channels = self.index().all_channels()?;
        let mut newest: BTreeSet<&ImageName> = BTreeSet::new();
        let mut plan = Plan::default();
        for entry in &images {
            let wanted = keep.contains(&entry.image) || channels.contains(&entry.image);
            match newest.insert(&entry.name) || wanted {
                true => self.mark_image(entry, &mut plan)?,
                false => plan.images.push(entry.image),
            }
        }
        for (key, entry) in self.index().steps()? {
            let age = Duration::try_from(now.duration_since(entry.run_at)).unwrap_or_default();
            match plan.layers.contains(&entry.layer) || age < UNFINISHED {
                true => self.mark_step(&entry, &mut plan)?,
                false => plan.steps.push(key),
            }
        }
        Ok(plan)
    }

    fn mark_image(&self, entry: &ImageEntry, plan: &mut Plan) -> Result<(), StoreError> {
        plan.suites.extend(entry.suites.iter().chain([&entry.suite]).map(|suite| suite.0.hex().into()));
        self.mark_tree(&entry.tree, plan)?;
        self.mark_stream(&objects::manifest_stream(&entry.image.0), plan)?;
        for report in self.statement_digests(&entry.image)? {
            self.mark_stream(&objects::manifest_stream(&report), plan)?;
        }
        Ok(())
    }

    fn mark_step(&self, entry: &StepEntry, plan: &mut Plan) -> Result<(), StoreError> {
        self.mark_stream(&objects::layer_stream(&entry.layer), plan)?;
        entry.tree.iter().try_for_each(|tree| self.mark_tree(tree, plan))
    }

    fn mark_tree(&self, tree: &str, plan: &mut Plan) -> Result<(), StoreError> {
        if !plan.live.insert(objects::parse(tree)?) {
            return Ok(());
        }
        let found = self.repo().objects_for_image(tree);
        plan.live.extend(found.map_err(|e| StoreError::damaged(format!("metadata image {tree}"), format!("{e:#}")))?);
        Ok(())
    }

    fn mark_stream(&self, name: &str, plan: &mut Plan) -> Result<(), StoreError> {
        let found = self.repo().has_stream(name).doing(|| format!("look up {name}"))?;
        let object = found.ok_or_else(|| StoreError::damaged(name, "it is missing"))?;
        if let Some(layer) = name.strip_prefix("oci-layer-").and_then(|digest| digest.parse().ok()) {
            plan.layers.insert(layer);
        }
        self.mark_stream_object(name, object, plan)
    }

    fn mark_stream_object(&self, name: &str, object: Object, plan: &mut Plan) -> Result<(), StoreError> {
        if plan.live.contains(&object) {
            return Ok(());
        }
        let damaged = |e: anyhow::Error| StoreError::damaged(name, format!("{e:#}"));
        let mut stream = self.repo().open_stream("", Some(&object), None).map_err(damaged)?;
        plan.live.insert(object);
        stream.get_object_refs(|object| plan.live.extend([object.clone()])).map_err(damaged)?;
        for (name, object) in stream.into_named_refs() {
            if name.starts_with(composefs_oci::IMAGE_REF_KEY) {
                self.mark_tree(&object.to_hex(), plan)?;
                continue;
            }
            if let Ok(layer) = name.parse() {
                plan.layers.insert(layer);
            }
            self.mark_stream_object(&name, object, plan)?;
        }
        Ok(())
    }

    /// Takes away every name of what goes: the index first, then references, then streams and metadata images.
    fn forget(&self, plan: &Plan) -> Result<(), StoreError> {
        let repository = self.dir().join("composefs");
        for image in &plan.images {
            self.index().remove_image(image)?;
            remove_all(&repository.join("streams/refs/oci-referrers").join(image.to_string()))?;
            remove_all(&repository.join(format!("streams/refs/oci/kiln-{}", image.0.hex())))?;
        }
        plan.steps.iter().try_for_each(|step| self.index().remove_step(step))?;
        self.index().retain_suites(&plan.suites)?;
        for part in ["streams", "images"] {
            for path in links(&repository.join(part))? {
                let target = fs::read_link(&path).doing(|| at("read", &path))?;
                let object = Object::from_object_pathname(target.as_os_str().as_encoded_bytes());
                if !object.is_ok_and(|object| plan.live.contains(&object)) {
                    remove_all(&path)?;
                }
            }
        }
        self.forget_sources(|tree| objects::parse(tree).is_ok_and(|object| plan.live.contains(&object)));
        Ok(())
    }

    fn sweep_objects(&self, live: &HashSet<Object>, dry_run: bool) -> Result<(u64, u64), StoreError> {
        let (mut objects, mut bytes) = (0, 0);
        for first in 0..=0xff_u8 {
            let dir = self.dir().join("composefs/objects").join(format!("{first:02x}"));
            for path in entries(&dir)? {
                let name = path.file_name().unwrap_or_default().as_encoded_bytes();
                if Object::from_object_dir_and_basename(first, name).is_ok_and(|object| live.contains(&object)) {
                    continue;
                }
                objects += 1;
                bytes += fs::symlink_metadata(&path).doing(|| at("read", &path))?.len();
                if !dry_run {
                    fs::remove_file(&path).doing(|| at("remove", &path))?;
                }
            }
        }
        Ok((objects, bytes))
    }
}

pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.doing(|| at("list", dir))?,
    };
    entries.map(|entry| Ok(entry.doing(|| at("list", dir))?.path())).collect()
}

pub(super) fn links(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    Ok(entries(dir)?.into_iter().filter(|path| path.is_symlink()).collect())
}

pub(super) fn remove_all(path: &Path) -> Result<(), StoreError> {
    let removed = match path.is_symlink() || path.is_file() {
        true => fs::remove_file(path),
        false => fs::remove_dir_all(path),
    };
    match removed {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done.doing(|| at("remove", path)),
    }
}
