//! Live keys: the few values that may change in a running server.
//!
//! They are no part of a release. A group's live values are those of its fleet (or the recipe's defaults), and over them what
//! somebody has set since. They have a version that grows whenever what servers see changes, are on disk before anybody sees
//! them, and outlive the daemon. Servers ask for them through metadata; test servers see the defaults, or what the further
//! configuration under test says.

mod error;
mod values;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use kiln_model::{
    GroupName, ServerId,
    config::{ConfigKey, ConfigSchema, ConfigValue, Delivery},
};
use serde_json::json;
use tokio::sync::watch;

pub use self::{
    error::LiveError,
    values::{LiveValues, SetValue},
};
use crate::{
    db::{Batch, Db, Record},
    shared::Clock,
};

/// So much of a value stands in the audit trail, in characters.
const RECORDED: usize = 200;

type Groups = BTreeMap<GroupName, watch::Sender<Arc<LiveValues>>>;

/// The live values of all groups.
pub struct Live {
    db: Db,
    clock: Clock,
    groups: Mutex<Groups>,
    tests: Mutex<BTreeMap<ServerId, watch::Sender<Arc<LiveValues>>>>,
    /// Held by changes, so that each sees the one before it.
    changes: tokio::sync::Mutex<()>,
}

impl Live {
    /// With what was on disk.
    pub(crate) fn new(db: Db, clock: Clock, loaded: BTreeMap<GroupName, LiveValues>) -> Self {
        let groups = loaded.into_iter().map(|(name, values)| (name, watch::Sender::new(Arc::new(values)))).collect();
        Self { db, clock, groups: Mutex::new(groups), tests: Mutex::default(), changes: Default::default() }
    }

    /// The values of a group now.
    pub fn of(&self, group: &GroupName) -> Arc<LiveValues> {
        self.locked().get(group).map(|values| values.borrow().clone()).unwrap_or_default()
    }

    /// The values of a group, to be watched. A group that has none may get some.
    pub fn watch(&self, group: &GroupName) -> watch::Receiver<Arc<LiveValues>> {
        self.locked().entry(group.clone()).or_default().subscribe()
    }

    /// What a test server is told.
    pub fn watch_test(&self, server: &ServerId) -> Option<watch::Receiver<Arc<LiveValues>>> {
        let tests = self.tests.lock().unwrap_or_else(PoisonError::into_inner);
        tests.get(server).map(watch::Sender::subscribe)
    }

    /// Tells a test server these values until the result is dropped.
    pub fn lend(self: &Arc<Self>, server: &ServerId, values: BTreeMap<ConfigKey, ConfigValue>) -> Lent {
        let values = LiveValues { version: 1, fleet: values, set: BTreeMap::new() };
        let mut tests = self.tests.lock().unwrap_or_else(PoisonError::into_inner);
        tests.insert(server.clone(), watch::Sender::new(Arc::new(values)));
        Lent { live: self.clone(), server: server.clone() }
    }

    /// Takes what a fleet gives to a group now. What somebody set stays where the image still has such a live key.
    pub async fn apply(
        &self,
        group: &GroupName,
        schema: &ConfigSchema,
        fleet: BTreeMap<ConfigKey, ConfigValue>,
    ) -> Result<(), LiveError> {
        let _change = self.changes.lock().await;
        let before = self.of(group);
        let mut after = LiveValues { fleet, ..before.as_ref().clone() };
        after.set.retain(|key, set| {
            let spec = schema.0.get(key).filter(|spec| spec.delivery == Delivery::Live);
            spec.is_some_and(|spec| spec.kind.fit(&set.value).is_ok())
        });
        if after == *before {
            return Ok(());
        }
        let what = (json!({}), "the live values of the fleet".to_owned());
        self.publish(group, &before, after, what).await.map(drop)
    }

    /// Sets a live key of a group, or resets it to what the fleet says. The values are on disk when this returns.
    pub async fn set(
        &self,
        group: &GroupName,
        schema: &ConfigSchema,
        key: &ConfigKey,
        value: Option<&str>,
    ) -> Result<Arc<LiveValues>, LiveError> {
        let value = value.map(|text| fitting(schema, key, text)).transpose()?;
        must_be_live(schema, key)?;
        let _change = self.changes.lock().await;
        let before = self.of(group);
        let mut after = before.as_ref().clone();
        let what = match value {
            Some(value) => {
                let shown: String = value.to_text().chars().take(RECORDED).collect();
                after.set.insert(key.clone(), SetValue { value, at: (self.clock)() });
                (json!({ "key": key, "value": shown }), format!("live key `{key}` set to {shown:?}"))
            }
            None => {
                after.set.remove(key);
                (json!({ "key": key }), format!("live key `{key}` reset to the fleet's value"))
            }
        };
        self.publish(group, &before, after, what).await
    }

    /// First on disk, then seen.
    async fn publish(
        &self,
        group: &GroupName,
        before: &LiveValues,
        mut after: LiveValues,
        (inputs, what): (serde_json::Value, String),
    ) -> Result<Arc<LiveValues>, LiveError> {
        let changed = before.seen() != after.seen();
        after.version = before.version + u64::from(changed);
        let mut batch = Batch::default();
        batch.live(group, &after);
        batch.record(Record {
            at: (self.clock)(),
            action: "live",
            group: Some(group.clone()),
            server: None,
            inputs,
            reason: format!("{what} (version {})", after.version),
        });
        self.db.write(Arc::new(batch)).await?;
        let after = Arc::new(after);
        let sent = after.clone();
        self.locked().entry(group.clone()).or_default().send_if_modified(|values| {
            *values = sent;
            changed
        });
        Ok(after)
    }

    /// Forgets a group that is gone.
    pub(crate) fn forget(&self, group: &GroupName) {
        self.locked().remove(group);
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn must_be_live(schema: &ConfigSchema, key: &ConfigKey) -> Result<(), LiveError> {
    let live = |spec: &kiln_model::config::KeySpec| spec.delivery == Delivery::Live;
    match schema.0.get(key) {
        Some(spec) if live(spec) => Ok(()),
        Some(_) => Err(LiveError::NotLive { key: key.clone() }),
        None => {
            let known = schema.0.iter().filter(|(_, spec)| live(spec)).map(|(key, _)| key.to_string()).collect();
            Err(LiveError::NoKey { key: key.clone(), known })
        }
    }
}

fn fitting(schema: &ConfigSchema, key: &ConfigKey, text: &str) -> Result<ConfigValue, LiveError> {
    must_be_live(schema, key)?;
    let kind = &schema.0[key].kind;
    kind.read(&ConfigValue::Text(text.to_owned())).map_err(|unfit| LiveError::Unfit { key: key.clone(), unfit })
}

/// What a test server is told, as long as it is there.
pub struct Lent {
    live: Arc<Live>,
    server: ServerId,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.live.tests.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.server);
    }
}
