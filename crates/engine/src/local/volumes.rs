//! Volumes of this host.

use std::path::Path;

use kiln_model::{
    ByteSize, VolumeId,
    volume::{Filesystem, SnapshotId},
};

use super::LocalEngine;
use crate::{EngineError, ObservedVolume, Volumes};

fn observed(seen: kiln_runtime::VolumeSeen) -> ObservedVolume {
    let kiln_runtime::VolumeSeen { volume, size, used, filesystem, fence, snapshots } = seen;
    ObservedVolume { volume, size, used, filesystem, fence, snapshots }
}

#[async_trait::async_trait]
impl Volumes for LocalEngine {
    async fn create(&self, volume: &VolumeId, size: ByteSize, filesystem: Filesystem) -> Result<(), EngineError> {
        let id = volume.clone();
        let action = || format!("make volume {volume}");
        self.blocking(action, move |runtime| runtime.volumes().create(&id, size, filesystem)).await
    }

    async fn snapshot(&self, snapshot: &SnapshotId) -> Result<(), EngineError> {
        let id = snapshot.clone();
        let action = || format!("take snapshot {snapshot}");
        self.blocking(action, move |runtime| runtime.volumes().snapshot(&id)).await
    }

    async fn clone_of(&self, from: &SnapshotId, volume: &VolumeId) -> Result<(), EngineError> {
        let (snapshot, id) = (from.clone(), volume.clone());
        let action = || format!("make volume {volume} from {from}");
        self.blocking(action, move |runtime| runtime.volumes().clone_of(&snapshot, &id)).await
    }

    async fn grow(&self, volume: &VolumeId, size: ByteSize) -> Result<(), EngineError> {
        let id = volume.clone();
        let action = || format!("grow volume {volume}");
        self.blocking(action, move |runtime| runtime.volumes().grow(&id, size)).await
    }

    async fn remove(&self, volume: &VolumeId) -> Result<(), EngineError> {
        let id = volume.clone();
        self.blocking(|| format!("remove volume {volume}"), move |runtime| runtime.volumes().remove(&id)).await
    }

    async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<(), EngineError> {
        let id = snapshot.clone();
        let action = || format!("remove snapshot {snapshot}");
        self.blocking(action, move |runtime| runtime.volumes().remove_snapshot(&id)).await
    }

    async fn export(&self, snapshot: &SnapshotId, file: &Path) -> Result<(), EngineError> {
        let (id, path) = (snapshot.clone(), file.to_owned());
        let action = || format!("export {snapshot}");
        self.blocking(action, move |runtime| runtime.volumes().export(&id, &path)).await
    }

    async fn import(&self, file: &Path, volume: &VolumeId) -> Result<(), EngineError> {
        let (id, path) = (volume.clone(), file.to_owned());
        let action = || format!("import volume {volume}");
        self.blocking(action, move |runtime| runtime.volumes().import(&path, &id)).await
    }

    async fn observe(&self) -> Result<Vec<ObservedVolume>, EngineError> {
        let seen = self.blocking(|| "look at the volumes".into(), |runtime| runtime.volumes().list()).await?;
        Ok(seen.into_iter().map(observed).collect())
    }
}
