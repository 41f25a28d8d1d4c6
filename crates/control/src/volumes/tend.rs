//! What the clock asks for: snapshots that are due, and the end of volumes that nobody wanted for long enough.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kiln_api::{Event, error::chain};
use kiln_model::{
    GroupName, VolumeName,
    volume::{Cause, SnapshotId, is_due},
};

use super::{Proven, Trial, ask};
use crate::{Control, db::Batch};

/// How often the clock is looked at.
const PAUSE: Duration = Duration::from_secs(5);

/// Goes on until the core ends.
pub(crate) async fn keep_tending(control: Control) {
    loop {
        tokio::time::sleep(PAUSE).await;
        control.tend_volumes().await;
    }
}

impl Control {
    /// Looks once.
    pub async fn tend_volumes(&self) {
        let now = self.shared.now();
        for (id, row) in self.shared.book.all() {
            let retain = row.policy.as_ref().map(|policy| policy.retain);
            if let (Some((since, reason)), Some(retain), None) = (&row.orphan, retain, &row.holder)
                && is_due(retain, Some(*since), now)
            {
                let why = format!("nobody wanted it for {}: {reason}", kiln_model::duration::format(retain));
                let gone = ask::take_away(&self.shared, &id, &why).await;
                self.say(&format!("volume {id} is removed: {why}"), gone);
                continue;
            }
            let schedule = row.policy.as_ref().and_then(|policy| policy.snapshots).filter(|_| row.made);
            let last = row.snapshots.values().filter(|s| s.cause == Cause::Scheduled).map(|s| s.at).max();
            if let (Some(schedule), None) = (schedule, &row.orphan)
                && is_due(schedule.every, last, now)
            {
                let taken = self.scheduled(&id).await;
                if let Err(error) = taken {
                    let message = format!("volume {id}: no snapshot by the clock: {}", chain(&error));
                    self.announce(Event::Warning { message });
                }
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
