//! Who reads the load of a group: one task, by the clock, and at once when the gateway says that a request waits.
//!
//! A reading between two others tells only whether requests wait: no rate is taken over so short a time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kiln_api::error::chain;
use kiln_model::{GroupName, ServerId, fleet::Measure};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep_until, timeout},
};

use super::{Follows, metric};
use crate::{group::Message, shared::Shared, traffic::TrafficLoad};

/// While requests wait it is looked again after this time: the group may not have been ready for a change.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The engine must have answered within this time.
const LIMIT: Duration = Duration::from_secs(2);

/// What was seen at one time.
pub(crate) struct Reading {
    pub(super) at: Instant,
    /// Whether it is between two readings.
    pub(super) early: bool,
    pub(super) gateway: Result<TrafficLoad, String>,
    pub(super) other: Other,
}

/// What is followed beside the gateway.
pub(super) enum Other {
    Nothing,
    /// Processor time of each server.
    Spent(Result<BTreeMap<ServerId, Duration>, String>),
    /// What an endpoint said.
    Told(Result<f64, String>),
}

pub(super) struct Reader {
    pub shared: Arc<Shared>,
    pub group: GroupName,
    pub follows: Follows,
    pub wake: Arc<Notify>,
    pub mailbox: mpsc::UnboundedSender<Message>,
}

impl Reader {
    pub async fn run(self) {
        let mut early = false;
        let mut next = Instant::now();
        loop {
            let reading = self.read(early).await;
            let waiting = reading.gateway.as_ref().is_ok_and(|load| load.waiting.contains_key(&self.group));
            if self.mailbox.send(Message::Load(reading)).is_err() {
                return;
            }
            if !early {
                next = Instant::now() + self.shared.load_every;
            }
            let again = Instant::now() + LOOK_AGAIN;
            let soon = self.follows.sleeps && waiting && again < next;
            tokio::select! {
                () = sleep_until(if soon { again } else { next }) => early = soon,
                () = self.wake.notified() => early = true,
            }
        }
    }

    async fn read(&self, early: bool) -> Reading {
        let gateway = match self.follows.of {
            Measure::RequestsPerSecond | Measure::Connections => self.gateway().await,
            _ if self.follows.sleeps => self.gateway().await,
            Measure::Cpu | Measure::Custom(_) => Ok(TrafficLoad::default()),
        };
        let other = match &self.follows.of {
            Measure::Cpu if !early => Other::Spent(self.spent().await),
            Measure::Custom(metric) if !early => {
                Other::Told(metric::ask(metric, self.shared.now()).await.map_err(|error| chain(&error)))
            }
            _ => Other::Nothing,
        };
        Reading { at: Instant::now(), early, gateway, other }
    }

    async fn gateway(&self) -> Result<TrafficLoad, String> {
        self.shared.traffic.load().await.map_err(|error| chain(&error))
    }

    async fn spent(&self) -> Result<BTreeMap<ServerId, Duration>, String> {
        let engine = &self.shared.engine;
        let meters = engine.meters().ok_or_else(|| format!("engine {} tells no processor time", engine.name()))?;
        match timeout(LIMIT, meters.processor_time(&self.group)).await {
            Ok(read) => read.map_err(|error| chain(&error)),
            Err(_) => Err(format!("the engine did not tell the processor time within {} s", LIMIT.as_secs())),
        }
    }
}
