//! How many lines of a server its collector has not acknowledged.
//!
//! A service that writes all the time has lines under way at every instant, and none of them is lost: a server that ended waits for its
//! collector. So what counts are the lines that were there when somebody asked, and that a collector which is there has not
//! acknowledged a little later. One that is away acknowledges nothing: nobody waits for it.

use std::{collections::BTreeMap, sync::PoisonError, time::Duration};

use kiln_model::{GroupName, ServerId};
use tokio::{sync::oneshot, time::Instant};

use super::{
    hub::{Command, Logs},
    lines::LineId,
};

/// A collector that is there gets this long.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What has not arrived of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    pub lines: u64,
    /// The last line that was there.
    pub end: LineId,
}

/// Up to which line of each server.
pub(super) type UpTo = BTreeMap<ServerId, LineId>;

impl Logs {
    /// The lines of each server of a group that its collector has not acknowledged. None where there is no collector.
    pub async fn unacknowledged(&self, group: &GroupName) -> Option<BTreeMap<ServerId, u64>> {
        let until = Instant::now() + PATIENCE;
        let mut up_to = UpTo::new();
        loop {
            let (left, away) = self.left(group, up_to.clone()).await?;
            let over = away || Instant::now() >= until || left.values().all(|left| left.lines == 0);
            if over {
                return Some(left.into_iter().map(|(server, left)| (server, left.lines)).collect());
            }
            for (server, left) in left {
                up_to.entry(server).or_insert(left.end);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Asks the group's shipper, and whether its collector is away.
    async fn left(&self, group: &GroupName, up_to: UpTo) -> Option<(BTreeMap<ServerId, Left>, bool)> {
        let (answer, answered) = oneshot::channel();
        let counts = self.ask(group, Command::Left(up_to, answer))?;
        let left = answered.await.ok()?;
        let away = counts.away.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        Some((left, away))
    }
}
