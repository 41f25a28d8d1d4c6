//! What is to be seen of a group's sources, and what they have said. The values themselves are never part of what is seen.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use kiln_model::config::ConfigSource;
use tokio::sync::{Notify, watch as channel};

use super::{Place, Proposed};
use crate::sources::{Fault, SourceError, Watched, described};

/// How a source stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceIs {
    /// It was asked and has not answered yet.
    Asked,
    /// It gave a good value, and is watched.
    Fresh,
    /// It cannot be reached, or does not speak as it should.
    Away(SourceError),
    /// It answers, and has no good value: none, one that may not be read, or one that is no text.
    Wrong(SourceError),
    /// Its value does not fit the image.
    Unfit(String),
}

/// One source of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Which, in words without anything secret.
    pub what: String,
    /// How it stands.
    pub is: SourceIs,
    /// Since when.
    pub since: Timestamp,
}

/// What a keeper does now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Doing {
    /// It waits for a change.
    #[default]
    Watching,
    /// Something has changed, and it waits until nothing does, until the next proposal may be made, or until the group is free.
    Settling,
    /// A proposal is under way: tested, or rolled out.
    Proposing,
}

/// What is to be seen of a group's sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourcesState {
    /// Each of them.
    pub sources: BTreeMap<Place, Source>,
    /// What is done about them.
    pub doing: Doing,
    /// What became of the last proposal.
    pub last: Option<Proposed>,
    /// Proposals made so far.
    pub proposals: u64,
}

impl SourcesState {
    /// The sources that give no value now.
    pub fn failing(&self) -> impl Iterator<Item = (&Place, &SourceError)> {
        self.sources.iter().filter_map(|(place, source)| match &source.is {
            SourceIs::Away(error) | SourceIs::Wrong(error) => Some((place, error)),
            SourceIs::Asked | SourceIs::Fresh | SourceIs::Unfit(_) => None,
        })
    }

    /// Nothing is under way: sources stand as their own answers and the last proposal say.
    fn rest(&mut self) {
        self.doing = Doing::Watching;
        let nothing = BTreeMap::new();
        let last = self.last.take();
        let unfit = if let Some(Proposed::Unfit(places)) = &last { places } else { &nothing };
        for place in self.sources.keys().cloned().collect::<Vec<_>>() {
            let answered = matches!(self.sources[&place].is, SourceIs::Fresh | SourceIs::Unfit(_));
            let is = unfit.get(&place).map_or(SourceIs::Fresh, |reason| SourceIs::Unfit(reason.clone()));
            if answered {
                self.set(&place, is);
            }
        }
        self.last = last;
    }

    fn set(&mut self, place: &Place, is: SourceIs) -> bool {
        match self.sources.get_mut(place).filter(|source| source.is != is) {
            Some(source) => {
                (source.is, source.since) = (is, Timestamp::now());
                true
            }
            None => false,
        }
    }
}

/// What the sources have said.
pub(super) struct Shared {
    said: Mutex<BTreeMap<Place, Watched>>,
    changed: Notify,
    state: channel::Sender<SourcesState>,
}

impl Shared {
    pub(super) fn new(sources: &BTreeMap<Place, ConfigSource>, state: channel::Sender<SourcesState>) -> Self {
        let since = Timestamp::now();
        let asked = |source| Source { what: described(source), is: SourceIs::Asked, since };
        let sources = sources.iter().map(|(place, source)| (place.clone(), asked(source))).collect();
        state.send_modify(|state| state.sources = sources);
        Self { said: Mutex::default(), changed: Notify::new(), state }
    }

    fn said(&self) -> MutexGuard<'_, BTreeMap<Place, Watched>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn note(&self, place: &Place, told: Watched) {
        let is = match &told {
            Ok(_) => SourceIs::Fresh,
            Err(error) if error.fault() == Fault::Registry => SourceIs::Away(error.clone()),
            Err(error) => SourceIs::Wrong(error.clone()),
        };
        let before = self.said().insert(place.clone(), told.clone());
        if before.as_ref() != Some(&told) {
            self.state.send_if_modified(|state| state.set(place, is));
            self.changed.notify_one();
        }
    }

    /// The values, if every source has a good one.
    pub(super) fn values(&self) -> Option<BTreeMap<Place, String>> {
        let said = self.said();
        let good = said.iter().filter_map(|(place, told)| Some((place.clone(), told.as_ref().ok()?.clone())));
        let all = self.state.borrow().sources.len();
        Some(good.collect::<BTreeMap<_, _>>()).filter(|values| values.len() == all)
    }

    pub(super) fn now(&self, doing: Doing) {
        self.state.send_if_modified(|state| std::mem::replace(&mut state.doing, doing) != doing);
    }

    /// A proposal has come to its end. Values that do not fit are told of their sources.
    pub(super) fn proposed(&self, outcome: Proposed) {
        self.state.send_modify(|state| {
            state.last = Some(outcome);
            state.proposals += 1;
            state.rest();
        });
    }

    /// What was seen is what was proposed last.
    pub(super) fn unchanged(&self) {
        self.state.send_modify(SourcesState::rest);
    }
}
