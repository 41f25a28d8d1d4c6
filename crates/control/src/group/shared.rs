//! The shared directories of a group's servers, and watching those that are on another machine.
//!
//! While one of them cannot be used, what the group's servers do with it fails or waits: no server of the group is ready, and none
//! gets traffic. Servers are not replaced for it, since another one would be no better off.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use kiln_api::{error::chain, status::SharedStatus};
use kiln_model::{
    ImageManifest, SharedName,
    shared::{self, Attachment, Place, SharedDirectory, Source},
};
use tokio::task::AbortHandle;

use super::{GroupTask, Message};

/// A pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

type Places = BTreeMap<SharedName, SharedDirectory>;

/// Which of the directories that are watched cannot be used, and why.
pub(crate) struct Look(BTreeMap<SharedName, String>);

/// What is watched, and who does.
pub(super) struct Watcher {
    places: Places,
    away: BTreeMap<SharedName, (String, Timestamp)>,
    looks: AbortHandle,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.looks.abort();
    }
}

impl GroupTask {
    /// What a server of an image is given. One that the fleet does not bind is missed when the server is launched.
    pub(super) fn shared_by(&self, image: &ImageManifest) -> Vec<Attachment> {
        let bound = shared::needed(image).filter_map(|name| {
            let directory = self.row.spec.shared.get(name)?.clone();
            Some(Attachment { name: name.clone(), source: Source::Bound(directory) })
        });
        bound.collect()
    }

    /// Watches what is on another machine, and nothing else.
    pub(super) fn watch_shared(&mut self) {
        let all = self.row.spec.shared.iter().filter(|(_, to)| matches!(to.place, Place::Nfs(_)) && !self.row.removing);
        let places: Places = all.map(|(name, directory)| (name.clone(), directory.clone())).collect();
        if self.watcher.as_ref().map_or(places.is_empty(), |watcher| watcher.places == places) {
            return;
        }
        self.routes_changed |= self.is_away();
        self.watcher = (!places.is_empty()).then(|| self.watcher_of(places));
    }

    fn watcher_of(&self, places: Places) -> Watcher {
        let (shared, mailbox, watched) = (self.shared.clone(), self.mailbox.clone(), places.clone());
        let looks = self.shared.spawn(async move {
            loop {
                let looks = watched.iter().map(|(name, directory)| async {
                    let checked = shared.engine.shared()?.check(directory).await;
                    Some((name.clone(), chain(&checked.err()?)))
                });
                let away = futures::future::join_all(looks).await.into_iter().flatten().collect();
                if mailbox.send(Message::Shared(Look(away))).is_err() {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Watcher { places, away: BTreeMap::new(), looks: looks.abort_handle() }
    }

    /// Takes in what was seen.
    pub(super) fn take_look(&mut self, Look(mut seen): Look) {
        let (now, group) = (self.shared.now(), self.row.name.clone());
        let Some(watcher) = &mut self.watcher else { return };
        // What was asked about places of before says nothing.
        seen.retain(|name, _| watcher.places.contains_key(name));
        let back: Vec<_> = watcher.away.keys().filter(|name| !seen.contains_key(*name)).cloned().collect();
        watcher.away.retain(|name, _| seen.contains_key(name));
        let mut said: Vec<_> = back.iter().map(|name| format!("group {group}: `{name}` can be used again")).collect();
        for (name, reason) in seen {
            if !watcher.away.contains_key(&name) {
                said.push(format!("group {group}: no server is ready, since `{name}` cannot be used: {reason}"));
            }
            watcher.away.entry(name).or_insert((String::new(), now)).0 = reason;
        }
        self.routes_changed |= !said.is_empty();
        said.into_iter().for_each(|message| self.warn(message));
    }

    /// Whether something that servers need is away.
    pub(super) fn is_away(&self) -> bool {
        self.watcher.as_ref().is_some_and(|watcher| !watcher.away.is_empty())
    }

    /// For `status`.
    pub(super) fn shared_status(&self) -> Vec<SharedStatus> {
        let Some(watcher) = &self.watcher else { return Vec::new() };
        let status = |(name, directory): (&SharedName, &SharedDirectory)| {
            let away = watcher.away.get(name);
            SharedStatus {
                name: name.to_string(),
                place: directory.place.to_string(),
                away: away.map(|(reason, _)| reason.clone()),
                since: away.map(|(_, since)| since.to_string()),
            }
        };
        watcher.places.iter().map(status).collect()
    }
}
