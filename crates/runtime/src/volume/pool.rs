//! The pool: a directory whose file system shares content between files.
//!
//! Where the state directory's own file system does that, the pool is its `volumes` directory. Elsewhere the pool is an XFS in
//! a sparse file there. Its mount is a descriptor of this process and is seen nowhere on the host. The file is locked by
//! the loop device over it: a process that comes later finds that device and mounts the same file system again, so it
//! is never under two devices.

use std::{
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use kiln_model::ByteSize;
use kiln_sys::{
    loop_device::{self, LoopDevice},
    mount::{self, Attributes, Setting},
    reflink, resize,
};
use rustix::fs::{Mode, OFlags, openat};

use super::{
    error::{OnFile as _, Result, VolumeError},
    format,
};

/// A new pool has so many bytes, none of which take room before they are written.
const FIRST_SIZE: u64 = 16 << 30;
/// Nothing new is begun where the pool or the disk under it has less: what runs needs it more.
const RESERVE: u64 = 64 << 20;
const BLOCK: u64 = 4096;
/// Another process may just be letting go of the pool's device.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// The pool, open.
#[derive(Debug)]
pub(super) struct Pool {
    root: OwnedFd,
    /// The directory of the state directory that it is in.
    under: PathBuf,
    own: Option<Own>,
}

/// A file system of its own.
#[derive(Debug)]
struct Own {
    file: File,
    device: LoopDevice,
    /// Keeps the file system mounted.
    _mount: OwnedFd,
    growing: Mutex<()>,
}

impl Pool {
    /// Opens the pool in this directory, and makes it if it is not there.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        make_private(directory)?;
        let file = directory.join("pool.xfs");
        let root = open_directory(directory)?;
        if !file.exists() && can_share(directory)? {
            return Ok(Self { root, under: directory.to_owned(), own: None });
        }
        let own = Own::open(&file)?;
        let root = openat(&own._mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .on("open", &file)?;
        Ok(Self { root, under: directory.to_owned(), own: Some(own) })
    }

    /// A path in the pool, for this process.
    pub(super) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.root.as_raw_fd())).join(name)
    }

    /// Fails where there is too little left to begin something new.
    pub(super) fn room(&self, action: &'static str) -> Result<()> {
        let of_disk = rustix::fs::statvfs(&self.under).on("look at", &self.under)?;
        let of_pool = rustix::fs::fstatvfs(&self.root).on("look at", &self.under)?;
        let free = |at: &rustix::fs::StatVfs| at.f_bavail * at.f_frsize;
        let free = free(&of_disk).min(free(&of_pool));
        if free < RESERVE { Err(VolumeError::NoRoom { action, free: ByteSize::bytes(free) }) } else { Ok(()) }
    }

    /// Bytes that are free and bytes there are.
    pub(super) fn space(&self) -> Result<(u64, u64)> {
        let of_disk = rustix::fs::statvfs(&self.under).on("look at", &self.under)?;
        let of_pool = rustix::fs::fstatvfs(&self.root).on("look at", &self.under)?;
        let free = (of_disk.f_bavail * of_disk.f_frsize).min(of_pool.f_bavail * of_pool.f_frsize);
        Ok((free, of_pool.f_blocks * of_pool.f_frsize))
    }

    /// Grows a pool of its own so that volumes of this many bytes, and as much of snapshots, could be written in full.
    pub(super) fn fit(&self, volumes: u64) -> Result<()> {
        let Some(own) = &self.own else { return Ok(()) };
        let _one = own.growing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let has = own.file.metadata().on("look at", "pool.xfs")?.len();
        let wanted = FIRST_SIZE.saturating_add(volumes.saturating_mul(2)).next_multiple_of(1 << 30);
        if wanted <= has {
            return Ok(());
        }
        own.file.set_len(wanted).on("grow", "pool.xfs")?;
        own.device.take_size()?;
        Ok(resize::xfs(self.root.as_fd(), wanted / BLOCK)?)
    }

    /// What a pool of its own is made of, for the inventory of the host.
    pub(super) fn device(&self) -> Option<PathBuf> {
        self.own.as_ref().map(|own| own.device.path())
    }
}

impl Own {
    fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            make(path)?;
        }
        let file = File::options().read(true).write(true).open(path).on("open", path)?;
        let device = Self::device(&file)?;
        let source = device.path().display().to_string();
        // What is removed from the pool is given back to the disk under it.
        let settings = [Setting::Text("source", &source), Setting::Flag("discard")];
        let mount = mount::create("xfs", &settings, Attributes::NO_SUID | Attributes::NO_DEVICES)?;
        Ok(Self { file, device, _mount: mount, growing: Mutex::new(()) })
    }

    /// The device over the file: a new one, or that of a process before whose servers still use the pool.
    fn device(file: &File) -> Result<LoopDevice> {
        for _ in 0..TRIES {
            let free = loop_device::lock(file)?;
            let found = if free { Some(LoopDevice::attach(file)?) } else { LoopDevice::find(file)? };
            if let Some(device) = found {
                return Ok(device);
            }
            std::thread::sleep(PAUSE);
        }
        Err(VolumeError::File {
            action: "use",
            path: "pool.xfs".into(),
            source: std::io::ErrorKind::ResourceBusy.into(),
        })
    }
}

/// Made under another name: a pool that is there is whole.
fn make(path: &Path) -> Result<()> {
    let new = path.with_extension("new");
    let file = File::options().create(true).truncate(true).read(true).write(true).open(&new).on("make", &new)?;
    file.set_len(FIRST_SIZE).on("make", &new)?;
    format::xfs(&file, "make the pool of the volumes")?;
    file.sync_all().on("write", &new)?;
    std::fs::rename(&new, path).on("put in place", path)
}

/// Whether files of this directory can share content.
fn can_share(directory: &Path) -> Result<bool> {
    let unnamed = || {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR).map(File::from)
    };
    // A file system without files that have no name does not share content either.
    let (Ok(from), Ok(to)) = (unnamed(), unnamed()) else { return Ok(false) };
    std::os::unix::fs::FileExt::write_all_at(&from, &[1; 4096], 0).on("write", directory)?;
    Ok(reflink::share(&from, &to).is_ok())
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).on("open", path)
}

pub(super) fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).on("make the directory", path)
}
