//! A volume on its way from one server to the next without being unmounted.
//!
//! While the old server still runs, its file system is mounted once more, as a descriptor that is kept with the staged
//! successor. The kernel gives both mounts the same file system: when the old server's mount goes, its device, its lock and all
//! that was read of it stay, and the successor need not wait for an unmount and a mount. What keeps a volume from having two
//! servers is as it was: the device holds the lock, the fence is written first, and the successor gets the mount only
//! after PID 1 of whoever had it is gone, and with it every process that could write. Whoever dies meanwhile lets go: the descriptor
//! is this process's.

use std::{os::fd::OwnedFd, sync::PoisonError};

use kiln_model::{
    ServerId,
    volume::{Kept, VolumeId},
};
use kiln_sys::loop_device::LoopDevice;
use rustix::fs::StatVfsMountFlags;

use super::{
    Inside, Place, Volumes,
    attach::{check_fence, is_smaller, opened},
    error::{OnFile as _, Result},
    mounted,
    state::State,
};

/// A mount of a volume that another server has, for its successor.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) volume: VolumeId,
    mount: OwnedFd,
}

impl Held {
    /// A directory of the volume.
    pub(crate) fn open(&self) -> Result<Inside> {
        opened(&self.mount).map(Inside)
    }
}

impl Volumes {
    /// Mounts a volume's file system once more; none where no server has it. If whoever had it is gone by the time this
    /// returns, nobody has checked what was mounted, and it is to be dropped.
    pub(crate) fn hold(&self, volume: &VolumeId) -> Result<Option<Held>> {
        let lock = self.lock_of(volume);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.existing(volume)?;
        let Some(device) = LoopDevice::find(&place.open_image()?)? else { return Ok(None) };
        let mount = mounted(&device, place.state()?.filesystem)?;
        Ok(Some(Held { volume: volume.clone(), mount }))
    }

    /// Gives a held volume to a server. None if it must be attached anew for what is to be done to it first; then it is no
    /// longer held.
    pub(crate) fn take_held(&self, held: Held, kept: &Kept, server: &ServerId) -> Result<Option<OwnedFd>> {
        let lock = self.lock_of(&kept.volume);
        let _locked = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.existing(&kept.volume)?;
        let mut state = place.state()?;
        check_fence(&state, kept, server)?;
        if !is_as_wanted(&held, &place, &state, kept)? {
            return Ok(None);
        }
        (state.fence, state.holder) = (kept.fence, Some(server.clone()));
        state.write(&place.directory)?;
        Ok(Some(held.mount))
    }
}

/// Whether nothing is to be done to a volume before its next server gets it.
fn is_as_wanted(held: &Held, place: &Place, state: &State, kept: &Kept) -> Result<bool> {
    let image = place.open_image()?;
    let has = image.metadata().on("look at", kept.volume.as_str())?.len();
    let to_restore = kept.restore.as_ref().is_some_and(|restore| restore.number > state.restored);
    // A file system that found itself damaged is not written to any more.
    let flags = rustix::fs::fstatvfs(&held.mount).on("look at", kept.volume.as_str())?.f_flag;
    let sound = !flags.contains(StatVfsMountFlags::RDONLY);
    Ok(sound && !to_restore && kept.size.as_bytes() <= has && !is_smaller(&image)?)
}
