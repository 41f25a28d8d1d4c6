//! Volumes of a fake engine: what they hold is the list of the servers that had them, and no two have one at a time.

use std::{collections::BTreeMap, fs::File, io::Write as _, path::Path};

use kiln_engine::{EngineError, LaunchSpec, ObservedVolume, Phase, Volumes};
use kiln_model::{
    ByteSize, ServerId, VolumeId,
    id::SnapshotName,
    volume::{Filesystem, Kept, SnapshotId, Source},
};

use super::{Deed, FakeEngine, State};

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeVolume {
    /// Its size.
    pub size: ByteSize,
    /// The number of its latest attachment.
    pub fence: u64,
    /// Whoever it was given to last.
    holder: Option<ServerId>,
    /// Whoever had it, or what it was made from, in order.
    pub holders: Vec<ServerId>,
    /// What it held at some time.
    pub snapshots: BTreeMap<SnapshotName, Vec<ServerId>>,
    restored: u64,
}

impl FakeVolume {
    fn new(size: ByteSize, holders: Vec<ServerId>) -> Self {
        Self { size, fence: 0, holder: None, holders, snapshots: BTreeMap::new(), restored: 0 }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

fn refused(what: &str, why: impl Into<String>) -> EngineError {
    EngineError::Failed { action: what.to_owned(), source: Box::new(Refused(why.into())) }
}

impl FakeEngine {
    /// Every volume.
    pub fn kept(&self) -> BTreeMap<VolumeId, FakeVolume> {
        self.state().volumes.clone()
    }
}

impl State {
    /// Gives a server the volumes it is launched with, or refuses.
    pub(super) fn give(&mut self, spec: &LaunchSpec) -> Result<(), EngineError> {
        let kept = spec.volumes.iter().filter_map(|attachment| match &attachment.source {
            Source::Kept(kept) => Some(kept),
            Source::Throwaway { .. } => None,
        });
        kept.into_iter().try_for_each(|kept| self.give_one(kept, &spec.server))
    }

    fn give_one(&mut self, kept: &Kept, server: &ServerId) -> Result<(), EngineError> {
        let known = self.volumes.get(&kept.volume).map(|volume| volume.fence);
        let known = known.ok_or_else(|| refused("attach a volume", format!("there is no {}", kept.volume)))?;
        if kept.fence <= known {
            return Err(refused("attach a volume", format!("{} has number {known}, not {}", kept.volume, kept.fence)));
        }
        let holder = self.volumes.get(&kept.volume).and_then(|volume| volume.holder.clone());
        if let Some(holder) = holder
            && self.servers.get(&holder).is_some_and(|fake| !matches!(fake.seen.phase, Phase::Exited { .. }))
        {
            self.exit(&holder, "its volume went to another", true);
            self.deeds.push(Deed::Fenced(holder));
        }
        let volume = self.volumes.get_mut(&kept.volume).expect("it was just looked at");
        if let Some(restore) = kept.restore.as_ref().filter(|restore| restore.number > volume.restored) {
            let then = volume.snapshots.get(&restore.snapshot).cloned();
            let then = then.ok_or_else(|| refused("restore", format!("there is no {}", restore.snapshot)))?;
            volume.snapshots.insert(restore.before.clone(), std::mem::replace(&mut volume.holders, then));
            volume.restored = restore.number;
        }
        volume.fence = kept.fence;
        volume.holder = Some(server.clone());
        volume.holders.push(server.clone());
        Ok(())
    }

    fn volume(&mut self, id: &VolumeId) -> Result<&mut FakeVolume, EngineError> {
        self.volumes.get_mut(id).ok_or_else(|| refused("find a volume", format!("there is no {id}")))
    }
}

#[async_trait::async_trait]
impl Volumes for FakeEngine {
    async fn create(&self, volume: &VolumeId, size: ByteSize, _filesystem: Filesystem) -> Result<(), EngineError> {
        self.state().volumes.entry(volume.clone()).or_insert_with(|| FakeVolume::new(size, Vec::new()));
        Ok(())
    }
    async fn snapshot(&self, snapshot: &SnapshotId) -> Result<(), EngineError> {
        let mut state = self.state();
        let volume = state.volume(&snapshot.volume)?;
        let now = volume.holders.clone();
        volume.snapshots.entry(snapshot.name.clone()).or_insert(now);
        Ok(())
    }
    async fn clone_of(&self, from: &SnapshotId, volume: &VolumeId) -> Result<(), EngineError> {
        let mut state = self.state();
        let source = state.volume(&from.volume)?;
        let (size, then) = (source.size, source.snapshots.get(&from.name).cloned());
        let then = then.ok_or_else(|| refused("clone", format!("there is no {from}")))?;
        state.volumes.entry(volume.clone()).or_insert_with(|| FakeVolume::new(size, then));
        Ok(())
    }
    async fn grow(&self, volume: &VolumeId, size: ByteSize) -> Result<(), EngineError> {
        self.state().volume(volume)?.size = size;
        Ok(())
    }
    async fn remove(&self, volume: &VolumeId) -> Result<(), EngineError> {
        self.state().volumes.remove(volume);
        Ok(())
    }
    async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<(), EngineError> {
        if let Some(volume) = self.state().volumes.get_mut(&snapshot.volume) {
            volume.snapshots.remove(&snapshot.name);
        }
        Ok(())
    }
    async fn export(&self, snapshot: &SnapshotId, file: &Path) -> Result<(), EngineError> {
        let mut state = self.state();
        let volume = state.volume(&snapshot.volume)?;
        let then = volume.snapshots.get(&snapshot.name);
        let then = then.ok_or_else(|| refused("export", format!("there is no {snapshot}")))?;
        let holders = then.iter().map(|holder| format!("{holder}\n"));
        let text = format!("{}\n{}", volume.size.as_bytes(), holders.collect::<String>());
        let mut whole = File::create_new(file).map_err(|error| refused("export", error.to_string()))?;
        whole.write_all(text.as_bytes()).map_err(|error| refused("export", error.to_string()))
    }
    async fn import(&self, file: &Path, volume: &VolumeId) -> Result<(), EngineError> {
        let mut state = self.state();
        if state.volumes.contains_key(volume) {
            return Err(refused("import", format!("there is a {volume}")));
        }
        let text = std::fs::read_to_string(file).map_err(|error| refused("import", error.to_string()))?;
        let mut lines = text.lines();
        let size = lines.next().and_then(|size| size.parse().ok()).map(ByteSize::bytes);
        let holders = lines.map(str::parse).collect::<Result<_, _>>().ok();
        let whole = size.zip(holders).ok_or_else(|| refused("import", "it is no volume"))?;
        state.volumes.insert(volume.clone(), FakeVolume::new(whole.0, whole.1));
        Ok(())
    }
    async fn observe(&self) -> Result<Vec<ObservedVolume>, EngineError> {
        let state = self.state();
        let seen = state.volumes.iter().map(|(id, volume)| ObservedVolume {
            volume: id.clone(),
            size: volume.size,
            used: volume.size,
            filesystem: Filesystem::Ext4,
            fence: volume.fence,
            snapshots: volume.snapshots.keys().cloned().collect(),
        });
        Ok(seen.collect())
    }
}
