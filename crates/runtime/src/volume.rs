//! Volumes on this host: images of file systems in a pool, attached to servers.
//!
//! A volume is a directory of the pool with its *image*, its *state* and its snapshots, all of them files that share content. An image
//! is made from a formatted template by sharing, locked, put under a loop device, and mounted as a descriptor, which goes
//! into one server's mount namespace and, while its successor is staged, to that. Nothing has to be detached: when the server's PID 1 is gone, so
//! is its namespace, the mount in it, the device under that, and the lock. Whoever asks is never asked for help.
//!
//! What keeps a volume from having two servers:
//!
//! - the lock on the image, which is held by the loop device itself, whatever becomes of the process that made it;
//! - the *fence* in the state, a number that grows with each attachment: whoever comes with an older one is refused, and a
//!   server that was attached with an older one is killed before a newer one is attached.
//!
//! A server under test gets a volume without a name, of which nothing is left when it ends.

mod attach;
mod error;
mod format;
mod held;
mod pool;
mod snapshot;
mod state;
mod stream;
mod superblock;

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use kiln_model::{
    ByteSize,
    id::SnapshotName,
    volume::{Filesystem, SnapshotId, VolumeId},
};
use kiln_sys::{
    loop_device::{self, LoopDevice},
    mount::{self, Attributes, Setting},
    reflink,
};

pub use error::VolumeError;
use error::{OnFile as _, Result};
pub(crate) use held::Held;
use pool::{Pool, make_private};
pub use snapshot::Inside;
pub(crate) use snapshot::thaw_left;
use state::State;

/// The volumes of one state directory.
#[derive(Debug)]
pub(crate) struct Volumes {
    directory: PathBuf,
    pool: Mutex<Option<Arc<Pool>>>,
    /// One lock per volume: what is done to one volume is done in turn.
    locks: Mutex<BTreeMap<VolumeId, Arc<Mutex<()>>>>,
}

/// What there is of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The volume.
    pub volume: VolumeId,
    /// Its size.
    pub size: ByteSize,
    /// What it takes in the pool, shared content counted in full.
    pub used: ByteSize,
    /// Its file system.
    pub filesystem: Filesystem,
    /// The number of its latest attachment.
    pub fence: u64,
    /// Its snapshots.
    pub snapshots: Vec<SnapshotName>,
}

impl Volumes {
    /// Of a state directory. Nothing is made or opened before it is needed.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { directory: state_dir.join("volumes"), pool: Mutex::default(), locks: Mutex::default() }
    }

    fn pool(&self) -> Result<Arc<Pool>> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = &*pool {
            return Ok(Arc::clone(pool));
        }
        let opened = Arc::new(Pool::open(&self.directory)?);
        for name in ["templates", "volumes"] {
            make_private(&opened.path(name))?;
        }
        Ok(Arc::clone(pool.insert(opened)))
    }

    /// The block device of the pool, where it has one of its own and is open.
    pub(crate) fn device(&self) -> Option<PathBuf> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.device()
    }

    /// Bytes that are free in the pool, and bytes that it has.
    pub(crate) fn space(&self) -> Result<(u64, u64)> {
        self.pool()?.space()
    }

    /// Lets go of the pool. Files of it that servers use stay open.
    pub(crate) fn close(&self) {
        *self.pool.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn lock_of(&self, volume: &VolumeId) -> Arc<Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(volume.clone()).or_default())
    }

    fn place(&self, volume: &VolumeId) -> Result<Place> {
        let pool = self.pool()?;
        let directory = pool.path("volumes").join(volume.as_str());
        Ok(Place { pool, directory, volume: volume.clone() })
    }

    fn existing(&self, volume: &VolumeId) -> Result<Place> {
        let place = self.place(volume)?;
        if place.image().exists() { Ok(place) } else { Err(VolumeError::Unknown(volume.clone())) }
    }

    /// Makes an empty volume. One that is there is a success.
    pub(crate) fn create(&self, volume: &VolumeId, size: ByteSize, filesystem: Filesystem) -> Result<()> {
        let lock = self.lock_of(volume);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.place(volume)?;
        if place.image().exists() {
            return Ok(());
        }
        place.pool.room("make a volume")?;
        self.fit(&place.pool, size)?;
        let template = template(&place.pool, whole(size), filesystem)?;
        place.begin(filesystem, &template)
    }

    /// Makes a volume from a snapshot: it shares the content until either is written. One that is there is a success.
    pub(crate) fn clone_of(&self, from: &SnapshotId, volume: &VolumeId) -> Result<()> {
        let lock = self.lock_of(volume);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let (source, place) = (self.existing(&from.volume)?, self.place(volume)?);
        if place.image().exists() {
            return Ok(());
        }
        place.pool.room("make a volume")?;
        let snapshot = source.open_snapshot(&from.name)?;
        self.fit(&place.pool, ByteSize::bytes(snapshot.metadata().on("look at", from.to_string())?.len()))?;
        place.begin(source.state()?.filesystem, &snapshot)
    }

    /// Makes room for a volume of this size beside those that are there.
    fn fit(&self, pool: &Pool, size: ByteSize) -> Result<()> {
        let all: u64 = self.list_in(pool)?.iter().map(|seen| seen.size.as_bytes()).sum();
        pool.fit(all + size.as_bytes())
    }

    /// Every volume. None where there is no pool yet.
    pub(crate) fn list(&self) -> Result<Vec<Seen>> {
        if !self.directory.exists() {
            return Ok(Vec::new());
        }
        self.list_in(&*self.pool()?)
    }

    fn list_in(&self, pool: &Pool) -> Result<Vec<Seen>> {
        let directory = pool.path("volumes");
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&directory).on("list", "volumes")? {
            let name = entry.on("list", "volumes")?.file_name();
            let Some(volume) = name.to_str().and_then(|name| name.parse::<VolumeId>().ok()) else { continue };
            let place = self.place(&volume)?;
            // One that is just being made or removed is none.
            if let (Ok(image), Ok(state)) = (std::fs::metadata(place.image()), place.state()) {
                all.push(place.seen(&image, &state)?);
            }
        }
        all.sort_by(|a, b| a.volume.cmp(&b.volume));
        Ok(all)
    }

    /// Removes a volume and its snapshots. One that is attached is refused; one that is not there is a success.
    pub(crate) fn remove(&self, volume: &VolumeId) -> Result<()> {
        let lock = self.lock_of(volume);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.place(volume)?;
        if let Ok(image) = place.open_image() {
            if !loop_device::lock(&image)? {
                return Err(VolumeError::Attached(volume.clone()));
            }
            // Without an image it is no volume any more, whatever becomes of the rest.
            std::fs::remove_file(place.image()).on("remove", place.image())?;
        }
        match std::fs::remove_dir_all(&place.directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.on("remove", volume.as_str()),
        }
    }

    /// Removes a snapshot. One that is not there is a success.
    pub(crate) fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<()> {
        let place = self.place(&snapshot.volume)?;
        match std::fs::remove_file(place.snapshot(&snapshot.name)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.on("remove", snapshot.to_string()),
        }
    }
}

/// Where a volume is.
#[derive(Debug)]
struct Place {
    pool: Arc<Pool>,
    directory: PathBuf,
    volume: VolumeId,
}

impl Place {
    fn image(&self) -> PathBuf {
        self.directory.join("image")
    }
    fn snapshots(&self) -> PathBuf {
        self.directory.join("snapshots")
    }
    fn snapshot(&self, name: &SnapshotName) -> PathBuf {
        self.snapshots().join(name.as_str())
    }

    fn open_image(&self) -> Result<File> {
        match File::options().read(true).write(true).open(self.image()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(VolumeError::Unknown(self.volume.clone()))
            }
            other => other.on("open", self.volume.as_str()),
        }
    }

    fn open_snapshot(&self, name: &SnapshotName) -> Result<File> {
        let path = self.snapshot(name);
        match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(VolumeError::NoSnapshot(SnapshotId { volume: self.volume.clone(), name: name.clone() }))
            }
            other => other.on("open", name.as_str()),
        }
    }

    fn state(&self) -> Result<State> {
        State::read(&self.directory)
    }

    /// Makes the directory and, last, the image in it.
    fn begin(&self, filesystem: Filesystem, content: &File) -> Result<()> {
        make_private(&self.directory)?;
        make_private(&self.snapshots())?;
        State::new(filesystem).write(&self.directory)?;
        let new = self.directory.join("image.new");
        copy_of(content, &new)?;
        std::fs::rename(&new, self.image()).on("put in place", self.volume.as_str())
    }

    fn seen(&self, image: &std::fs::Metadata, state: &State) -> Result<Seen> {
        let entries = std::fs::read_dir(self.snapshots()).on("list", self.volume.as_str())?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut snapshots: Vec<SnapshotName> = names.collect();
        snapshots.sort();
        Ok(Seen {
            volume: self.volume.clone(),
            size: ByteSize::bytes(image.len()),
            used: ByteSize::bytes(std::os::unix::fs::MetadataExt::blocks(image) * 512),
            filesystem: state.filesystem,
            fence: state.fence,
            snapshots,
        })
    }
}

/// A file of its own that shares the content of another.
fn copy_of(content: &File, path: &Path) -> Result<File> {
    let file = File::options().create(true).truncate(true).read(true).write(true).open(path).on("make", path)?;
    reflink::share(content, &file)?;
    Ok(file)
}

/// Devices have whole blocks; a mebibyte is one of everything.
fn whole(size: ByteSize) -> ByteSize {
    ByteSize::bytes(size.as_bytes().next_multiple_of(1 << 20))
}

/// A formatted file of this size, made once.
fn template(pool: &Pool, size: ByteSize, filesystem: Filesystem) -> Result<File> {
    let path = pool.path("templates").join(format!("{}-{}", filesystem.word(), size.as_bytes()));
    if !path.exists() {
        let new = path.with_extension(format!("{:?}", std::thread::current().id()));
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&new).on("make", &new)?;
        file.set_len(size.as_bytes()).on("make", &new)?;
        match filesystem {
            Filesystem::Ext4 => format::ext4(&file, "make a volume")?,
            Filesystem::Xfs => format::xfs(&file, "make a volume")?,
        }
        emptied(&file, filesystem)?;
        std::fs::rename(&new, &path).on("put in place", &path)?;
    }
    File::open(&path).on("open", path)
}

/// Programs want an empty directory for their data: the one that is made for repairs is made again when it is needed.
fn emptied(file: &File, filesystem: Filesystem) -> Result<()> {
    if filesystem == Filesystem::Ext4 {
        let mount = mounted(&LoopDevice::attach(file)?, filesystem)?;
        rustix::fs::unlinkat(&mount, "lost+found", rustix::fs::AtFlags::REMOVEDIR).on("empty", "a template")?;
    }
    Ok(())
}

/// Mounts the file system on a device; the mount alone holds the device when its descriptor is closed.
fn mounted(device: &LoopDevice, filesystem: Filesystem) -> Result<OwnedFd> {
    let source = device.path().display().to_string();
    let own = match filesystem {
        // A file system that finds itself damaged is not written to any more.
        Filesystem::Ext4 => Setting::Text("errors", "remount-ro"),
        // Clones have the identity of what they were made from.
        Filesystem::Xfs => Setting::Flag("nouuid"),
    };
    let settings = [Setting::Text("source", &source), own];
    Ok(mount::create(filesystem.word(), &settings, Attributes::NO_SUID | Attributes::NO_DEVICES)?)
}
