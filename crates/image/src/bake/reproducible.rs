//! Baking twice and comparing: the same recipe and lock must give the same layers.
//!
//! Both bakes run every step. The second one has another directory whose files were made in another order, another
//! host name, another umask, and a later clock. Layers are compared by digest; of the first step whose layers differ,
//! the first path that differs is named, and how. Neither bake leaves an image or a known step.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use composefs::tree::{LeafContent, RegularFile, Stat};
use composefs_oci::tar::TarItem;
use kiln_model::{
    Digest,
    lock::wanted,
    oci::OciSource,
    recipe::{Base, ContainerfileBase, StepKind, deb_file},
};

use super::{BakeError, BakeEvent, BakeRequest, Events, Manner, chain::Chain, lock};
use crate::{
    sandbox::Sandbox,
    store::{
        Store, StoreError, WorkError,
        objects::{self, Object},
    },
};

/// The clock moves on by at least this much between the bakes: times are kept in seconds.
const LATER: Duration = Duration::from_millis(1100);

/// Whether two bakes gave the same layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reproducibility {
    /// So many layers, the same both times.
    Same {
        /// How many.
        layers: usize,
    },
    /// The first difference.
    Different(Difference),
}

/// The first path that differs between two bakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The step.
    pub step: String,
    /// The path in the image.
    pub path: PathBuf,
    /// How it differs.
    pub how: How,
}

/// How a path differs between two bakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// Only one bake has it.
    Existence,
    /// A file and a directory, for example.
    Kind,
    /// What the file holds, or where the link leads.
    Content,
    /// Permission bits.
    Mode(u32, u32),
    /// User and group.
    Owner((u32, u32), (u32, u32)),
    /// Modification time, seconds since 1970.
    Time(i64, i64),
    /// Extended attributes.
    Attributes,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Existence => write!(f, "only one bake has it"),
            Self::Kind => write!(f, "it is of another kind"),
            Self::Content => write!(f, "its content differs"),
            Self::Mode(a, b) => write!(f, "its mode is {a:04o} and {b:04o}"),
            Self::Owner(a, b) => write!(f, "its owner is {}:{} and {}:{}", a.0, a.1, b.0, b.1),
            Self::Time(a, b) => write!(f, "its time is {a} and {b}"),
            Self::Attributes => write!(f, "its extended attributes differ"),
        }
    }
}

/// Bakes twice and compares.
pub fn check_reproducible(
    request: &BakeRequest<'_>,
    store: &Store,
    sandbox: &dyn Sandbox,
    events: Events<'_>,
) -> Result<Reproducibility, BakeError> {
    let _writing = store.writing()?;
    let first = layers(request, store, sandbox, events, Manner { remember: false, ..Manner::USUAL })?;
    std::thread::sleep(LATER);
    let copy = Copy::make(request).map_err(|source| WorkError::new("copy the recipe's files", source))?;
    (events)(BakeEvent::Warning("baking again, to compare".into()));
    let again = BakeRequest { directory: copy.0.path(), ..*request };
    let second = {
        let _umask = Umask::set(0o077);
        layers(&again, store, sandbox, events, Manner { hostname: "another-host", remember: false })?
    };
    for ((step, a), (_, b)) in first.iter().zip(&second) {
        if a != b {
            return Ok(Reproducibility::Different(difference(store, step, a, b)?));
        }
    }
    Ok(Reproducibility::Same { layers: first.len() })
}

/// Every step's name and layer.
fn layers(
    request: &BakeRequest<'_>,
    store: &Store,
    sandbox: &dyn Sandbox,
    events: Events<'_>,
    manner: Manner,
) -> Result<Vec<(String, Digest)>, BakeError> {
    let request = BakeRequest { fresh: true, ..*request };
    let mut chain = Chain::start(&request, store, sandbox, events, manner)?;
    chain.all_steps()?;
    chain.into_layers()
}

struct Umask(rustix::fs::Mode);

impl Umask {
    fn set(mask: u32) -> Self {
        Self(rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask)))
    }
}
impl Drop for Umask {
    fn drop(&mut self) {
        rustix::process::umask(self.0);
    }
}

/// What the recipe reads, copied to another directory in reverse order.
struct Copy(tempfile::TempDir);

impl Copy {
    fn make(request: &BakeRequest<'_>) -> io::Result<Self> {
        let copy = Self(tempfile::Builder::new().prefix("kiln-again-").tempdir()?);
        let sources = request.recipe.steps.iter().flat_map(|step| match &step.kind {
            StepKind::Copy { from, .. } => vec![from.as_str()],
            StepKind::Provision(what) => what.tool.inputs(),
            _ => Vec::new(),
        });
        let base = match &request.recipe.base {
            Base::Debian(_) | Base::Image(_) => Vec::new(),
            Base::Oci(base) => on_disk(&base.source).into_iter().collect(),
            Base::Containerfile(base) => of_containerfile(base),
        };
        let packages = wanted(request.recipe).into_iter().flatten().filter_map(|wanted| deb_file(wanted));
        let archives = &request.recipe.sources;
        let keys = archives.keyring.iter().chain(archives.repositories.iter().map(|repository| &repository.key));
        let read = sources.chain(packages).chain(keys.map(String::as_str));
        for path in read.chain(base.iter().map(String::as_str)).chain([lock::FILE]) {
            let (from, to) = (request.directory.join(path), copy.0.path().join(path));
            if !from.exists() {
                continue;
            }
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            copy_in_reverse(&from, &to)?;
        }
        Ok(copy)
    }
}

/// The context with the Containerfile's own ignore file, secrets, and images that lie beside the recipe.
fn of_containerfile(base: &ContainerfileBase) -> Vec<String> {
    let own = [base.context.clone(), format!("{}.dockerignore", base.path)];
    let images = base.plan.images().into_iter().filter_map(|source| on_disk(&source));
    own.into_iter().chain(base.secrets.values().cloned()).chain(images).collect()
}

fn on_disk(source: &OciSource) -> Option<String> {
    match source {
        OciSource::Layout(place) | OciSource::Archive(place) => Some(place.path.clone()),
        OciSource::Registry(_) => None,
    }
}

fn copy_in_reverse(from: &Path, to: &Path) -> io::Result<()> {
    let stat = fs::symlink_metadata(from)?;
    if stat.is_symlink() {
        return match fs::symlink_metadata(to) {
            Ok(_) => Ok(()),
            Err(_) => std::os::unix::fs::symlink(fs::read_link(from)?, to),
        };
    }
    if stat.is_dir() {
        fs::create_dir_all(to)?;
        let mut names: Vec<OsString> =
            fs::read_dir(from)?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
        names.sort();
        names.iter().rev().try_for_each(|name| copy_in_reverse(&from.join(name), &to.join(name)))?;
        // A Containerfile's `COPY` keeps the modes of directories.
        return fs::set_permissions(to, stat.permissions());
    }
    fs::copy(from, to).map(drop)
}

/// What a layer says of a path, in a form that can be compared.
struct Seen {
    stat: Stat,
    item: TarItem<Object>,
}

fn difference(store: &Store, step: &str, a: &Digest, b: &Digest) -> Result<Difference, BakeError> {
    let (a, b) = (entries(store, a)?, entries(store, b)?);
    let paths = a.keys().chain(b.keys());
    let mut found: Vec<_> = paths.filter_map(|path| Some((path.clone(), how(a.get(path), b.get(path))?))).collect();
    found.sort_by(|x, y| x.0.cmp(&y.0));
    // Layers of other digests with the same entries differ in their order, which sorting rules out.
    let (path, how) = found.into_iter().next().unwrap_or((PathBuf::from("/"), How::Kind));
    Ok(Difference { step: step.to_owned(), path, how })
}

fn entries(store: &Store, layer: &Digest) -> Result<BTreeMap<PathBuf, Seen>, StoreError> {
    let name = objects::layer_stream(layer);
    let damaged = |e: anyhow::Error| StoreError::damaged(&name, format!("{e:#}"));
    let mut stream = store.repo().open_stream(&name, None, Some(objects::LAYER_STREAM)).map_err(damaged)?;
    let mut found = BTreeMap::new();
    while let Some(entry) = composefs_oci::tar::get_entry(&mut stream).map_err(damaged)? {
        found.insert(entry.path, Seen { stat: entry.stat, item: entry.item });
    }
    Ok(found)
}

fn how(a: Option<&Seen>, b: Option<&Seen>) -> Option<How> {
    let (Some(a), Some(b)) = (a, b) else { return Some(How::Existence) };
    let (x, y) = (&a.stat, &b.stat);
    if let Some(how) = item(&a.item, &b.item) {
        return Some(how);
    }
    if x.st_mode != y.st_mode {
        return Some(How::Mode(x.st_mode, y.st_mode));
    }
    if (x.st_uid, x.st_gid) != (y.st_uid, y.st_gid) {
        return Some(How::Owner((x.st_uid, x.st_gid), (y.st_uid, y.st_gid)));
    }
    if x.xattrs != y.xattrs {
        return Some(How::Attributes);
    }
    (x.st_mtim_sec != y.st_mtim_sec).then_some(How::Time(x.st_mtim_sec, y.st_mtim_sec))
}

fn item(a: &TarItem<Object>, b: &TarItem<Object>) -> Option<How> {
    let same = match (a, b) {
        (TarItem::Directory, TarItem::Directory) => true,
        (TarItem::Hardlink(a), TarItem::Hardlink(b)) => a == b,
        (TarItem::Leaf(LeafContent::Regular(a)), TarItem::Leaf(LeafContent::Regular(b))) => same_file(a, b),
        (TarItem::Leaf(LeafContent::Symlink(a)), TarItem::Leaf(LeafContent::Symlink(b))) => a == b,
        (TarItem::Leaf(LeafContent::Fifo), TarItem::Leaf(LeafContent::Fifo)) => true,
        _ => return Some(How::Kind),
    };
    (!same).then_some(How::Content)
}

fn same_file(a: &RegularFile<Object>, b: &RegularFile<Object>) -> bool {
    match (a, b) {
        (RegularFile::Inline(a), RegularFile::Inline(b)) => a == b,
        (RegularFile::External(a, _), RegularFile::External(b, _)) => a == b,
        _ => false,
    }
}
