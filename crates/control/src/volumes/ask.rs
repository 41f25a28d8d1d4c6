//! What people ask for.

use std::path::PathBuf;

use kiln_api::volume::{VolumeRequest, Volumes as Listed};
use kiln_model::{
    ByteSize, VolumeId,
    id::SnapshotName,
    volume::{Cause, Filesystem, Hooks, LARGEST, SnapshotId, surplus},
};
use serde_json::json;
use std::sync::Arc;

use super::{SnapshotRow, VolumeRow, VolumesError, ability, audited, quietly};
use crate::{Control, db::Batch, shared::Shared};

type Result<T> = std::result::Result<T, VolumesError>;

impl Control {
    /// Every volume, as the book and the engine know it.
    pub async fn volumes(&self) -> Result<Listed> {
        let shared = &self.shared;
        let seen = match shared.engine.volumes() {
            Some(volumes) if !shared.book.all().is_empty() => volumes.observe().await?,
            _ => Vec::new(),
        };
        let status = |(id, row): (VolumeId, VolumeRow)| {
            let used = seen.iter().find(|seen| seen.volume == id).map(|seen| seen.used.as_bytes());
            kiln_api::volume::VolumeStatus { used, ..row.status(&id) }
        };
        Ok(Listed { volumes: shared.book.all().into_iter().map(status).collect() })
    }

    /// Does what somebody asks for; what was done, in words. A restore of a volume that a server has is not done here.
    pub async fn volume(&self, request: &VolumeRequest) -> Result<String> {
        let shared = &*self.shared;
        match request {
            VolumeRequest::Create { volume, size, filesystem } => create(shared, volume, *size, *filesystem).await,
            VolumeRequest::Snapshot { volume, name } => {
                let (user, hooks) = self.hooks(volume).await;
                let name = take(shared, volume, name.clone(), Cause::Asked, (&user, &hooks)).await?;
                Ok(format!("snapshot {volume}@{name}"))
            }
            VolumeRequest::Clone { from, volume } => clone(shared, from, volume).await,
            VolumeRequest::Restore { snapshot, .. } => restore(shared, snapshot).await,
            VolumeRequest::Grow { volume, size } => grow(shared, volume, *size).await,
            VolumeRequest::Export { snapshot, file } => export(shared, snapshot, file).await,
            VolumeRequest::Import { file, volume } => import(shared, file, volume).await,
            VolumeRequest::Remove { volume } => remove(shared, volume).await,
            VolumeRequest::RemoveSnapshot { snapshot } => remove_snapshot(shared, snapshot).await,
        }
    }

    /// Takes a snapshot by the clock.
    pub(super) async fn scheduled(&self, volume: &VolumeId) -> Result<()> {
        let (user, hooks) = self.hooks(volume).await;
        take(&self.shared, volume, None, Cause::Scheduled, (&user, &hooks)).await.map(drop)
    }

    /// Whose commands are run around a snapshot of a volume that a server has.
    async fn hooks(&self, volume: &VolumeId) -> (String, Hooks) {
        let nothing = || ("root".to_owned(), Hooks::default());
        let Some((group, name, _)) = volume.slot() else { return nothing() };
        let Ok((current, releases)) = self.releases(&group).await else { return nothing() };
        let Some(release) = releases.into_iter().find(|release| release.id() == current) else { return nothing() };
        let store = self.shared.releases.clone();
        let image = tokio::task::spawn_blocking(move || store.image(&release.image)).await;
        let Ok(Ok(image)) = image else { return nothing() };
        let needed = kiln_model::volume::needed(&image.manifest).find(|needed| *needed.name == name);
        needed.map_or_else(nothing, |needed| (needed.user.to_owned(), needed.hooks.clone()))
    }
}

fn existing(shared: &Shared, id: &VolumeId) -> Result<VolumeRow> {
    shared.book.get(id).filter(|row| row.made).ok_or_else(|| VolumesError::Unknown(id.clone()))
}

fn must_be_new(shared: &Shared, id: &VolumeId) -> Result<()> {
    if shared.book.get(id).is_some_and(|row| row.made) {
        return Err(VolumesError::Exists(id.clone()));
    }
    if id.slot().is_some() { Err(VolumesError::OfGroup(id.clone())) } else { Ok(()) }
}

async fn write(shared: &Shared, batch: Batch) -> Result<()> {
    Ok(shared.db.write(Arc::new(batch)).await?)
}

/// Makes a volume by hand. The book says first that it is not there yet: what one left that was interrupted is known by that,
/// and removed. What is there and not in the book is nobody's to remove.
async fn make(
    shared: &Shared,
    id: &VolumeId,
    how: serde_json::Value,
    work: impl AsyncFnOnce() -> Result<VolumeRow>,
) -> Result<()> {
    if shared.book.get(id).is_some() {
        ability(shared)?.remove(id).await?;
    } else if ability(shared)?.observe().await?.iter().any(|seen| seen.volume == *id) {
        return Err(VolumesError::Exists(id.clone()));
    }
    let mut batch = Batch::default();
    let unknown = || VolumeRow::new(Filesystem::default().least(), Filesystem::default(), shared.now());
    shared.book.change(id, &mut batch, unknown, |_| ());
    write(shared, batch).await?;
    shared.fail_point(|| format!("make {id}: before action")).await;
    let made = work().await;
    shared.fail_point(|| format!("make {id}: after action")).await;
    let mut batch = Batch::default();
    match &made {
        Ok(row) => {
            let row = VolumeRow { made: true, ..row.clone() };
            shared.book.note(id, &mut batch, |kept| *kept = row);
            audited(shared, &mut batch, "volume-create", id, how);
        }
        Err(_) => shared.book.forget(id, &mut batch),
    }
    write(shared, batch).await?;
    made.map(drop)
}

/// Removes what was being made by hand when the daemon before this one ended.
pub(super) async fn remove_unfinished(shared: &Shared) -> Result<()> {
    let unfinished = |(id, row): &(VolumeId, VolumeRow)| !row.made && id.slot().is_none();
    for (id, _) in shared.book.all().into_iter().filter(unfinished) {
        let _turn = shared.book.turn(&id).await;
        if shared.book.get(&id).is_some_and(|row| !row.made) {
            take_away(shared, &id, "the daemon ended while it was being made").await?;
        }
    }
    Ok(())
}

async fn create(shared: &Shared, id: &VolumeId, size: ByteSize, filesystem: Filesystem) -> Result<String> {
    let _turn = shared.book.turn(id).await;
    must_be_new(shared, id)?;
    if !(filesystem.least()..=LARGEST).contains(&size) {
        return Err(VolumesError::Size { wanted: size, filesystem });
    }
    make(shared, id, json!({"volume": id, "size": size}), async || {
        ability(shared)?.create(id, size, filesystem).await?;
        Ok(VolumeRow::new(size, filesystem, shared.now()))
    })
    .await?;
    Ok(format!("volume {id}: {size} of {}", filesystem.word()))
}

async fn clone(shared: &Shared, from: &SnapshotId, id: &VolumeId) -> Result<String> {
    let _turn = shared.book.turn(id).await;
    must_be_new(shared, id)?;
    let source = existing(shared, &from.volume)?;
    if !source.snapshots.contains_key(&from.name) {
        return Err(VolumesError::NoSnapshot(from.clone()));
    }
    make(shared, id, json!({"volume": id, "from": from.to_string()}), async || {
        ability(shared)?.clone_of(from, id).await?;
        Ok(VolumeRow::new(source.size, source.filesystem, shared.now()))
    })
    .await?;
    Ok(format!("volume {id}, a clone of {from}"))
}

/// Takes a snapshot, and lets go of those that are no longer kept.
pub(super) async fn take(
    shared: &Shared,
    id: &VolumeId,
    name: Option<SnapshotName>,
    cause: Cause,
    (user, hooks): (&str, &Hooks),
) -> Result<SnapshotName> {
    let _turn = shared.book.turn(id).await;
    let row = existing(shared, id)?;
    let name = name.unwrap_or_else(|| row.next_name(cause.word(), shared.now()));
    let snapshot = SnapshotId { volume: id.clone(), name: name.clone() };
    if row.snapshots.contains_key(&name) {
        return Err(VolumesError::SnapshotExists(snapshot));
    }
    // One that a daemon took which ended before it could say so is of another time.
    ability(shared)?.remove_snapshot(&snapshot).await?;
    shared.fail_point(|| format!("snapshot {id}: before action")).await;
    quietly(shared, &snapshot, user, hooks).await?;
    shared.fail_point(|| format!("snapshot {id}: after action")).await;
    let mut batch = Batch::default();
    let taken = SnapshotRow { at: shared.now(), cause, release: row.release };
    shared.book.note(id, &mut batch, |row| {
        row.snapshots.insert(name.clone(), taken);
    });
    audited(shared, &mut batch, "volume-snapshot", id, json!({"snapshot": snapshot.to_string(), "cause": cause}));
    write(shared, batch).await?;
    trim(shared, id).await?;
    Ok(name)
}

/// Removes the snapshots that are no longer kept.
pub(super) async fn trim(shared: &Shared, id: &VolumeId) -> Result<()> {
    let row = existing(shared, id)?;
    let keep = row.policy.as_ref().and_then(|policy| policy.snapshots).map_or(24, |schedule| schedule.keep as usize);
    let needed = row.restore.as_ref().map(|restore| &restore.snapshot);
    let all = row.snapshots.iter().map(|(name, snapshot)| (name, snapshot.cause, snapshot.at));
    for name in surplus(all, keep).into_iter().filter(|name| Some(*name) != needed) {
        drop_snapshot(shared, &SnapshotId { volume: id.clone(), name: name.clone() }).await?;
    }
    Ok(())
}

/// The row goes first: what is not in the book is not offered any more.
async fn drop_snapshot(shared: &Shared, snapshot: &SnapshotId) -> Result<()> {
    let mut batch = Batch::default();
    shared.book.note(&snapshot.volume, &mut batch, |row| {
        row.snapshots.remove(&snapshot.name);
    });
    write(shared, batch).await?;
    Ok(ability(shared)?.remove_snapshot(snapshot).await?)
}

async fn restore(shared: &Shared, snapshot: &SnapshotId) -> Result<String> {
    let _turn = shared.book.turn(&snapshot.volume).await;
    let row = existing(shared, &snapshot.volume)?;
    if !row.snapshots.contains_key(&snapshot.name) {
        return Err(VolumesError::NoSnapshot(snapshot.clone()));
    }
    let mut batch = Batch::default();
    let now = shared.now();
    shared.book.note(&snapshot.volume, &mut batch, |row| row.put_back(snapshot.name.clone(), now));
    audited(shared, &mut batch, "volume-restore", &snapshot.volume, json!({"snapshot": snapshot.to_string()}));
    write(shared, batch).await?;
    Ok(match row.holder {
        Some(server) => {
            format!("volume {} is put back to {} by the successor of {server}", snapshot.volume, snapshot.name)
        }
        None => format!("volume {} is put back to {} when it is attached next", snapshot.volume, snapshot.name),
    })
}

async fn grow(shared: &Shared, id: &VolumeId, size: ByteSize) -> Result<String> {
    let _turn = shared.book.turn(id).await;
    let row = existing(shared, id)?;
    if size < row.size {
        return Err(VolumesError::Smaller { volume: id.clone(), has: row.size, wanted: size });
    }
    if size > LARGEST {
        return Err(VolumesError::Size { wanted: size, filesystem: row.filesystem });
    }
    let mut batch = Batch::default();
    shared.book.note(id, &mut batch, |row| row.size = size);
    audited(shared, &mut batch, "volume-grow", id, json!({"volume": id, "size": size}));
    write(shared, batch).await?;
    shared.fail_point(|| format!("grow {id}: before action")).await;
    ability(shared)?.grow(id, size).await?;
    shared.fail_point(|| format!("grow {id}: after action")).await;
    Ok(format!("volume {id}: {size}"))
}

fn absolute(file: &str) -> Result<PathBuf> {
    let path = PathBuf::from(file);
    let good = path.is_absolute() && !file.chars().any(char::is_control);
    if good { Ok(path) } else { Err(VolumesError::Path(file.escape_debug().take(200).collect())) }
}

async fn export(shared: &Shared, snapshot: &SnapshotId, file: &str) -> Result<String> {
    let path = absolute(file)?;
    let row = existing(shared, &snapshot.volume)?;
    if !row.snapshots.contains_key(&snapshot.name) {
        return Err(VolumesError::NoSnapshot(snapshot.clone()));
    }
    ability(shared)?.export(snapshot, &path).await?;
    Ok(format!("{snapshot} is in {}", path.display()))
}

async fn import(shared: &Shared, file: &str, id: &VolumeId) -> Result<String> {
    let path = absolute(file)?;
    let _turn = shared.book.turn(id).await;
    must_be_new(shared, id)?;
    make(shared, id, json!({"volume": id, "file": file}), async || {
        let volumes = ability(shared)?;
        volumes.import(&path, id).await?;
        let seen = volumes.observe().await?.into_iter().find(|seen| seen.volume == *id);
        let seen = seen.ok_or_else(|| VolumesError::Unknown(id.clone()))?;
        Ok(VolumeRow::new(seen.size, seen.filesystem, shared.now()))
    })
    .await?;
    Ok(format!("volume {id} from {}", path.display()))
}

async fn remove(shared: &Shared, id: &VolumeId) -> Result<String> {
    let _turn = shared.book.turn(id).await;
    let row = shared.book.get(id).ok_or_else(|| VolumesError::Unknown(id.clone()))?;
    if let Some(server) = row.holder {
        return Err(VolumesError::Attached { volume: id.clone(), server });
    }
    if let (Some((group, ..)), None) = (id.slot(), &row.orphan) {
        return Err(VolumesError::Wanted { volume: id.clone(), group });
    }
    take_away(shared, id, "somebody asked for it").await?;
    Ok(format!("volume {id} and its snapshots are gone"))
}

/// Removes a volume that nobody has and nobody wants.
pub(super) async fn take_away(shared: &Shared, id: &VolumeId, why: &str) -> Result<()> {
    let mut batch = Batch::default();
    let inputs = json!({"volume": id, "why": why});
    audited(shared, &mut batch, "volume-remove", id, inputs);
    write(shared, batch).await?;
    ability(shared)?.remove(id).await?;
    let mut batch = Batch::default();
    shared.book.forget(id, &mut batch);
    write(shared, batch).await
}

async fn remove_snapshot(shared: &Shared, snapshot: &SnapshotId) -> Result<String> {
    let _turn = shared.book.turn(&snapshot.volume).await;
    let row = existing(shared, &snapshot.volume)?;
    if !row.snapshots.contains_key(&snapshot.name) {
        return Err(VolumesError::NoSnapshot(snapshot.clone()));
    }
    let mut batch = Batch::default();
    audited(shared, &mut batch, "snapshot-remove", &snapshot.volume, json!({"snapshot": snapshot.to_string()}));
    write(shared, batch).await?;
    drop_snapshot(shared, snapshot).await?;
    Ok(format!("snapshot {snapshot} is gone"))
}
