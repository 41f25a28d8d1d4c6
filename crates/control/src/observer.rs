//! The one task that looks at the engine: when a hint comes, and now and then without a reason.
//!
//! Hints carry no truth. Whatever they say, the full set of servers is read again, and every group whose part of it is another
//! than before gets its part; now and then every group does. Hints that arrive while it is being read are answered by one
//! more reading.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kiln_api::Event;
use kiln_engine::{Hint, Observed};
use kiln_model::{GroupName, ServerId};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::Instant,
};

use crate::{handle::Groups, shared::Shared};

/// Without hints the engine is looked at this often.
const TICK: Duration = Duration::from_secs(10);
/// An engine that does not answer is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What the engine saw of a group at one time.
#[derive(Default)]
pub(crate) struct Part {
    pub servers: BTreeMap<ServerId, Observed>,
}

/// Everything of ours that the engine saw at one time.
pub(crate) struct Snapshot {
    /// When it began to look.
    pub begun: Instant,
    parts: BTreeMap<Option<GroupName>, Arc<Part>>,
}

impl Snapshot {
    /// What it saw of a group.
    pub fn of(&self, group: &GroupName) -> Arc<Part> {
        self.parts.get(&Some(group.clone())).cloned().unwrap_or_default()
    }

    /// Everything it saw.
    pub fn all(&self) -> impl Iterator<Item = &Observed> {
        self.parts.values().flat_map(|part| part.servers.values())
    }
}

/// Looks at the engine once.
pub(crate) async fn look(shared: &Shared) -> Result<Snapshot, kiln_engine::EngineError> {
    let begun = Instant::now();
    let mut parts: BTreeMap<Option<GroupName>, Part> = BTreeMap::new();
    for seen in shared.engine.observe().await? {
        parts.entry(seen.group.clone()).or_default().servers.insert(seen.server.clone(), seen);
    }
    Ok(Snapshot { begun, parts: parts.into_iter().map(|(group, part)| (group, Arc::new(part))).collect() })
}

/// Looks at the engine for ever.
pub(crate) async fn run(shared: Arc<Shared>, groups: Groups, mut hints: Receiver<Hint>) {
    let mut told = Told::default();
    loop {
        let everybody = tokio::select! {
            hint = hints.recv() => match hint {
                Ok(_) | Err(RecvError::Lagged(_)) => false,
                // The engine gives no hints any more: it is looked at by the clock.
                Err(RecvError::Closed) => {
                    tokio::time::sleep(TICK).await;
                    true
                }
            },
            () = tokio::time::sleep(TICK) => true,
        };
        hints = hints.resubscribe();
        let begun = Instant::now();
        match look(&shared).await {
            Ok(snapshot) => told.tell(&shared, &groups, &snapshot, everybody).await,
            Err(error) => {
                let message = format!("the servers cannot be seen: {}", kiln_api::error::chain(&error));
                shared.emit(Event::Warning { message });
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
        // With very many servers a look takes its time; it takes at most half of it.
        tokio::time::sleep(begun.elapsed()).await;
    }
}

/// What each group was told last.
#[derive(Default)]
struct Told(BTreeMap<GroupName, Arc<Part>>);

impl Told {
    async fn tell(&mut self, shared: &Arc<Shared>, groups: &Groups, snapshot: &Snapshot, everybody: bool) {
        let groups = groups.lock().await;
        self.0.retain(|group, _| groups.contains_key(group));
        for (group, mailbox) in &*groups {
            let part = snapshot.of(group);
            let known = self.0.insert(group.clone(), part.clone());
            if everybody || known.is_none_or(|known| known.servers != part.servers) {
                // A group that is just ending needs no news.
                mailbox.send(crate::group::Message::Snapshot(snapshot.begun, part)).ok();
            }
        }
        let stray = snapshot.all().filter(|seen| seen.group.as_ref().is_some_and(|group| !groups.contains_key(group)));
        for seen in stray.cloned() {
            let shared_too = shared.clone();
            shared.spawn(async move { crate::group::destroy(&shared_too, &seen.server, seen.generation).await });
        }
    }
}
