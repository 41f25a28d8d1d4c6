//! One table for the gateway out of the routes of all groups.
//!
//! Groups send their part whenever it changes; parts that arrive while a table is being put in force go out together in
//! the next. A group is answered when a table that holds its part is in force. A gateway that does not answer is asked
//! again until it does: the answer waits. A route whose port belongs to another program is left out, so that it does
//! no harm to the others, and its group is told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kiln_api::Event;
use kiln_model::GroupName;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::traffic::{Bound, Route, Routes, Traffic, TrafficError};

/// The ports a group was given, or why it got none.
pub(crate) type Routed = Result<Vec<Bound>, String>;

struct Update {
    group: GroupName,
    routes: Vec<Route>,
    done: oneshot::Sender<Routed>,
}

/// Where groups send their part.
#[derive(Clone)]
pub(crate) struct RoutesHandle(mpsc::UnboundedSender<Update>);

impl RoutesHandle {
    /// Queues a group's part, in the order of the calls. The answer comes when it is in force.
    pub fn update(&self, group: GroupName, routes: Vec<Route>) -> oneshot::Receiver<Routed> {
        let (done, answer) = oneshot::channel();
        // If the task is gone the core has ended, and the receiver says so.
        drop(self.0.send(Update { group, routes, done }));
        answer
    }
}

struct Table {
    traffic: Arc<dyn Traffic>,
    events: broadcast::Sender<Event>,
    version: u64,
    parts: BTreeMap<GroupName, Vec<Route>>,
    taken: BTreeMap<u16, (GroupName, String)>,
}

/// Starts the task. `parts` is what the groups had when the daemon ended, so that no route is missing from the first
/// table. `version` is the first version to use.
pub(crate) fn start(
    traffic: Arc<dyn Traffic>,
    events: broadcast::Sender<Event>,
    version: u64,
    parts: BTreeMap<GroupName, Vec<Route>>,
    end: CancellationToken,
) -> RoutesHandle {
    let (sender, mut queue) = mpsc::unbounded_channel();
    let mut table = Table { traffic, events, version, parts, taken: BTreeMap::new() };
    tokio::spawn(async move {
        tokio::select! {
            () = end.cancelled() => {}
            () = table.serve(&mut queue) => {}
        }
    });
    RoutesHandle(sender)
}

impl Table {
    async fn serve(&mut self, queue: &mut mpsc::UnboundedReceiver<Update>) {
        let mut updates = Vec::new();
        while queue.recv_many(&mut updates, usize::MAX).await > 0 {
            let waiting: Vec<_> = updates.drain(..).map(|update| self.take(update)).collect();
            let bound = self.put_in_force().await;
            for (group, done) in waiting {
                let refused = self.taken.values().find(|(holder, _)| *holder == group);
                let answer = match refused {
                    Some((_, why)) => Err(why.clone()),
                    None => Ok(bound.iter().filter(|b| b.group == group).cloned().collect()),
                };
                // A group that ended does not wait for its answer.
                done.send(answer).ok();
            }
        }
    }

    fn take(&mut self, update: Update) -> (GroupName, oneshot::Sender<Routed>) {
        let Update { group, routes, done } = update;
        self.taken.retain(|_, (holder, _)| *holder != group);
        self.parts.insert(group.clone(), routes);
        (group, done)
    }

    async fn put_in_force(&mut self) -> Vec<Bound> {
        let mut pause = Duration::from_millis(20);
        loop {
            self.version += 1;
            let free = |route: &&Route| self.taken.get(&route.listen).is_none_or(|(group, _)| *group != route.group);
            let routes = self.parts.values().flatten().filter(free).cloned().collect();
            let table = Routes { version: self.version, routes };
            match self.traffic.set_routes(&table).await {
                Ok(bound) => return bound,
                Err(error @ TrafficError::PortTaken { port, .. }) => {
                    let holder = table.routes.iter().rev().find(|route| route.listen == port);
                    match holder {
                        Some(route) => drop(self.taken.insert(port, (route.group.clone(), error.to_string()))),
                        None => self.wait(&error, &mut pause).await,
                    }
                }
                Err(error) => self.wait(&error, &mut pause).await,
            }
        }
    }

    async fn wait(&self, error: &TrafficError, pause: &mut Duration) {
        if *pause == Duration::from_millis(320) {
            let message = format!("{}; it is asked again until it does", kiln_api::error::chain(error));
            self.events.send(Event::Warning { message }).ok();
        }
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(Duration::from_secs(2));
    }
}
