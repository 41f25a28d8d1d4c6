//! Servers and their volumes: who is given what, who must let go of it first, and what is done to a volume that a server has.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use kiln_model::{
    ByteSize, ServerId, VerifiedRelease, VolumeId,
    volume::{self, Filesystem, Kept, SnapshotId, Source},
};
use kiln_sys::mount;

use crate::{
    Inner, Request, berth,
    error::{Result, RuntimeError},
    inside,
    launch::{self, Staged},
    record::{HeldVolume, Record},
    server::Server,
    volume::{Held, Inside, Seen, thaw_left},
};

/// What a server's record says of the volumes it is given.
pub(crate) fn held(request: &Request) -> Vec<HeldVolume> {
    let kept = request.volumes.iter().filter_map(|attachment| match &attachment.source {
        Source::Kept(kept) => Some((&attachment.name, kept)),
        Source::Throwaway { .. } => None,
    });
    let path = |name| volume::needed(&request.manifest).find(|needed| needed.name == name).map(|needed| needed.path);
    let held = kept.filter_map(|(name, kept)| {
        Some(HeldVolume { volume: kept.volume.clone(), fence: kept.fence, path: path(name)?.to_owned() })
    });
    held.collect()
}

impl Inner {
    /// The staged server of this id; one of an older generation is removed.
    pub(crate) fn take_staged(&self, server: &ServerId, generation: u64) -> Result<Option<Staged>> {
        let mut all = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(staged) = all.remove(server) else { return Ok(None) };
        let known = staged.record.generation;
        if generation < known {
            all.insert(server.clone(), staged);
            return Err(RuntimeError::Stale { server: server.clone(), asked: generation, known });
        }
        drop(all);
        if generation == known || generation == u64::MAX {
            return Ok(Some(staged));
        }
        staged.discard(self)?;
        Ok(None)
    }

    pub(crate) fn discard_staged(&self) -> Result<()> {
        let all = std::mem::take(&mut *self.staged.lock().unwrap_or_else(PoisonError::into_inner));
        all.into_values().try_for_each(|staged| staged.discard(self))
    }

    /// Holds the volumes that are named in a request and that a server has, so that they stay mounted until the staged
    /// successor gets them. One that cannot be held is attached later as any other is.
    pub(crate) fn hold(&self, request: &Request) -> Vec<Held> {
        let hold = |source: &Source| {
            let Source::Kept(kept) = source else { return None };
            let holder = self.holder_of(&kept.volume)?;
            let held = self.volumes.hold(&kept.volume);
            let held = held.inspect_err(|error| tracing::info!(volume = %kept.volume, %error, "not held"));
            // Of whoever is gone by now the file system may not be what was mounted.
            held.ok()?.filter(|_| matches!(holder.alive(), Ok(Some(_))))
        };
        request.volumes.iter().filter_map(|attachment| hold(&attachment.source)).collect()
    }

    /// The living server that has a volume.
    fn holder_of(&self, volume: &VolumeId) -> Option<Arc<Server>> {
        let has = |server: &&Arc<Server>| server.record.volumes.iter().any(|held| held.volume == *volume);
        let servers = self.servers();
        servers.values().filter(has).find(|server| matches!(server.alive(), Ok(Some(_)))).cloned()
    }

    /// Whether a staged server holds a volume.
    fn is_held(&self, volume: &VolumeId) -> bool {
        let all = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().flat_map(|staged| &staged.held).any(|held| held.volume == *volume)
    }

    /// Mounts of the volumes that a server is given, in the order of the request, with its owners.
    pub(crate) fn give(&self, request: &Request, users: &OwnedFd, mut held: Vec<Held>) -> Result<Vec<OwnedFd>> {
        let mut give = |source: &Source| -> Result<OwnedFd> {
            let mount = match source {
                Source::Kept(kept) => {
                    self.end_older(kept, &request.server)?;
                    self.let_go(&kept.volume);
                    let held = held.extract_if(.., |held| held.volume == kept.volume).next();
                    let taken = held.map(|held| self.volumes.take_held(held, kept, &request.server)).transpose()?;
                    match taken.flatten() {
                        Some(mount) => mount,
                        None => self.volumes.attach(kept, &request.server)?,
                    }
                }
                Source::Throwaway { from, size, filesystem } => {
                    self.volumes.throwaway(from.as_ref(), *size, *filesystem)?
                }
            };
            mount::map_owners(mount.as_fd(), users.as_fd())?;
            Ok(mount)
        };
        request.volumes.iter().map(|attachment| give(&attachment.source)).collect()
    }

    /// What other staged servers hold of a volume is not theirs to get any more.
    fn let_go(&self, volume: &VolumeId) {
        let mut all = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        all.values_mut().for_each(|staged| staged.held.retain(|held| held.volume != *volume));
    }

    /// Ends servers that were given a volume with an older number: they have no right to it any more.
    fn end_older(&self, kept: &Kept, server: &ServerId) -> Result<()> {
        let older = |record: &Record| {
            let has = record.volumes.iter().any(|held| held.volume == kept.volume && held.fence < kept.fence);
            has && record.server != *server
        };
        let holders: Vec<_> = self.servers().values().filter(|other| older(&other.record)).cloned().collect();
        for holder in holders {
            if let Some(process) = holder.alive()? {
                tracing::warn!(server = %holder.record.server, volume = %kept.volume, "ending a server whose volume went to another");
                berth::end(process.as_fd(), &holder.group)?;
            }
        }
        Ok(())
    }

    /// Waits until the volumes of a server whose PID 1 is gone are free. One that went to another server, or that a staged
    /// one holds, is not waited for.
    pub(crate) fn wait_until_released(&self, record: &Record) -> Result<()> {
        for held in &record.volumes {
            let newer = |other: &Record| other.volumes.iter().any(|o| o.volume == held.volume && o.fence > held.fence);
            let went = self.is_held(&held.volume) || self.servers().values().any(|server| newer(&server.record));
            if !went {
                self.volumes.wait_until_free(&held.volume)?;
            }
        }
        Ok(())
    }

    /// A directory of a volume, as the server that has it sees it, or of what is held for the next one; none if nobody has it.
    fn inside_of(&self, volume: &VolumeId) -> Result<Option<Inside>> {
        let servers: Vec<_> = self.servers().values().cloned().collect();
        for server in servers {
            let held = server.record.volumes.iter().find(|held| held.volume == *volume);
            if let Some(held) = held
                && server.alive()?.is_some()
            {
                let opened = inside::open_directory(&server, &held.path);
                // One that ended meanwhile has let go of it.
                if server.alive()?.is_some() {
                    return opened.map(|fd| fd.map(Inside));
                }
            }
        }
        let staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        let held = staged.values().flat_map(|staged| &staged.held).find(|held| held.volume == *volume);
        Ok(held.map(Held::open).transpose()?)
    }
}

/// The volumes of a host.
#[derive(Debug, Clone, Copy)]
pub struct VolumesOf<'a>(pub(crate) &'a Inner);

impl VolumesOf<'_> {
    /// Makes a server up to the point where it needs its volumes. A repeated call is a success.
    pub fn stage(&self, release: &VerifiedRelease, request: &Request) -> Result<()> {
        let lock = self.0.lock_of(&request.server);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let staged = match self.0.take_staged(&request.server, request.generation)? {
            Some(staged) => staged,
            None => launch::stage(self.0, release, request)?,
        };
        self.0.staged.lock().unwrap_or_else(PoisonError::into_inner).insert(request.server.clone(), staged);
        Ok(())
    }

    /// Makes an empty volume. One that is there is a success.
    pub fn create(&self, volume: &VolumeId, size: ByteSize, filesystem: Filesystem) -> Result<()> {
        Ok(self.0.volumes.create(volume, size, filesystem)?)
    }

    /// Takes a snapshot. One of this name that is there is a success.
    pub fn snapshot(&self, snapshot: &SnapshotId) -> Result<()> {
        let inside = self.0.inside_of(&snapshot.volume)?;
        Ok(self.0.volumes.snapshot(snapshot, inside.as_ref())?)
    }

    /// Makes a volume from a snapshot. One that is there is a success.
    pub fn clone_of(&self, from: &SnapshotId, volume: &VolumeId) -> Result<()> {
        Ok(self.0.volumes.clone_of(from, volume)?)
    }

    /// Makes a volume larger.
    pub fn grow(&self, volume: &VolumeId, size: ByteSize) -> Result<()> {
        let inside = self.0.inside_of(volume)?;
        Ok(self.0.volumes.grow(volume, size, inside.map(|inside| inside.0))?)
    }

    /// Removes a volume and its snapshots. One that a server has is refused, one that is not there is a success.
    pub fn remove(&self, volume: &VolumeId) -> Result<()> {
        Ok(self.0.volumes.remove(volume)?)
    }

    /// Removes a snapshot. One that is not there is a success.
    pub fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<()> {
        Ok(self.0.volumes.remove_snapshot(snapshot)?)
    }

    /// Writes a snapshot to a file, compressed and with its checksum.
    pub fn export(&self, snapshot: &SnapshotId, file: &Path) -> Result<()> {
        Ok(self.0.volumes.export(snapshot, file)?)
    }

    /// Makes a volume from such a file.
    pub fn import(&self, file: &Path, volume: &VolumeId) -> Result<()> {
        Ok(self.0.volumes.import(file, volume)?)
    }

    /// Every volume that is there.
    pub fn list(&self) -> Result<Vec<Seen>> {
        Ok(self.0.volumes.list()?)
    }

    /// Bytes that are free in the pool, and bytes that it has.
    pub fn space(&self) -> Result<(u64, u64)> {
        Ok(self.0.volumes.space()?)
    }

    /// The block device of the pool, where it has one.
    pub fn device(&self) -> Option<PathBuf> {
        self.0.volumes.device()
    }

    /// Thaws what a process that was killed may have left frozen.
    pub(crate) fn thaw_left(&self) {
        let servers: Vec<_> = self.0.servers().values().cloned().collect();
        for held in servers.iter().flat_map(|server| &server.record.volumes) {
            let inside = self.0.inside_of(&held.volume);
            let thawed = inside.and_then(|inside| Ok(inside.map(|inside| thaw_left(&inside)).transpose()?));
            if let Err(error) = thawed {
                // Of a server that is just ending nothing is left to be opened, and nothing frozen.
                tracing::info!(volume = %held.volume, error = &error as &dyn std::error::Error, "not looked at");
            }
        }
    }
}
