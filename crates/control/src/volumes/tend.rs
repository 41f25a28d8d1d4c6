//! What the clock asks for: snapshots that are due, and the end of volumes that nobody wanted for long enough.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kiln_api::{Event, error::chain};
use kiln_model::{
    GroupName, VolumeId, VolumeName,
    volume::{Cause, SnapshotId, is_due},
};

use super::{Proven, Trial, ask};
use crate::{Control, db::Batch};

/// A volume is removed when it was due in so many looks in a row: a clock that was wrong for some minutes removes nothing.
const LOOKS: u32 = 120;

/// Goes on until the core ends.
pub(crate) async fn keep_tending(control: Control) {
    if let Err(error) = ask::remove_unfinished(&control.shared).await {
        let message = format!("what was left of an unfinished volume could not be removed: {}", chain(&error));
        control.announce(Event::Warning { message });
    }
    let mut doomed = BTreeMap::new();
    loop {
        tokio::time::sleep(control.shared.tend_every).await;
        control.remove_orphans(&mut doomed).await;
        control.take_snapshots().await;
    }
}

impl Control {
    /// Removes what nobody wanted for long enough. `doomed` counts the looks at which each was due.
    async fn remove_orphans(&self, doomed: &mut BTreeMap<VolumeId, u32>) {
        let due = self.orphans_due();
        doomed.retain(|id, _| due.contains_key(id));
        for (id, why) in due {
            let looks = doomed.entry(id.clone()).or_default();
            *looks += 1;
            match *looks {
                1 => {
                    let soon = kiln_model::duration::format(self.shared.tend_every * LOOKS);
                    let message = format!("volume {id} is removed in {soon}: {why}");
                    self.announce(Event::Warning { message });
                }
                LOOKS.. => {
                    let gone = ask::take_away(&self.shared, &id, &why).await;
                    self.say(&format!("volume {id} is removed: {why}"), gone);
                }
                _ => {}
            }
        }
    }

    /// Volumes without a holder that were kept for as long as was asked, with the reason.
    fn orphans_due(&self) -> BTreeMap<VolumeId, String> {
        let now = self.shared.now();
        let due = self.shared.book.all().into_iter().filter_map(|(id, row)| {
            let retain = row.policy.as_ref()?.retain;
            let (since, reason) = row.orphan.as_ref().filter(|_| row.holder.is_none())?;
            let why = || format!("nobody wanted it for {}: {reason}", kiln_model::duration::format(retain));
            is_due(retain, Some(*since), now).then(|| (id, why()))
        });
        due.collect()
    }

    /// Takes the snapshots that are due.
    async fn take_snapshots(&self) {
        let now = self.shared.now();
        for (id, row) in self.shared.book.all() {
            let schedule = row.policy.as_ref().and_then(|policy| policy.snapshots).filter(|_| row.made);
            let last = row.snapshots.values().filter(|s| s.cause == Cause::Scheduled).map(|s| s.at).max();
            if let (Some(schedule), None) = (schedule, &row.orphan)
                && is_due(schedule.every, last, now)
                && let Err(error) = self.scheduled(&id).await
            {
                let message = format!("volume {id}: no snapshot by the clock: {}", chain(&error));
                self.announce(Event::Warning { message });
            }
        }
    }

    /// The groups that have a volume whose drill is due.
    pub(crate) fn drills_due(&self) -> BTreeSet<GroupName> {
        let now = self.shared.now();
        let due = self.shared.book.all().into_iter().filter_map(|(id, row)| {
            let every = row.policy.as_ref()?.snapshots?.drill.filter(|_| row.orphan.is_none())?;
            let (group, ..) = id.slot()?;
            let last = row.tried.as_ref().map(|(at, _)| *at);
            (row.newest().is_some() && is_due(every, last, now)).then_some(group)
        });
        due.collect()
    }

    /// The newest snapshot of each volume of a group, by slot.
    pub(crate) fn newest_snapshots(&self, group: &GroupName) -> BTreeMap<u32, BTreeMap<VolumeName, SnapshotId>> {
        let mut slots: BTreeMap<u32, BTreeMap<VolumeName, SnapshotId>> = BTreeMap::new();
        for (id, name, slot) in self.shared.book.of_group(group) {
            let Some(row) = self.shared.book.get(&id).filter(|row| row.orphan.is_none()) else { continue };
            if let Some((snapshot, _)) = row.newest() {
                let snapshot = SnapshotId { volume: id, name: snapshot.clone() };
                slots.entry(slot).or_default().insert(name, snapshot);
            }
        }
        slots
    }

    /// Writes down what a drill has shown.
    pub(crate) async fn note_trial(&self, trial: &Trial) -> Result<(), super::VolumesError> {
        let now = self.shared.now();
        let mut batch = Batch::default();
        for SnapshotId { volume, name } in &trial.volumes {
            self.shared.book.note(volume, &mut batch, |row| {
                let Some(snapshot_at) = row.snapshots.get(name).map(|snapshot| snapshot.at) else { return };
                row.tried = Some((now, trial.failure.clone()));
                // What was proven stays proven, whatever a later one shows.
                if trial.failure.is_none() {
                    row.proven = Some(Proven { snapshot: name.clone(), snapshot_at });
                }
            });
        }
        Ok(self.shared.db.write(Arc::new(batch)).await?)
    }

    fn say(&self, what: &str, done: Result<(), super::VolumesError>) {
        let message = match done {
            Ok(()) => what.to_owned(),
            Err(error) => format!("{what}, but: {}", chain(&error)),
        };
        self.announce(Event::Warning { message });
    }
}
