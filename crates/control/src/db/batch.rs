//! What is written together.

use jiff::Timestamp;
use kiln_model::{FrozenConfig, GroupName, ServerId, VolumeId};
use rusqlite::{Transaction, params};

use super::{
    chain::{self, Record},
    load::{GroupRow, PastRelease, ServerRow},
};
use crate::{
    live::LiveValues,
    logs::Arrived,
    moves::Move,
    recovery::{DrillRow, Target},
    volumes::VolumeRow,
};

/// Numbers an intention. Chosen by the writer, so that it need not wait to know it.
pub(crate) type IntentionId = i64;

/// Something that is about to be done to a server.
#[derive(Debug, Clone)]
pub(crate) struct Intention {
    pub id: IntentionId,
    pub group: GroupName,
    pub server: ServerId,
    pub generation: u64,
    pub action: &'static str,
    pub why: String,
    /// What it was decided from, for the audit log.
    pub inputs: serde_json::Value,
    pub at: Timestamp,
}

enum Write {
    Group(Box<GroupRow>),
    ForgetGroup(GroupName),
    Release(GroupName, Box<PastRelease>),
    Config(Box<FrozenConfig>),
    Server(Box<ServerRow>),
    ForgetServer(ServerId),
    Open(Intention),
    Close(IntentionId, Timestamp, String),
    Record(Box<Record>),
    Counter(&'static str, i64),
    Live(GroupName, Box<LiveValues>),
    Volume(VolumeId, Box<VolumeRow>),
    ForgetVolume(VolumeId),
    Move(Box<Move>),
    Arrived(ServerId, Box<Arrived>),
    Drill(Target, Box<DrillRow>),
}

/// Writes that become true together.
#[derive(Default)]
pub(crate) struct Batch(Vec<Write>);

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// How many rows are written, about.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether losing it in a crash loses nothing that the engine does not tell again: how far servers have come.
    pub fn may_wait(&self) -> bool {
        self.0.iter().all(|write| matches!(write, Write::Server(_) | Write::Close(..)))
    }
    pub fn group(&mut self, row: &GroupRow) {
        self.0.push(Write::Group(Box::new(row.clone())));
    }
    /// Removes a group and the releases it had.
    pub fn forget_group(&mut self, name: &GroupName) {
        self.0.push(Write::ForgetGroup(name.clone()));
    }
    pub fn release(&mut self, group: &GroupName, release: &PastRelease) {
        self.0.push(Write::Config(Box::new(release.config.clone())));
        self.0.push(Write::Release(group.clone(), Box::new(release.clone())));
    }
    pub fn server(&mut self, row: &ServerRow) {
        self.0.push(Write::Server(Box::new(row.clone())));
    }
    pub fn forget_server(&mut self, id: &ServerId) {
        self.0.push(Write::ForgetServer(id.clone()));
    }
    pub fn open(&mut self, intention: Intention) {
        self.0.push(Write::Open(intention));
    }
    pub fn close(&mut self, id: IntentionId, at: Timestamp, outcome: impl Into<String>) {
        self.0.push(Write::Close(id, at, outcome.into()));
    }
    /// An entry of the audit log.
    pub fn record(&mut self, record: Record) {
        self.0.push(Write::Record(Box::new(record)));
    }
    /// An entry of the audit log that has nothing but words.
    pub fn audit(&mut self, at: Timestamp, group: Option<&GroupName>, server: Option<&ServerId>, what: String) {
        let (group, server, inputs) = (group.cloned(), server.cloned(), serde_json::json!({}));
        self.record(Record { at, action: "note", group, server, inputs, reason: what });
    }
    /// The live values of a group.
    pub fn live(&mut self, group: &GroupName, values: &LiveValues) {
        self.0.push(Write::Live(group.clone(), Box::new(values.clone())));
    }
    pub fn volume(&mut self, id: &VolumeId, row: &VolumeRow) {
        self.0.push(Write::Volume(id.clone(), Box::new(row.clone())));
    }
    pub fn forget_volume(&mut self, id: &VolumeId) {
        self.0.push(Write::ForgetVolume(id.clone()));
    }
    /// How far a server's log lines have arrived.
    pub fn arrived(&mut self, server: &ServerId, arrived: &Arrived) {
        self.0.push(Write::Arrived(server.clone(), Box::new(arrived.clone())));
    }
    /// The last recovery drill of something.
    pub fn drill(&mut self, target: &Target, row: &DrillRow) {
        self.0.push(Write::Drill(target.clone(), Box::new(row.clone())));
    }
    /// A move of a channel.
    pub fn moved(&mut self, moved: Move) {
        self.0.push(Write::Move(Box::new(moved)));
    }
    pub fn counter(&mut self, name: &'static str, value: i64) {
        self.0.push(Write::Counter(name, value));
    }

    pub(super) fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        self.0.iter().try_for_each(|write| write.write(transaction))
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain data always serialises")
}

impl Write {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let run =
            |sql: &str, params: &[&dyn rusqlite::ToSql]| transaction.prepare_cached(sql)?.execute(params).map(drop);
        match self {
            Self::Group(row) => write_group(transaction, row),
            Self::ForgetGroup(name) => {
                run("DELETE FROM releases WHERE group_name = ?1", params![name.as_str()])?;
                run("DELETE FROM live WHERE group_name = ?1", params![name.as_str()])?;
                run("DELETE FROM drills WHERE target = ?1", params![Target::Group(name.clone()).to_string()])?;
                run("DELETE FROM groups WHERE name = ?1", params![name.as_str()])
            }
            Self::Config(config) => run(
                "INSERT INTO configs VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                params![config.digest().to_string(), json(&**config)],
            ),
            Self::Release(group, release) => write_release(transaction, group, release),
            Self::Server(row) => write_server(transaction, row),
            Self::ForgetServer(id) => {
                run("DELETE FROM arrived WHERE server = ?1", params![id.as_str()])?;
                run("DELETE FROM servers WHERE id = ?1", params![id.as_str()])
            }
            Self::Open(intention) => open(transaction, intention),
            Self::Close(id, at, outcome) => run(
                "UPDATE intentions SET closed_at = ?2, outcome = ?3 WHERE id = ?1",
                params![id, at.to_string(), outcome],
            ),
            Self::Record(record) => chain::append(transaction, record),
            Self::Live(group, values) => run(
                "INSERT OR REPLACE INTO live VALUES (?1, ?2, ?3, ?4)",
                params![group.as_str(), values.version as i64, json(&values.fleet), json(&values.set)],
            ),
            Self::Volume(id, row) => {
                run("INSERT OR REPLACE INTO volumes VALUES (?1, ?2)", params![id.as_str(), json(row)])
            }
            Self::Arrived(server, arrived) => {
                run("INSERT OR REPLACE INTO arrived VALUES (?1, ?2)", params![server.as_str(), json(&**arrived)])
            }
            Self::Drill(target, row) => {
                run("INSERT OR REPLACE INTO drills VALUES (?1, ?2)", params![target.to_string(), json(&**row)])
            }
            Self::ForgetVolume(id) => run("DELETE FROM volumes WHERE id = ?1", params![id.as_str()]),
            Self::Move(moved) => run(
                "INSERT INTO moves (at, name, channel, image, before, who, how, reason, evidence, difference) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                params![
                    moved.at.to_string(),
                    moved.name.as_str(),
                    moved.channel.as_str(),
                    moved.image.to_string(),
                    moved.before.map(|before| before.to_string()),
                    moved.who,
                    moved.how,
                    moved.reason,
                    moved.evidence.to_string(),
                    moved.difference.to_string(),
                ],
            ),
            Self::Counter(name, value) => run("INSERT OR REPLACE INTO counters VALUES (?1, ?2)", params![name, value]),
        }
    }
}

fn write_group(transaction: &Transaction<'_>, row: &GroupRow) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO groups VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    transaction.prepare_cached(sql)?.execute(params![
        row.name.as_str(),
        row.revision as i64,
        row.release.to_string(),
        json(&row.spec),
        json(&row.evidence),
        row.progress.as_ref().map(json),
        json(&row.failures),
        json(&row.ports),
        row.removing,
        row.origins.as_ref().map(|origins| origins.0.to_string()),
        row.declined.map(|config| config.0.to_string()),
    ])?;
    Ok(())
}

fn write_release(transaction: &Transaction<'_>, group: &GroupName, release: &PastRelease) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO releases VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    transaction.prepare_cached(sql)?.execute(params![
        group.as_str(),
        release.id().to_string(),
        release.image.to_string(),
        release.config.digest().to_string(),
        release.suite.to_string(),
        release.settled,
    ])?;
    Ok(())
}

fn write_server(transaction: &Transaction<'_>, row: &ServerRow) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO servers VALUES \
               (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";
    transaction.prepare_cached(sql)?.execute(params![
        row.id.as_str(),
        row.group.as_str(),
        row.generation as i64,
        row.release.to_string(),
        json(&row.limits),
        json(&row.state),
        row.address.map(|address| address.to_string()),
        row.pid,
        row.launched_at.to_string(),
        row.ready_at.map(|at| at.to_string()),
        row.ready.map(|after| after.as_micros() as i64),
        row.in_traffic,
        row.rebuild,
        row.touched,
        row.reason,
        row.slot,
        json(&row.shared),
        row.spare,
    ])?;
    Ok(())
}

fn open(transaction: &Transaction<'_>, intention: &Intention) -> rusqlite::Result<()> {
    let sql = "INSERT INTO intentions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, NULL)";
    transaction.prepare_cached(sql)?.execute(params![
        intention.id,
        intention.group.as_str(),
        intention.server.as_str(),
        intention.generation as i64,
        intention.action,
        intention.why,
        intention.at.to_string(),
    ])?;
    let record = Record {
        at: intention.at,
        action: intention.action,
        group: Some(intention.group.clone()),
        server: Some(intention.server.clone()),
        inputs: intention.inputs.clone(),
        reason: intention.why.clone(),
    };
    chain::append(transaction, &record)
}
