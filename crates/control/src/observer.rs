//! The one task that looks at the engine: when a hint comes, and now and then without a reason.
//!
//! Hints carry no truth: the servers that they name are read again, all those of the hints that wait at once, and every group whose
//! part is another than before gets its part. Now and then, and whenever hints were lost, the full set is read and every
//! group gets its part. Only a full look says of a server that nobody hinted at that it is not there any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kiln_api::Event;
use kiln_engine::{Hint, Observed};
use kiln_model::{GroupName, ServerId};
use tokio::{
    sync::broadcast::{
        Receiver,
        error::{RecvError, TryRecvError},
    },
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
    /// Servers that were looked for by name and are not there, and when that look began.
    pub gone: BTreeMap<ServerId, Instant>,
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
        let next = next(&mut hints).await;
        let begun = Instant::now();
        // Also while there are hints all the time.
        let due = told.full.is_none_or(|full| full.elapsed() >= TICK);
        let looked = match &next {
            Next::Some(servers) if !due => told.look_again(&shared, &groups, servers).await,
            _ => match look(&shared).await {
                Ok(snapshot) => {
                    told.tell(&shared, &groups, &snapshot, due).await;
                    Ok(())
                }
                Err(error) => Err(error),
            },
        };
        if let Err(error) = looked {
            let message = format!("the servers cannot be seen: {}", kiln_api::error::chain(&error));
            shared.emit(Event::Warning { message });
            // What was hinted at is in the full set as well.
            told.full = None;
            tokio::time::sleep(ASK_AGAIN).await;
        }
        // With very many servers a look takes its time; it takes at most half of it.
        tokio::time::sleep(begun.elapsed()).await;
    }
}

/// What is looked at next.
enum Next {
    /// The servers of the hints that wait.
    Some(BTreeSet<ServerId>),
    /// All: it is time, or hints were lost.
    All,
}

async fn next(hints: &mut Receiver<Hint>) -> Next {
    let mut hint = tokio::select! {
        hint = hints.recv() => hint,
        () = tokio::time::sleep(TICK) => return Next::All,
    };
    let mut servers = BTreeSet::new();
    loop {
        match hint {
            Ok(Hint::Server(server)) => {
                servers.insert(server);
            }
            Err(RecvError::Lagged(_)) => {
                *hints = hints.resubscribe();
                return Next::All;
            }
            // The engine gives no hints any more: it is looked at by the clock.
            Err(RecvError::Closed) => {
                tokio::time::sleep(TICK).await;
                return Next::All;
            }
        }
        hint = match hints.try_recv() {
            Ok(more) => Ok(more),
            Err(TryRecvError::Empty) => return Next::Some(servers),
            Err(TryRecvError::Lagged(missed)) => Err(RecvError::Lagged(missed)),
            Err(TryRecvError::Closed) => Err(RecvError::Closed),
        };
    }
}

/// What each group was told last.
#[derive(Default)]
struct Told {
    parts: BTreeMap<GroupName, Arc<Part>>,
    /// Whose each server is.
    group_of: BTreeMap<ServerId, GroupName>,
    /// When the full set was looked at last: what is missing from a part is missing since then at most.
    full: Option<Instant>,
}

impl Told {
    /// Tells every group, or those for which it is news, what was seen of it.
    async fn tell(&mut self, shared: &Arc<Shared>, groups: &Groups, snapshot: &Snapshot, everybody: bool) {
        let groups = groups.lock().await;
        self.full = Some(snapshot.begun);
        let known = std::mem::take(&mut self.parts);
        self.group_of.clear();
        for (group, mailbox) in &*groups {
            let part = snapshot.of(group);
            self.group_of.extend(part.servers.keys().map(|server| (server.clone(), group.clone())));
            self.parts.insert(group.clone(), part.clone());
            if everybody || known.get(group).is_none_or(|known| known.servers != part.servers) {
                // A group that is just ending needs no news.
                mailbox.send(crate::group::Message::Snapshot(snapshot.begun, part)).ok();
            }
        }
        destroy_strays(shared, &groups, snapshot.all());
    }

    /// Looks at some servers only, and tells their groups: what a change costs does not depend on how much there is beside it.
    async fn look_again(
        &mut self,
        shared: &Arc<Shared>,
        groups: &Groups,
        servers: &BTreeSet<ServerId>,
    ) -> Result<(), kiln_engine::EngineError> {
        let looked = Instant::now();
        let seen = shared.engine.observe_some(servers).await?;
        let groups = groups.lock().await;
        destroy_strays(shared, &groups, seen.iter());
        let mut found: BTreeMap<ServerId, Observed> =
            seen.into_iter().map(|seen| (seen.server.clone(), seen)).collect();
        let mut changed: BTreeMap<GroupName, Part> = BTreeMap::new();
        for server in servers {
            let seen = found.remove(server);
            let group =
                seen.as_ref().and_then(|seen| seen.group.clone()).or_else(|| self.group_of.get(server).cloned());
            let Some(group) = group.filter(|group| groups.contains_key(group)) else { continue };
            let part = changed.entry(group.clone()).or_insert_with(|| self.copy(&group));
            match seen {
                Some(seen) => {
                    self.group_of.insert(server.clone(), group);
                    part.servers.insert(server.clone(), seen);
                }
                None => {
                    self.group_of.remove(server);
                    part.servers.remove(server);
                    part.gone.insert(server.clone(), looked);
                }
            }
        }
        let begun = self.full.unwrap_or_else(Instant::now);
        for (group, part) in changed {
            let part = Arc::new(part);
            let known = self.parts.insert(group.clone(), part.clone());
            if let Some(mailbox) = groups.get(&group).filter(|_| known.is_none_or(|k| k.servers != part.servers)) {
                // A group that is just ending needs no news.
                mailbox.send(crate::group::Message::Snapshot(begun, part)).ok();
            }
        }
        Ok(())
    }

    fn copy(&self, group: &GroupName) -> Part {
        let servers = self.parts.get(group).map(|part| part.servers.clone()).unwrap_or_default();
        Part { servers, gone: BTreeMap::new() }
    }
}

/// Servers of groups that there are no more.
fn destroy_strays<'a>(
    shared: &Arc<Shared>,
    groups: &crate::group::Mailboxes,
    seen: impl Iterator<Item = &'a Observed>,
) {
    let stray = seen.filter(|seen| seen.group.as_ref().is_some_and(|group| !groups.contains_key(group)));
    for seen in stray.cloned() {
        let shared_too = shared.clone();
        shared.spawn(async move { crate::group::destroy(&shared_too, &seen.server, seen.generation).await });
    }
}
