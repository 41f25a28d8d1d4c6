//! Volumes: what is known of each, kept on disk, and what is done to them.
//!
//! [`Book`] has a row for every volume that was ever asked for and not removed. Groups take rows for their slots from it and
//! write them with their own changes; what people and the clock ask for is done here, one volume at a time. What is really
//! there is the engine's to say: the book never makes a volume that it believes to be there.

mod ask;
mod tend;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kiln_api::volume::VolumeStatus;
use kiln_engine::{EngineError, Volumes};
use kiln_model::{
    ByteSize, GroupName, ReleaseId, ServerId, VolumeId, VolumeName,
    id::SnapshotName,
    volume::{Cause, Filesystem, Hooks, Restore, SnapshotId, VolumePolicy},
};
use serde::{Deserialize, Serialize};

use crate::{
    db::{Batch, DbError, Record},
    shared::Shared,
};

pub(crate) use tend::keep_tending;

/// Why something could not be done with a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumesError {
    /// No such volume.
    #[error("there is no volume `{0}`")]
    Unknown(VolumeId),
    /// No such snapshot.
    #[error("there is no snapshot `{0}`")]
    NoSnapshot(SnapshotId),
    /// The name is taken.
    #[error("there is a volume `{0}` already")]
    Exists(VolumeId),
    /// A snapshot has that name.
    #[error("there is a snapshot `{0}` already")]
    SnapshotExists(SnapshotId),
    /// A server has it.
    #[error("volume `{volume}` is attached to server `{server}`")]
    Attached {
        /// The volume.
        volume: VolumeId,
        /// The server.
        server: ServerId,
    },
    /// A group wants it.
    #[error("volume `{volume}` belongs to group `{group}`, which wants it")]
    Wanted {
        /// The volume.
        volume: VolumeId,
        /// The group.
        group: GroupName,
    },
    /// Names of three parts belong to groups.
    #[error("`{0}` is the name of a group's volume: choose one without dots")]
    OfGroup(VolumeId),
    /// It would be made smaller.
    #[error("volume `{volume}` has {has}: it is never made smaller, {wanted} were asked for")]
    Smaller {
        /// The volume.
        volume: VolumeId,
        /// Its size.
        has: ByteSize,
        /// The size asked for.
        wanted: ByteSize,
    },
    /// A size that no volume can have.
    #[error("{wanted} is no size for a volume with {}: it must be from {} to {}", filesystem.word(), filesystem.least(), kiln_model::volume::LARGEST)]
    Size {
        /// The size.
        wanted: ByteSize,
        /// The file system.
        filesystem: Filesystem,
    },
    /// The application was not ready for a snapshot.
    #[error("no snapshot of `{volume}` was taken: the recipe's `quiesce` {how}")]
    Hook {
        /// The volume.
        volume: VolumeId,
        /// How it failed.
        how: String,
    },
    /// The path of a file.
    #[error("`{0}` is no file to write to or read from: give an absolute path")]
    Path(String),
    /// The engine keeps no data.
    #[error("this engine keeps no volumes")]
    Unsupported,
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The state file.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What is known of a volume. Additions get `#[serde(default)]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeRow {
    pub size: ByteSize,
    pub filesystem: Filesystem,
    /// The number of its latest attachment.
    pub fence: u64,
    /// The server it was last given to, while that has it.
    pub holder: Option<ServerId>,
    /// The release that had it last.
    pub release: Option<ReleaseId>,
    /// Whether it is there: from then on it is never made anew.
    pub made: bool,
    pub created_at: Timestamp,
    /// What its fleet says of it.
    pub policy: Option<VolumePolicy>,
    /// Since when nobody wants it, and why.
    pub orphan: Option<(Timestamp, String)>,
    /// It is put back to a snapshot when it is attached next.
    pub restore: Option<Restore>,
    /// Counts the restores.
    pub restores: u64,
    /// The restore that its latest holder was told of.
    #[serde(default)]
    pub told: u64,
    pub snapshots: BTreeMap<SnapshotName, SnapshotRow>,
    /// The newest restore point that was proven.
    pub proven: Option<Proven>,
    /// When one was last tried, and why that failed, if it did.
    #[serde(default)]
    pub tried: Option<(Timestamp, Option<String>)>,
    /// How long the last hand-over took: from asking the old server to end until the new one was ready.
    pub handover_ms: Option<u64>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotRow {
    pub at: Timestamp,
    pub cause: Cause,
    /// The release that had the volume then.
    pub release: Option<ReleaseId>,
}

/// What a drill has shown.
#[derive(Debug)]
pub(crate) struct Trial {
    pub volumes: Vec<SnapshotId>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// A restore that was tried with success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proven {
    pub snapshot: SnapshotName,
    /// When that was taken.
    pub snapshot_at: Timestamp,
}

impl VolumeRow {
    pub fn new(size: ByteSize, filesystem: Filesystem, now: Timestamp) -> Self {
        Self {
            size,
            filesystem,
            fence: 0,
            holder: None,
            release: None,
            made: false,
            created_at: now,
            policy: None,
            orphan: None,
            restore: None,
            restores: 0,
            told: 0,
            snapshots: BTreeMap::new(),
            proven: None,
            tried: None,
            handover_ms: None,
        }
    }

    /// A name for a snapshot that was not used before.
    pub fn next_name(&self, word: &str, now: Timestamp) -> SnapshotName {
        let stem = format!("{word}-{}", now.strftime("%Y%m%d-%H%M%S"));
        let names = std::iter::once(stem.clone()).chain((2..).map(|n| format!("{stem}-{n}")));
        let mut names = names.filter_map(|name| name.parse::<SnapshotName>().ok());
        names.find(|name| !self.snapshots.contains_key(name)).expect("numbers do not end")
    }

    /// Asks for the volume to be put back when it is attached next.
    pub fn put_back(&mut self, snapshot: SnapshotName, now: Timestamp) {
        self.restores += 1;
        let before = self.next_name("before-restore", now);
        let row = SnapshotRow { at: now, cause: Cause::Restore, release: self.release };
        self.snapshots.insert(before.clone(), row);
        self.restore = Some(Restore { snapshot, before, number: self.restores });
    }

    fn newest(&self) -> Option<(&SnapshotName, &SnapshotRow)> {
        let real = self.snapshots.iter().filter(|(_, row)| row.cause != Cause::Clone && row.cause != Cause::Restore);
        real.max_by_key(|(_, row)| row.at)
    }

    pub fn status(&self, id: &VolumeId) -> VolumeStatus {
        VolumeStatus {
            id: id.to_string(),
            size: self.size.to_string(),
            filesystem: self.filesystem.word().to_owned(),
            group: id.slot().map(|(group, ..)| group.to_string()),
            slot: id.slot().map(|(.., slot)| slot),
            server: self.holder.as_ref().map(ServerId::to_string),
            state: self.word().to_owned(),
            since: self.orphan.as_ref().map(|(since, _)| since.to_string()),
            reason: self.orphan.as_ref().map(|(_, reason)| reason.clone()),
            fence: self.fence,
            handover_ms: self.handover_ms,
            snapshots: self.snapshots.iter().map(|(name, row)| row.status(name)).collect(),
            proven: self.proven.as_ref().map(|proven| proven.snapshot_at.to_string()),
            drill_failed: self.tried.as_ref().and_then(|(_, failure)| failure.clone()),
            used: None,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self { orphan: Some(_), .. } => "orphan",
            Self { holder: Some(_), .. } => "attached",
            Self { made: false, .. } => "wanted",
            _ => "free",
        }
    }
}

impl SnapshotRow {
    fn status(&self, name: &SnapshotName) -> kiln_api::volume::SnapshotStatus {
        kiln_api::volume::SnapshotStatus {
            name: name.to_string(),
            at: self.at.to_string(),
            cause: self.cause.word().to_owned(),
        }
    }
}

/// The rows of all volumes.
#[derive(Default)]
pub(crate) struct Book {
    rows: Mutex<BTreeMap<VolumeId, VolumeRow>>,
    /// What is done to one volume at somebody's wish is done in turn.
    turns: Mutex<BTreeMap<VolumeId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Book {
    pub fn new(rows: BTreeMap<VolumeId, VolumeRow>) -> Self {
        Self { rows: Mutex::new(rows), turns: Mutex::default() }
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<VolumeId, VolumeRow>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, id: &VolumeId) -> Option<VolumeRow> {
        self.rows().get(id).cloned()
    }

    pub fn all(&self) -> BTreeMap<VolumeId, VolumeRow> {
        self.rows().clone()
    }

    /// The volumes of a group.
    pub fn of_group(&self, group: &GroupName) -> Vec<(VolumeId, VolumeName, u32)> {
        let rows = self.rows();
        let of = rows.keys().filter_map(|id| {
            let (whose, name, slot) = id.slot()?;
            (whose == *group).then(|| (id.clone(), name, slot))
        });
        of.collect()
    }

    /// Changes a row, which becomes one if there was none, and takes it into the batch. Returns it as it is then.
    pub fn change(
        &self,
        id: &VolumeId,
        batch: &mut Batch,
        new: impl FnOnce() -> VolumeRow,
        change: impl FnOnce(&mut VolumeRow),
    ) -> VolumeRow {
        let mut rows = self.rows();
        let row = rows.entry(id.clone()).or_insert_with(new);
        let before = row.clone();
        change(row);
        if *row != before || row.fence == 0 {
            batch.volume(id, row);
        }
        row.clone()
    }

    /// Changes a row that is there.
    pub fn note(&self, id: &VolumeId, batch: &mut Batch, change: impl FnOnce(&mut VolumeRow)) -> Option<VolumeRow> {
        let mut rows = self.rows();
        let row = rows.get_mut(id)?;
        let before = row.clone();
        change(row);
        if *row != before {
            batch.volume(id, row);
        }
        Some(row.clone())
    }

    fn forget(&self, id: &VolumeId, batch: &mut Batch) {
        self.rows().remove(id);
        batch.forget_volume(id);
    }

    async fn turn(&self, id: &VolumeId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(id.clone()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

/// A volume that a server needs and that is not there yet.
#[derive(Debug, Clone)]
pub(crate) struct Making {
    pub volume: VolumeId,
    pub size: ByteSize,
    pub filesystem: Filesystem,
    /// Made from this one, where that is there.
    pub from: Option<VolumeId>,
    pub user: String,
    pub hooks: Hooks,
}

/// Makes a volume for a slot. What is there already is a success.
pub(crate) async fn make(shared: &Shared, making: &Making) -> Result<(), EngineError> {
    let volumes = ability(shared)?;
    let Some(from) = making.from.as_ref().filter(|from| shared.book.get(from).is_some_and(|row| row.made)) else {
        return volumes.create(&making.volume, making.size, making.filesystem).await;
    };
    let _turn = shared.book.turn(from).await;
    let snapshot = SnapshotId { volume: from.clone(), name: clone_name(&making.volume) };
    quietly(shared, &snapshot, &making.user, &making.hooks).await.map_err(|error| EngineError::Failed {
        action: format!("take a snapshot of {from}"),
        source: Box::new(error),
    })?;
    volumes.clone_of(&snapshot, &making.volume).await?;
    volumes.remove_snapshot(&snapshot).await
}

/// The snapshot that a slot's volume is made from: always the same name, so that one that a crash left is found again.
fn clone_name(volume: &VolumeId) -> SnapshotName {
    let slot = volume.slot().map_or(0, |(.., slot)| slot);
    format!("for-slot-{slot}").parse().expect("a word and a number is a valid name")
}

pub(crate) fn ability(shared: &Shared) -> Result<&dyn Volumes, EngineError> {
    shared.engine.volumes().ok_or(EngineError::Unsupported { ability: "keep volumes" })
}

/// Commands of the recipe around a snapshot have this long.
const HOOK_LIMIT: Duration = Duration::from_secs(60);

/// A command of a recipe that a server is asked to run before a volume leaves it.
#[derive(Debug, Clone)]
pub(crate) struct Farewell {
    pub server: ServerId,
    pub volume: VolumeName,
    pub user: String,
    pub command: Vec<String>,
}

/// Runs it. A failure is told, and keeps nothing from going on.
pub(crate) async fn bid_farewell(shared: &Shared, farewell: &Farewell) {
    let Farewell { server, volume, user, command } = farewell;
    if let Err(how) = run_hook(shared, Some(server), user, command).await {
        let message = format!("server {server}: the recipe's `hand_over` of volume `{volume}` {how}");
        shared.emit(kiln_api::Event::Warning { message });
    }
}

/// Runs a command of a recipe inside a server, where there is one; how it failed, in words.
async fn run_hook(
    shared: &Shared,
    server: Option<&ServerId>,
    user: &str,
    command: &[String],
) -> std::result::Result<(), String> {
    let (Some(server), Some(inside), [_, ..]) = (server, shared.engine.inside(), command) else { return Ok(()) };
    let result = inside.exec(server, command, user, HOOK_LIMIT, 4096).await;
    let result = result.map_err(|error| format!("could not be run: {}", kiln_api::error::chain(&error)))?;
    if result.exit == 0 {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&result.stderr);
    let said: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
    Err(format!("ended with exit code {}: {said}", result.exit))
}

/// Takes a snapshot while the application is quiet.
async fn quietly(shared: &Shared, snapshot: &SnapshotId, user: &str, hooks: &Hooks) -> Result<(), VolumesError> {
    let holder = shared.book.get(&snapshot.volume).and_then(|row| row.holder);
    let run = async |command: &[String]| run_hook(shared, holder.as_ref(), user, command).await;
    let quiet = run(&hooks.quiesce).await;
    let taken = match quiet {
        Ok(()) => ability(shared)?.snapshot(snapshot).await.map_err(VolumesError::from),
        Err(how) => Err(VolumesError::Hook { volume: snapshot.volume.clone(), how }),
    };
    if let Err(how) = run(&hooks.resume).await {
        let message = format!("volume {}: the recipe's `resume` {how}", snapshot.volume);
        shared.emit(kiln_api::Event::Warning { message });
    }
    taken
}

/// Writes an entry of the audit log with a change.
fn audited(shared: &Shared, batch: &mut Batch, action: &'static str, id: &VolumeId, inputs: serde_json::Value) {
    let group = id.slot().map(|(group, ..)| group);
    let reason = "somebody asked for it".to_owned();
    batch.record(Record { at: shared.now(), action, group, server: None, inputs, reason });
}
