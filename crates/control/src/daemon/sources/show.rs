//! What is seen of a group's sources, as `status` and the events say it.

use std::collections::BTreeMap;

use kiln_api::{
    Event,
    status::{SourceStatus, SourcesStatus},
};
use kiln_model::{ConfigDigest, GroupName, fleet::OnSourceChange};
use tokio::sync::watch;

use crate::{
    daemon::App,
    sources::keeper::{Doing, Place, Proposed, Source, SourceIs, SourcesState},
};

/// The state of a group's sources.
pub(super) fn status(policy: OnSourceChange, state: &SourcesState) -> SourcesStatus {
    let (word, config, reason) = outcome(state);
    SourcesStatus {
        on_change: match policy {
            OnSourceChange::Ignore => "ignore",
            OnSourceChange::Report => "report",
            OnSourceChange::Rollout => "rollout",
        }
        .to_owned(),
        state: word.to_owned(),
        reason,
        config: config.map(|digest| digest.to_string()),
        values: state.sources.iter().map(|(place, source)| value(place, source)).collect(),
    }
}

fn value(place: &Place, source: &Source) -> SourceStatus {
    let (state, reason) = match &source.is {
        SourceIs::Asked => ("asked", None),
        SourceIs::Fresh => ("fresh", None),
        SourceIs::Away(error) => ("away", Some(error.to_string())),
        SourceIs::Wrong(error) => ("wrong", Some(error.to_string())),
        SourceIs::Unfit(reason) => ("wrong", Some(reason.clone())),
    };
    SourceStatus {
        key: place.to_string(),
        source: source.what.clone(),
        state: state.to_owned(),
        since: source.since.to_string(),
        reason,
    }
}

fn outcome(state: &SourcesState) -> (&'static str, Option<ConfigDigest>, String) {
    let silent = state.sources.values().filter(|source| matches!(source.is, SourceIs::Asked)).count();
    let failing = state.failing().count();
    match state.doing {
        Doing::Proposing => {
            return ("proposed", None, "what the sources say now is being tested or rolled out".to_owned());
        }
        _ if failing > 0 => {
            return (
                "waiting",
                None,
                format!("{failing} of {} sources give no good value; what runs goes on", state.sources.len()),
            );
        }
        _ if silent > 0 => return ("waiting", None, format!("{silent} sources have not answered yet")),
        Doing::Settling => {
            return ("waiting", None, "something changed: it is proposed when nothing changes any more".to_owned());
        }
        Doing::Watching => {}
    }
    match &state.last {
        None => ("waiting", None, "nothing was compared yet".to_owned()),
        Some(Proposed::Same) => ("same", None, "the group's configuration is what the sources say".to_owned()),
        Some(Proposed::Reported(digest)) => {
            ("reported", Some(*digest), "the sources say something else: `kiln apply` takes it over".to_owned())
        }
        Some(Proposed::RolledOut(digest)) => {
            ("rolled_out", Some(*digest), "the last change was tested and rolled out".to_owned())
        }
        Some(Proposed::Declined(digest)) => (
            "declined",
            Some(*digest),
            "the group was rolled back from what the sources say: `kiln apply`, or another value, moves it on"
                .to_owned(),
        ),
        Some(Proposed::Unfit(places)) => ("failed", None, format!("nothing was changed: {}", listed(places))),
        Some(Proposed::Failed(digest, reason)) => ("failed", Some(*digest), reason.clone()),
        Some(Proposed::Delayed(reason)) => ("waiting", None, format!("it is tried again: {reason}")),
    }
}

fn listed(places: &BTreeMap<Place, String>) -> String {
    places.values().map(String::as_str).collect::<Vec<_>>().join("; ")
}

/// Tells what changes of a group's sources, for ever.
pub(super) async fn tell(
    app: &App,
    group: &GroupName,
    policy: OnSourceChange,
    mut state: watch::Receiver<SourcesState>,
) {
    let mut before = status(policy, &state.borrow_and_update());
    while state.changed().await.is_ok() {
        let now = status(policy, &state.borrow_and_update());
        news(group, &before, &now).for_each(|event| app.control.announce(event));
        before = now;
    }
    std::future::pending().await
}

fn news(group: &GroupName, before: &SourcesStatus, now: &SourcesStatus) -> impl Iterator<Item = Event> {
    let old = |value: &SourceStatus| before.values.iter().any(|old| old.key == value.key && old.state == value.state);
    let values = now.values.iter().filter(|value| value.state != "asked" && !old(value));
    let values: Vec<Event> = values
        .map(|value| Event::Source {
            group: group.to_string(),
            key: value.key.clone(),
            source: value.source.clone(),
            state: value.state.clone(),
            reason: value.reason.clone(),
        })
        .collect();
    let moved = (&before.state, &before.config, &before.reason) != (&now.state, &now.config, &now.reason);
    let changed = moved.then(|| Event::SourcesChanged {
        group: group.to_string(),
        state: now.state.clone(),
        config: now.config.clone(),
        reason: now.reason.clone(),
    });
    values.into_iter().chain(changed)
}
