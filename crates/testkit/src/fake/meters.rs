//! Processor time of fake servers: as much as [`super::Manners`] say, spent evenly by those of a group that run.

use std::{collections::BTreeMap, time::Duration};

use kiln_engine::{EngineError, Meters, Phase};
use kiln_model::{GroupName, ServerId};
use tokio::time::Instant;

use super::{FakeEngine, State};

/// What each server has used, and until when, by group.
pub(super) type Spent = BTreeMap<GroupName, (Option<Instant>, BTreeMap<ServerId, Duration>)>;

impl State {
    fn spend(&mut self, group: &GroupName) -> BTreeMap<ServerId, Duration> {
        let running = self.servers.values().filter(|fake| fake.seen.phase == Phase::Running);
        let running: Vec<_> = running.filter(|fake| fake.seen.group.as_ref() == Some(group)).collect();
        let (until, spent) = self.spent.entry(group.clone()).or_default();
        let now = Instant::now();
        let passed = until.replace(now).map_or(Duration::ZERO, |until| now - until);
        let each = passed * self.manners.busy_millis / 1000 / running.len().max(1) as u32;
        spent.retain(|server, _| running.iter().any(|fake| fake.seen.server == *server));
        for fake in running {
            *spent.entry(fake.seen.server.clone()).or_default() += each;
        }
        spent.clone()
    }
}

#[async_trait::async_trait]
impl Meters for FakeEngine {
    async fn processor_time(&self, group: &GroupName) -> Result<BTreeMap<ServerId, Duration>, EngineError> {
        let mut state = self.state();
        Ok(if state.manners.unmetered { BTreeMap::new() } else { state.spend(group) })
    }
}
