//! Recovery drills: something that Kiln keeps running is destroyed on purpose, and it is measured how it comes back.
//!
//! Not to be confused with restore drills, which prove that a snapshot of a volume can be restored (`daemon::drill`). A group
//! decides by itself whether servers of it may be destroyed now ([`kiln_model::plan::drill`]), destroys them once that is in the
//! journal, and says when it is whole again; here stands what is asked around that: what goes with the servers, what the
//! gateway counted, and whether the fleet's objectives were met. The last drill of each target is kept on disk: a daemon that
//! ends in the middle of one finds it and says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kiln_api::{Event, error::chain, recovery::Drill};
use kiln_model::{
    GroupName, ServerId,
    fleet::{Figures, Objectives, Toll},
    id::InvalidName,
    plan::NoDrill,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Control, ControlError,
    db::{Batch, Record},
    group::Message,
    handle::ask,
    loss::{GroupStake, Look, ServerAtStake},
    shared::Shared,
    traffic::Failures,
};

/// A drill waits at least so long for a group to be whole again, and ten times as long as the fleet wants where that is more.
const PATIENCE: Duration = Duration::from_secs(60);
/// It waits no longer.
const LONGEST: Duration = Duration::from_secs(3600);

/// What a drill destroys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Servers of a group.
    Group(GroupName),
    /// The gateway's process.
    Gateway,
    /// The daemon's process.
    Daemon,
}

impl Target {
    /// The group, where servers of one are destroyed.
    fn group(&self) -> Option<&GroupName> {
        match self {
            Self::Group(group) => Some(group),
            Self::Gateway | Self::Daemon => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(group) => write!(f, "group:{group}"),
            Self::Gateway => f.write_str("gateway"),
            Self::Daemon => f.write_str("daemon"),
        }
    }
}

impl FromStr for Target {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text {
            "gateway" => Ok(Self::Gateway),
            "daemon" => Ok(Self::Daemon),
            other => other.strip_prefix("group:").unwrap_or(other).parse().map(Self::Group),
        }
    }
}

/// A drill as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DrillRow {
    /// What is known of it.
    pub drill: Drill,
    /// What the gateway had counted when it began, for whoever finishes it.
    #[serde(default)]
    pub failed_before: BTreeMap<GroupName, u64>,
    /// Which gateway that was.
    #[serde(default)]
    pub gateway: u32,
}

/// The last drill of each target.
pub(crate) struct Drills(Mutex<BTreeMap<Target, DrillRow>>);

impl Drills {
    /// With what was on disk.
    pub fn new(rows: BTreeMap<Target, DrillRow>) -> Self {
        Self(Mutex::new(rows))
    }

    /// The last one of a target.
    pub fn of(&self, target: &Target) -> Option<Drill> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(target).map(|row| row.drill.clone())
    }

    /// Those that had begun and did not come to their end.
    fn running(&self) -> Vec<(Target, DrillRow)> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = rows.iter().filter(|(_, row)| row.drill.state == RUNNING);
        running.map(|(target, row)| (target.clone(), row.clone())).collect()
    }

    /// Takes note of one. The caller writes it.
    pub fn note(&self, target: &Target, row: &DrillRow) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(target.clone(), row.clone());
    }

    /// A group is gone.
    pub fn forget(&self, group: &GroupName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&Target::Group(group.clone()));
    }
}

const RUNNING: &str = "running";
const BROKEN_OFF: &str = "broken-off";

/// How a group stands before something is destroyed that it needs.
#[derive(Debug, Clone)]
pub(crate) struct Rest {
    /// Why it is not at rest, if it is not. A group that wants no servers is.
    pub unrest: Option<NoDrill>,
    /// What is expected of it.
    pub objectives: Objectives,
    /// Whether ports of the host lead to it: without one nobody counts its requests.
    pub published: bool,
}

/// How a group recovered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recovered {
    /// From the kill to the moment the last replacement was ready.
    pub ready: Duration,
}

/// What a group is asked to destroy.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// The servers.
    pub victims: BTreeSet<ServerId>,
    /// Kept with the intention to do it.
    pub row: DrillRow,
}

/// A drill that begins.
pub(crate) fn begun(target: &Target, at: Timestamp, reason: &str, victims: &BTreeSet<ServerId>) -> DrillRow {
    let what = match target {
        Target::Group(_) => "group",
        Target::Gateway => "gateway",
        Target::Daemon => "daemon",
    };
    let drill = Drill {
        what: what.to_owned(),
        group: target.group().map(ToString::to_string),
        at: at.to_string(),
        reason: reason.to_owned(),
        state: RUNNING.to_owned(),
        servers: victims.iter().map(ToString::to_string).collect(),
        ready: None,
        failed: None,
        lost: None,
        lines: 0,
        missed: Vec::new(),
    };
    DrillRow { drill, failed_before: BTreeMap::new(), gateway: 0 }
}

/// Takes the beginning of a drill into a batch, which is written before anything is destroyed.
pub(crate) fn record_begin(shared: &Shared, batch: &mut Batch, target: &Target, row: &DrillRow) {
    let Drill { servers, reason, .. } = &row.drill;
    let group = target.group().cloned();
    let inputs = json!({"what": row.drill.what, "servers": servers});
    batch.record(Record { at: shared.now(), action: "drill", group, server: None, inputs, reason: reason.clone() });
    batch.drill(target, row);
    shared.drills.note(target, row);
    shared.emit(Event::Drill { drill: Box::new(row.drill.clone()) });
}

impl Control {
    /// Chooses servers of a group that a drill destroys now: at random, as many as the fleet says where nothing is said.
    pub async fn choose_victims(
        &self,
        group: &GroupName,
        toll: Option<Toll>,
    ) -> Result<BTreeSet<ServerId>, ControlError> {
        let mailbox = self.mailbox(group).await.ok_or_else(|| ControlError::NoGroup(group.clone()))?;
        ask(&self.shared, &mailbox, |answer| Message::ChooseVictims(toll, answer)).await?
    }

    /// Destroys servers of a group that were chosen just now, and waits until it is whole again.
    pub async fn drill(
        &self,
        group: &GroupName,
        victims: BTreeSet<ServerId>,
        reason: &str,
    ) -> Result<Drill, ControlError> {
        let mailbox = self.mailbox(group).await.ok_or_else(|| ControlError::NoGroup(group.clone()))?;
        let rest = ask(&self.shared, &mailbox, Message::Rest).await?;
        let target = Target::Group(group.clone());
        let mut row = begun(&target, self.shared.now(), reason, &victims);
        let doomed = |_: &GroupName, server: &ServerAtStake| victims.contains(&server.id);
        let stakes = self.at_stake(std::slice::from_ref(group), doomed, Look::Declared).await?;
        row.drill.lines = stakes.iter().flat_map(|group| &group.servers).filter_map(|s| s.stake.lines).sum();
        let before = self.failures().await;
        let order = Order { victims: victims.clone(), row: row.clone() };
        let recovered = ask(&self.shared, &mailbox, |answer| Message::Drill(Box::new(order), answer));
        let limit = rest.objectives.ready_within.unwrap_or_default().saturating_mul(10).clamp(PATIENCE, LONGEST);
        let recovered = match tokio::time::timeout(limit, recovered).await {
            Ok(Ok(result)) => result?,
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                // Whoever drills next need not wait for this one.
                mailbox.send(Message::EndDrill).ok();
                Err(format!("it was not whole again within {} s", limit.as_secs()))
            }
        };
        let after = self.failures().await;
        let counted = before.zip(after).filter(|_| rest.published).map(|(before, after)| {
            after.since(&before, group) + victims.iter().filter_map(|id| before.open.get(id)).sum::<u64>()
        });
        let ready = recovered.as_ref().ok().map(|recovered| recovered.ready);
        let figures = Figures { ready, failed: counted, lost: lost(&stakes) };
        let missed = rest.objectives.missed(&figures).iter().map(ToString::to_string).collect();
        self.end_drill(&target, row, figures, missed, recovered.err()).await
    }

    /// Writes and tells what a drill came to.
    pub(crate) async fn end_drill(
        &self,
        target: &Target,
        mut row: DrillRow,
        figures: Figures,
        missed: Vec<String>,
        broken: Option<String>,
    ) -> Result<Drill, ControlError> {
        let drill = &mut row.drill;
        (drill.ready, drill.failed, drill.lost) = (figures.ready, figures.failed, figures.lost);
        drill.state = match (&broken, missed.is_empty()) {
            (Some(_), _) => BROKEN_OFF,
            (None, true) => "met",
            (None, false) => "missed",
        }
        .to_owned();
        drill.missed = broken.into_iter().chain(missed).collect();
        let reason = said(drill);
        let group = target.group().cloned();
        let inputs = serde_json::to_value(&*drill).unwrap_or_default();
        let mut batch = Batch::default();
        batch.record(Record { at: self.shared.now(), action: "drill-over", group, server: None, inputs, reason });
        batch.drill(target, &row);
        self.shared.drills.note(target, &row);
        self.shared.emit(Event::Drill { drill: Box::new(row.drill.clone()) });
        self.shared.db.write(Arc::new(batch)).await?;
        Ok(row.drill)
    }

    /// Writes that something else than servers is about to be destroyed.
    pub(crate) async fn begin_drill(&self, target: &Target, reason: &str) -> Result<DrillRow, ControlError> {
        let mut row = begun(target, self.shared.now(), reason, &BTreeSet::new());
        if let Some(before) = self.failures().await {
            (row.failed_before, row.gateway) = (before.failed, before.gateway);
        }
        let mut batch = Batch::default();
        record_begin(&self.shared, &mut batch, target, &row);
        self.shared.db.write(Arc::new(batch)).await?;
        Ok(row)
    }

    /// How every group stands.
    pub(crate) async fn rest(&self) -> Result<BTreeMap<GroupName, Rest>, ControlError> {
        let mut all = BTreeMap::new();
        for (name, mailbox) in self.mailboxes(&[]).await? {
            // A group that is just ending needs nothing.
            if let Ok(rest) = ask(&self.shared, &mailbox, Message::Rest).await {
                all.insert(name, rest);
            }
        }
        Ok(all)
    }

    /// What is to be drilled now by the fleet's clock, and how the fleet says that.
    pub async fn due_drills(&self) -> BTreeMap<Target, String> {
        let mut due = BTreeMap::new();
        for (_, mailbox) in self.mailboxes(&[]).await.unwrap_or_default() {
            // A group that is just ending asks for nothing.
            due.extend(ask(&self.shared, &mailbox, Message::DrillsDue).await.unwrap_or_default());
        }
        due
    }

    /// The last drills of the gateway and of the daemon.
    pub(crate) fn own_drills(&self) -> Vec<Drill> {
        [Target::Gateway, Target::Daemon].iter().filter_map(|target| self.shared.drills.of(target)).collect()
    }

    /// Ends what an earlier daemon had begun: its own end is a drill of the daemon that has come to its end now.
    pub async fn finish_drills(&self) -> Result<(), ControlError> {
        for (target, row) in self.shared.drills.running() {
            match target {
                Target::Daemon => drop(self.came_back(row).await?),
                other => {
                    let figures = Figures { ready: None, failed: None, lost: None };
                    let why = Some("the daemon ended in the middle of it".to_owned());
                    self.end_drill(&other, row, figures, Vec::new(), why).await?;
                }
            }
        }
        Ok(())
    }

    async fn came_back(&self, row: DrillRow) -> Result<Drill, ControlError> {
        let at = row.drill.at.parse().unwrap_or_else(|_| self.shared.now());
        let ready = Duration::try_from(self.shared.now().duration_since(at)).unwrap_or_default();
        let before = Failures { gateway: row.gateway, failed: row.failed_before.clone(), open: BTreeMap::default() };
        let after = self.failures().await;
        let (mut failed, mut missed) = (Some(0), Vec::new());
        for (group, rest) in self.rest().await? {
            let of = after.as_ref().map(|after| after.since(&before, &group)).filter(|_| rest.published);
            failed = failed.zip(of.or((!rest.published).then_some(0))).map(|(all, of)| all + of);
            // How soon servers are ready has nothing to do with the daemon: they run on.
            let objectives = Objectives { ready_within: None, lost: None, ..rest.objectives };
            let figures = Figures { ready: Some(ready), failed: of, lost: Some(0) };
            missed.extend(named(&group, &objectives, &figures, rest.published));
        }
        let figures = Figures { ready: Some(ready), failed, lost: Some(0) };
        self.end_drill(&Target::Daemon, row, figures, missed, None).await
    }

    async fn failures(&self) -> Option<Failures> {
        match self.shared.traffic.failures().await {
            Ok(failures) => Some(failures),
            Err(error) => {
                tracing::info!(reason = chain(&error), "what the gateway counted is not known");
                None
            }
        }
    }
}

/// The objectives of a group that were not met, with its name. Where nobody leads requests to it none is counted.
pub(crate) fn named(group: &GroupName, objectives: &Objectives, figures: &Figures, published: bool) -> Vec<String> {
    let failed = objectives.failed.filter(|_| published);
    let objectives = Objectives { failed, ..*objectives };
    objectives.missed(figures).iter().map(|missed| format!("group {group}: {missed}")).collect()
}

/// Bytes outside volumes; none where nobody could look into one of them.
fn lost(stakes: &[GroupStake]) -> Option<u64> {
    let servers = stakes.iter().flat_map(|group| &group.servers);
    servers.map(|server| server.stake.unknown.is_none().then(|| server.stake.bytes())).sum()
}

/// What it came to, in words.
pub(crate) fn said(drill: &Drill) -> String {
    let ready = drill.ready.map(|ready| format!("ready after {:.1} ms", ready.as_secs_f64() * 1e3));
    let ready = ready.unwrap_or_else(|| "not ready".to_owned());
    let failed = drill.failed.map_or_else(|| "requests not counted".to_owned(), |n| format!("{n} requests failed"));
    let lost = drill.lost.map_or_else(|| "what was lost is not known".to_owned(), |n| format!("{n} bytes lost"));
    let end = match drill.state.as_str() {
        "met" => "every objective was met".to_owned(),
        BROKEN_OFF => format!("broken off: {}", drill.missed.join("; ")),
        _ => format!("not as the fleet wants it: {}", drill.missed.join("; ")),
    };
    format!("{ready}, {failed}, {lost}: {end}")
}
