//! Giving a volume to a server.

use std::{
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    sync::PoisonError,
    time::{Duration, Instant},
};

use kiln_model::{
    ByteSize, ServerId,
    volume::{Filesystem, Kept, Restore, SnapshotId, VolumeId},
};
use kiln_sys::{
    Outcome,
    loop_device::{self, LoopDevice},
    resize,
};
use rustix::fs::{Mode, OFlags, openat};

use super::{
    Place, Volumes, copy_of,
    error::{OnFile as _, Result, VolumeError},
    format, mounted,
    state::State,
    superblock::{self, Left},
    template, whole,
};

/// Whoever had it is gone already: the kernel takes the mount down within this time.
pub(crate) const RELEASED_WITHIN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_micros(500);
const BLOCK: u64 = 4096;
/// What mkfs leaves at the end of an image because it is no whole group of blocks.
const SLACK: u64 = 16 << 20;

impl Volumes {
    /// A mount of the volume for this server, detached. Until its last copy is gone nobody else gets one.
    pub(crate) fn attach(&self, kept: &Kept, server: &ServerId) -> Result<OwnedFd> {
        let lock = self.lock_of(&kept.volume);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.existing(&kept.volume)?;
        let mut state = place.state()?;
        check_fence(&state, kept, server)?;
        let image = locked(&place)?;
        (state.fence, state.holder) = (kept.fence, Some(server.clone()));
        let image = match &kept.restore {
            Some(restore) if restore.number > state.restored => put_back(&place, &mut state, restore)?,
            _ => image,
        };
        mend(&image, kept.volume.as_str())?;
        self.enlarge(&place, &image, kept.size)?;
        let smaller = is_smaller(&image)?;
        if smaller && state.filesystem == Filesystem::Ext4 {
            format::grow_ext4(&image, kept.volume.as_str())?;
        }
        // The number is on the disk before the file system can be written; the kernel makes the device meanwhile.
        let (written, device) = std::thread::scope(|scope| {
            let written = scope.spawn(|| state.write(&place.directory));
            let device = LoopDevice::attach(&image);
            (written.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), device)
        });
        written?;
        let mounted = mount(&device?, state.filesystem, &kept.volume)?;
        if smaller && state.filesystem == Filesystem::Xfs {
            grow_xfs(&mounted, &image)?;
        }
        Ok(mounted)
    }

    /// A mount of a volume that nobody else has and of which nothing is left afterwards.
    pub(crate) fn throwaway(
        &self,
        from: Option<&SnapshotId>,
        size: ByteSize,
        filesystem: Filesystem,
    ) -> Result<OwnedFd> {
        let pool = self.pool()?;
        pool.room("make a volume for a test")?;
        let (content, filesystem) = match from {
            Some(snapshot) => {
                let place = self.existing(&snapshot.volume)?;
                (place.open_snapshot(&snapshot.name)?, place.state()?.filesystem)
            }
            None => {
                self.fit(&pool, size)?;
                (template(&pool, whole(size), filesystem)?, filesystem)
            }
        };
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(pool.path("volumes"), flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(file.on("make", "a volume for a test")?);
        kiln_sys::reflink::share(&content, &file)?;
        mend(&file, "of a test")?;
        mounted(&LoopDevice::attach(&file)?, filesystem)
    }

    /// Waits until nobody has a volume any more.
    pub(crate) fn wait_until_free(&self, volume: &VolumeId) -> Result<()> {
        let place = self.place(volume)?;
        if place.image().exists() { locked(&place).map(drop) } else { Ok(()) }
    }

    /// Makes the image larger, while nobody has it.
    fn enlarge(&self, place: &Place, image: &File, size: ByteSize) -> Result<()> {
        let has = image.metadata().on("look at", place.volume.as_str())?.len();
        if size.as_bytes() <= has {
            return Ok(());
        }
        let size = whole(size);
        place.pool.room("grow a volume")?;
        self.fit(&place.pool, size)?;
        image.set_len(size.as_bytes()).on("grow", place.volume.as_str())
    }

    /// Makes a volume larger, also while a server has it: `inside` is a directory of it, as that server sees it.
    pub(crate) fn grow(&self, volume: &VolumeId, size: ByteSize, inside: Option<OwnedFd>) -> Result<()> {
        let lock = self.lock_of(volume);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.existing(volume)?;
        let image = place.open_image()?;
        let has = ByteSize::bytes(image.metadata().on("look at", volume.as_str())?.len());
        if size < has {
            return Err(VolumeError::Smaller { volume: volume.clone(), has, wanted: size });
        }
        let size = whole(size);
        self.enlarge(&place, &image, size)?;
        let Some(inside) = inside else { return Ok(()) };
        let device = LoopDevice::find(&image)?.ok_or_else(|| VolumeError::Unknown(volume.clone()))?;
        device.take_size()?;
        resize_to(&inside, size.as_bytes(), place.state()?.filesystem, volume)
    }
}

pub(super) fn check_fence(state: &State, kept: &Kept, server: &ServerId) -> Result<()> {
    let same = state.fence == kept.fence && state.holder.as_ref() == Some(server);
    if state.fence < kept.fence || same {
        return Ok(());
    }
    Err(VolumeError::Fenced {
        volume: kept.volume.clone(),
        asked: kept.fence,
        known: state.fence,
        holder: state.holder.clone().unwrap_or_else(|| server.clone()),
    })
}

/// The image, locked. A server that has just ended may still be being taken down.
fn locked(place: &Place) -> Result<File> {
    let begun = Instant::now();
    loop {
        let image = place.open_image()?;
        if loop_device::lock(&image)? {
            return Ok(image);
        }
        if begun.elapsed() > RELEASED_WITHIN {
            return Err(VolumeError::NotReleased { volume: place.volume.clone(), waited: RELEASED_WITHIN });
        }
        std::thread::sleep(PAUSE);
    }
}

/// Puts a volume back to a snapshot; what it was is kept as another one. Carried out once for each number.
fn put_back(place: &Place, state: &mut State, restore: &Restore) -> Result<File> {
    let snapshot = place.open_snapshot(&restore.snapshot)?;
    let before = place.snapshots().join(restore.before.as_str());
    if !before.exists() {
        let new = place.directory.join("before.new");
        copy_of(&place.open_image()?, &new)?;
        std::fs::rename(&new, &before).on("put in place", &before)?;
    }
    let new = place.directory.join("image.new");
    let file = copy_of(&snapshot, &new)?;
    // Nobody else can have the lock of a file that has no name yet.
    loop_device::lock(&file)?;
    file.sync_all().on("write", &new)?;
    std::fs::rename(&new, place.image()).on("put in place", place.image())?;
    state.restored = restore.number;
    state.write(&place.directory)?;
    Ok(file)
}

/// Checks a file system that was not let go of in order.
fn mend(image: &File, volume: &str) -> Result<()> {
    match superblock::look(image) {
        Left::Clean(_) | Left::Unclean(Filesystem::Xfs) => Ok(()),
        Left::Unclean(Filesystem::Ext4) => {
            tracing::warn!(volume, "the volume was not detached in order: it is checked");
            format::check_ext4(image, volume)
        }
        Left::Unknown => {
            let found = "there is no file system in it".to_owned();
            Err(VolumeError::Damaged { volume: volume.to_owned(), found })
        }
    }
}

fn mount(device: &LoopDevice, filesystem: Filesystem, volume: &VolumeId) -> Result<OwnedFd> {
    mounted(device, filesystem).map_err(|error| match error {
        // EINVAL, EUCLEAN, EIO: what the file systems say of what they do not understand.
        VolumeError::Kernel(error)
            if matches!(error.outcome, Outcome::Invalid | Outcome::Errno(117) | Outcome::Errno(5)) =>
        {
            let found = format!("could not {}: {}", error.action, error.outcome);
            VolumeError::Damaged { volume: volume.to_string(), found }
        }
        other => other,
    })
}

/// A file system that is smaller than its image is grown: the volume was made larger while no server had it, or it is a
/// snapshot of a time when it was smaller.
pub(super) fn is_smaller(image: &File) -> Result<bool> {
    let size = image.metadata().on("look at", "an image")?.len();
    Ok(superblock::size(image).is_some_and(|has| has + SLACK <= size))
}

/// XFS is grown only while it is mounted.
fn grow_xfs(mount: &OwnedFd, image: &File) -> Result<()> {
    let size = image.metadata().on("look at", "an image")?.len();
    Ok(resize::xfs(opened(mount)?.as_fd(), size / BLOCK)?)
}

/// The directory at a mount, which a mount's own descriptor does not open.
pub(super) fn opened(mount: &OwnedFd) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(mount, ".", flags, Mode::empty()).on("open", "a volume")
}

fn resize_to(inside: &OwnedFd, size: u64, filesystem: Filesystem, volume: &VolumeId) -> Result<()> {
    match filesystem {
        Filesystem::Ext4 => resize::ext4(inside.as_fd(), size / BLOCK).map_err(|error| match error.outcome {
            Outcome::NotPermitted => VolumeError::Later(volume.clone()),
            _ => error.into(),
        }),
        Filesystem::Xfs => Ok(resize::xfs(inside.as_fd(), size / BLOCK)?),
    }
}
