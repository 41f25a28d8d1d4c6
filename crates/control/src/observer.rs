//! The one task that looks at the engine: when a hint comes, when somebody waits for something that gives no hint, and now
//! and then without a reason.
//!
//! Hints carry no truth. Whatever they say, the full set of servers is read again, and every group gets it. Hints that
//! arrive while it is being read are answered by one more reading.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kiln_api::Event;
use kiln_engine::{Hint, Observed};
use kiln_model::ServerId;
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, timeout},
};

use crate::{handle::Groups, shared::Shared};

/// Without hints the engine is looked at this often.
const TICK: Duration = Duration::from_secs(10);
/// An engine that does not answer is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Everything of ours that the engine saw at one time.
pub(crate) struct Snapshot {
    /// When it began to look.
    pub begun: Instant,
    pub servers: BTreeMap<ServerId, Observed>,
}

/// Looks at the engine once.
pub(crate) async fn look(shared: &Shared) -> Result<Snapshot, kiln_engine::EngineError> {
    let begun = Instant::now();
    let servers = shared.engine.observe().await?;
    Ok(Snapshot { begun, servers: servers.into_iter().map(|seen| (seen.server.clone(), seen)).collect() })
}

/// Looks at the engine for ever.
pub(crate) async fn run(shared: Arc<Shared>, groups: Groups, mut hints: Receiver<Hint>) {
    loop {
        tokio::select! {
            hint = hints.recv() => if matches!(hint, Err(RecvError::Closed)) {
                // The engine gives no hints any more: it is looked at by the clock and on demand.
                timeout(TICK, shared.look.notified()).await.ok();
            },
            () = shared.look.notified() => {}
            () = tokio::time::sleep(TICK) => {}
        }
        hints = hints.resubscribe();
        let begun = Instant::now();
        match look(&shared).await {
            Ok(snapshot) => tell(&shared, &groups, Arc::new(snapshot)).await,
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

async fn tell(shared: &Arc<Shared>, groups: &Groups, snapshot: Arc<Snapshot>) {
    let groups = groups.lock().await;
    for mailbox in groups.values() {
        // A group that is just ending needs no news.
        mailbox.send(crate::group::Message::Snapshot(snapshot.clone())).ok();
    }
    let stray = snapshot.servers.values().filter(|seen| seen.group.as_ref().is_some_and(|g| !groups.contains_key(g)));
    for seen in stray.cloned() {
        let shared_too = shared.clone();
        shared.spawn(async move { crate::group::destroy(&shared_too, &seen.server, seen.generation).await });
    }
}
