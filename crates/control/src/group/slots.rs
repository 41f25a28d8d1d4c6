//! The group's slots and their volumes: who gets which, what is made or put back first, and what nobody wants any more.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kiln_api::Event;
use kiln_engine::{EngineError, LaunchSpec};
use kiln_model::{
    ReleaseId, ServerId, VerifiedRelease, VolumeId,
    volume::{self, Attachment, Cause, Filesystem, Kept, Needed, ScaleFrom, SnapshotId, Source},
};
use serde_json::json;

use super::{GroupTask, begin::Work};
use crate::{
    handle::ControlError,
    shared::Shared,
    volumes::{self, Farewell, Making, SnapshotRow, VolumeRow},
};

/// A server that is made ahead.
pub(super) struct Waiting {
    pub release: VerifiedRelease,
    pub spec: LaunchSpec,
    /// The version of the live values that its services began with, where they run already.
    pub began_with: Option<u64>,
}

/// What is done to volumes before they are given to a server.
#[derive(Debug, Default)]
pub(super) struct Before {
    make: Vec<Making>,
    snapshots: Vec<SnapshotId>,
}

/// Makes what is missing, and keeps what a rollback may want. Nobody has the volumes now.
pub(super) async fn prepare(shared: &Shared, before: &Before) -> Result<(), EngineError> {
    for making in &before.make {
        shared.fail_point(|| format!("make {}: before action", making.volume)).await;
        volumes::make(shared, making).await?;
        shared.fail_point(|| format!("make {}: after action", making.volume)).await;
    }
    for snapshot in &before.snapshots {
        volumes::ability(shared)?.snapshot(snapshot).await?;
        shared.fail_point(|| format!("snapshot {snapshot}: after action")).await;
    }
    Ok(())
}

impl GroupTask {
    pub(super) fn launch_in(&mut self, release: ReleaseId, slot: u32, why: &str, now: Timestamp) -> Option<Work> {
        let (verified, mut spec) = self.new_spec(release, Some(slot))?;
        self.servers.insert(spec.server.clone(), self.new_server(&spec, release, Some(slot), now));
        let volumes = self.give(&mut spec, release, slot, now);
        let intention = self.intend(&spec.server, "launch", why, now);
        let prepare = self.prepared.insert(verified.release().image);
        Some(Work::Launch { release: Box::new(verified), spec: Box::new(spec), prepare, volumes, intention })
    }

    pub(super) fn stage(&mut self, release: ReleaseId, slot: u32, why: &str, now: Timestamp) -> Option<Work> {
        let (verified, mut spec) = self.new_spec(release, Some(slot))?;
        spec.volumes = self.named(&spec, slot);
        let mut server = self.new_server(&spec, release, Some(slot), now);
        server.waiting = Some(Box::new(Waiting { release: verified.clone(), spec: spec.clone(), began_with: None }));
        self.servers.insert(spec.server.clone(), server);
        let intention = self.intend(&spec.server, "stage", why, now);
        let prepare = self.prepared.insert(verified.release().image);
        let farewells = self.farewells(slot);
        Some(Work::Stage { release: Box::new(verified), spec: Box::new(spec), prepare, farewells, intention })
    }

    /// The volumes that a staged server will have, so that their places are made and those that are there stay mounted. With
    /// which number each is given is said then.
    fn named(&self, spec: &LaunchSpec, slot: u32) -> Vec<Attachment> {
        let source = |needed: &Needed<'_>| {
            let volume = VolumeId::of(&self.row.name, needed.name, slot);
            match self.shared.book.get(&volume).filter(|row| row.made) {
                Some(row) => Source::Kept(Kept { volume, fence: row.fence, size: row.size, restore: None }),
                None => Source::Throwaway { from: None, size: Filesystem::Ext4.least(), filesystem: Filesystem::Ext4 },
            }
        };
        volume::needed(&spec.manifest)
            .map(|needed| Attachment { name: needed.name.clone(), source: source(&needed) })
            .collect()
    }

    /// What the recipe of whoever serves in a slot wants done before its volumes go to another.
    fn farewells(&self, slot: u32) -> Vec<Farewell> {
        let holder = self.servers.values().find(|server| server.row.slot == Some(slot) && server.serves());
        let image = holder.and_then(|holder| self.images.get(&self.releases.get(&holder.row.release)?.image));
        let Some((holder, image)) = holder.zip(image) else { return Vec::new() };
        let wanted = volume::needed(&image.manifest).filter(|needed| !needed.hooks.hand_over.is_empty());
        let farewell = |needed: Needed<'_>| Farewell {
            server: holder.row.id.clone(),
            volume: needed.name.clone(),
            user: needed.user.to_owned(),
            command: needed.hooks.hand_over.clone(),
        };
        wanted.map(farewell).collect()
    }

    pub(super) fn hand_over(&mut self, id: &ServerId, why: &str, now: Timestamp) -> Option<Work> {
        let server = self.servers.get_mut(id)?;
        let (slot, release) = (server.row.slot?, server.row.release);
        let Waiting { release: verified, mut spec, began_with: _ } = *server.waiting.take()?;
        let volumes = self.give(&mut spec, release, slot, now);
        let intention = self.intend(id, "hand-over", why, now);
        Some(Work::Launch { release: Box::new(verified), spec: Box::new(spec), prepare: false, volumes, intention })
    }

    /// Gives a slot's volumes to a server: in the book, in the next batch, with the next number each.
    fn give(&mut self, spec: &mut LaunchSpec, release: ReleaseId, slot: u32, now: Timestamp) -> Before {
        let manifest = spec.manifest.clone();
        let mut before = Before::default();
        spec.volumes = Vec::new();
        for needed in volume::needed(&manifest) {
            let Some(policy) = self.row.spec.volumes.get(needed.name).cloned() else { continue };
            let id = VolumeId::of(&self.row.name, needed.name, slot);
            let new = || VolumeRow::new(policy.size, policy.filesystem, now);
            let mut kept = None;
            let row = self.shared.book.change(&id, &mut self.batch, new, |row| {
                row.fence += 1;
                row.holder = Some(spec.server.clone());
                row.told = row.restores;
                row.orphan = None;
                row.size = row.size.max(policy.size);
                row.policy = Some(policy.clone());
                kept = snapshot_of_before(row, release, now);
                row.release = Some(release);
            });
            before.snapshots.extend(kept.map(|name| SnapshotId { volume: id.clone(), name }));
            if !row.made {
                before.make.push(self.making(&needed, &id, slot, &row));
            }
            let kept = Kept { volume: id, fence: row.fence, size: row.size, restore: row.restore };
            spec.volumes.push(Attachment { name: needed.name.clone(), source: Source::Kept(kept) });
        }
        before
    }

    fn making(&self, needed: &Needed<'_>, id: &VolumeId, slot: u32, row: &VolumeRow) -> Making {
        let clone = slot > 0 && needed.scale_from == ScaleFrom::Clone;
        Making {
            volume: id.clone(),
            size: row.size,
            filesystem: row.filesystem,
            from: clone.then(|| VolumeId::of(&self.row.name, needed.name, 0)),
            user: needed.user.to_owned(),
            hooks: needed.hooks.clone(),
        }
    }

    /// The server has its volumes: they are there, and what was to be put back has been.
    pub(super) fn volumes_given(&mut self, id: &ServerId) {
        for (volume, _) in self.held_by(id) {
            self.shared.book.note(&volume, &mut self.batch, |row| {
                row.made = true;
                // One that was asked for meanwhile is the next holder's.
                let told = row.told;
                row.restore.take_if(|restore| restore.number <= told);
            });
        }
    }

    /// What was to be done first was not: what was noted of it is taken back.
    pub(super) fn volumes_not_prepared(&mut self, id: &ServerId) {
        for (volume, _) in self.held_by(id) {
            self.shared.book.note(&volume, &mut self.batch, |row| {
                let newest = row.snapshots.iter().filter(|(_, s)| s.cause == Cause::Rollout).max_by_key(|(_, s)| s.at);
                if let Some((name, release)) = newest.map(|(name, snapshot)| (name.clone(), snapshot.release)) {
                    row.snapshots.remove(&name);
                    row.release = release;
                }
            });
        }
    }

    /// The server has ended, so it has no volumes any more.
    pub(super) fn volumes_free(&mut self, id: &ServerId) {
        for (volume, _) in self.held_by(id) {
            self.shared.book.note(&volume, &mut self.batch, |row| row.holder = None);
        }
    }

    fn held_by(&self, id: &ServerId) -> Vec<(VolumeId, VolumeRow)> {
        let of_group = self.shared.book.of_group(&self.row.name);
        let rows =
            of_group.into_iter().filter_map(|(volume, ..)| Some((volume.clone(), self.shared.book.get(&volume)?)));
        rows.filter(|(_, row)| row.holder.as_ref() == Some(id)).collect()
    }

    /// As others see them.
    pub(super) fn volumes(&self) -> Vec<kiln_api::volume::VolumeStatus> {
        let all = self.shared.book.of_group(&self.row.name).into_iter();
        all.filter_map(|(id, ..)| Some(self.shared.book.get(&id)?.status(&id))).collect()
    }

    /// How long the slot was without a server that is ready.
    pub(super) fn note_hand_over(&mut self, id: &ServerId) {
        let Some(slot) = self.servers.get(id).and_then(|server| server.row.slot) else { return };
        let Some(begun) = self.stopped.remove(&slot) else { return };
        let took = begun.elapsed();
        let attributes = vec![("kiln.server", id.as_str().into()), ("kiln.slot", i64::from(slot).into())];
        self.story.took("volumes-hand-over", begun.into_std(), attributes);
        for (volume, _) in self.held_by(id) {
            self.shared.book.note(&volume, &mut self.batch, |row| row.handover_ms = Some(took.as_millis() as u64));
        }
        self.shared.emit(Event::HandOver {
            group: self.row.name.to_string(),
            server: id.to_string(),
            slot,
            handover: Some(took),
        });
    }

    /// Slots whose volumes are to be made from those of slot 0.
    pub(super) fn unmade(&self) -> BTreeSet<u32> {
        let release = self.row.progress.as_ref().map_or(self.row.release, |progress| progress.target());
        let image = self.releases.get(&release).and_then(|release| self.images.get(&release.image));
        let Some(image) = image.filter(|_| !self.row.spec.volumes.is_empty()) else { return BTreeSet::new() };
        let cloned = || volume::needed(&image.manifest).filter(|needed| needed.scale_from == ScaleFrom::Clone);
        let made = |slot: u32| {
            let id = |needed: Needed<'_>| VolumeId::of(&self.row.name, needed.name, slot);
            cloned().all(|needed| self.shared.book.get(&id(needed)).is_some_and(|row| row.made))
        };
        (1..self.row.spec.count).filter(|slot| !made(*slot)).collect()
    }

    /// What the fleet says of the volumes that are there. A greater size grows them, whoever has them.
    pub(super) fn note_policies(&mut self) {
        for (id, name, _) in self.shared.book.of_group(&self.row.name) {
            let Some(policy) = self.row.spec.volumes.get(&name).cloned() else { continue };
            let Some(before) = self.shared.book.get(&id) else { continue };
            if policy.size < before.size {
                self.warn(format!(
                    "volume {id} has {}: the fleet says {}, but it is never made smaller",
                    before.size, policy.size
                ));
            }
            let size = before.size.max(policy.size);
            self.shared.book.note(&id, &mut self.batch, |row| (row.policy, row.size) = (Some(policy), size));
            if size > before.size && before.made {
                let shared = self.shared.clone();
                self.shared.spawn(async move {
                    let Some(volumes) = shared.engine.volumes() else { return };
                    if let Err(error) = volumes.grow(&id, size).await {
                        let message = format!("volume {id}: {}", kiln_api::error::chain(&error));
                        shared.emit(Event::Warning { message });
                    }
                });
            }
        }
    }

    /// Volumes that nobody wants any more are kept, and said to be.
    pub(super) fn look_at_volumes(&mut self, now: Timestamp) {
        for (id, name, slot) in self.shared.book.of_group(&self.row.name) {
            let Some(row) = self.shared.book.get(&id) else { continue };
            let reason = if self.row.removing {
                Some("its group is being taken away".to_owned())
            } else if slot >= self.row.spec.count {
                Some(format!("the group has {} servers, and it was of slot {slot}", self.row.spec.count))
            } else if !self.row.spec.volumes.contains_key(&name) {
                Some("the fleet names it no more".to_owned())
            } else {
                None
            };
            match (&row.orphan, reason) {
                (None, Some(reason)) if row.holder.is_none() => self.orphan(&id, &reason, now),
                (Some(_), None) => {
                    self.shared.book.note(&id, &mut self.batch, |row| row.orphan = None);
                }
                _ => {}
            }
        }
    }

    fn orphan(&mut self, id: &VolumeId, reason: &str, now: Timestamp) {
        self.shared.book.note(id, &mut self.batch, |row| row.orphan = Some((now, reason.to_owned())));
        self.record("volume-orphan", None, json!({"volume": id}), reason.to_owned());
        let message = format!("volume {id} is kept though nobody wants it: {reason}; `kiln volume rm {id}` removes it");
        self.shared.emit(Event::Warning { message });
    }

    /// The group is gone.
    pub(super) fn orphan_all(&mut self, reason: &str) {
        let now = self.shared.now();
        for (id, ..) in self.shared.book.of_group(&self.row.name) {
            self.shared.book.note(&id, &mut self.batch, |row| row.holder = None);
            if self.shared.book.get(&id).is_some_and(|row| row.orphan.is_none()) {
                self.orphan(&id, reason, now);
            }
        }
    }

    /// Every volume goes back to what it was when the release was left.
    pub(super) fn data_of(&mut self, release: &ReleaseId) -> Result<(), ControlError> {
        let now = self.shared.now();
        let mut back = Vec::new();
        for (id, ..) in self.shared.book.of_group(&self.row.name) {
            let Some(row) = self.shared.book.get(&id).filter(|row| row.made && row.orphan.is_none()) else { continue };
            let of_then =
                row.snapshots.iter().filter(|(_, s)| s.cause == Cause::Rollout && s.release == Some(*release));
            let newest = of_then.max_by_key(|(_, snapshot)| snapshot.at).map(|(name, _)| name.clone());
            let newest = newest.ok_or_else(|| ControlError::NoDataOf { volume: id.clone(), release: *release })?;
            back.push((id, newest));
        }
        for (id, snapshot) in back {
            self.shared.book.note(&id, &mut self.batch, |row| row.put_back(snapshot, now));
        }
        Ok(())
    }

    /// Replaces the server of a slot, so that its volume is put back.
    pub(super) fn put_back(&mut self, slot: u32) -> Result<(), ControlError> {
        let of_slot: Vec<ServerId> = self
            .servers
            .values()
            .filter(|server| server.row.slot == Some(slot))
            .map(|server| server.row.id.clone())
            .collect();
        of_slot.iter().try_for_each(|server| self.rebuild(Some(server)))
    }
}

/// A snapshot that a rollback may want: of the volume as the release before leaves it.
fn snapshot_of_before(row: &mut VolumeRow, release: ReleaseId, now: Timestamp) -> Option<kiln_model::id::SnapshotName> {
    let before = row.release.filter(|before| *before != release && row.made)?;
    let name = row.next_name("rollout", now);
    row.snapshots.insert(name.clone(), SnapshotRow { at: now, cause: Cause::Rollout, release: Some(before) });
    Some(name)
}
