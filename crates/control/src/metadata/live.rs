//! `/kiln/v1/live`: the live keys of a server's group and their version, at once or when the version changes.

use std::{sync::Arc, time::Duration, time::Instant};

use hyper::StatusCode;
use serde_json::json;
use tokio::sync::watch;

use super::{
    Metadata,
    resident::Resident,
    respond::{Answer, json as as_json, refused, text},
};
use crate::live::LiveValues;

/// How long a request waits that does not say it, and how long one may wait at most, in seconds.
const WAIT: u64 = 30;
const MOST: u64 = 60;
/// The version, beside the value of one key.
const VERSION: &str = "x-kiln-live-version";

/// All values as JSON, or the text of one. With `after=VERSION` it is answered when the version is another one, or when
/// `wait=SECONDS` are over, with what there is then.
pub(super) async fn answer(
    metadata: &Metadata,
    resident: &Resident,
    key: Option<&str>,
    query: Option<&str>,
) -> Option<Answer> {
    let (Ok(after), Ok(wait)) = (number(query, "after"), number(query, "wait")) else {
        return Some(refused(StatusCode::BAD_REQUEST));
    };
    let values = match watch(metadata, resident) {
        Some(mut values) => {
            if after == Some(values.borrow_and_update().version) {
                let place = metadata.limits.may_wait(resident.address, Instant::now());
                let Some(_place) = place else { return Some(refused(StatusCode::TOO_MANY_REQUESTS)) };
                let limit = Duration::from_secs(wait.unwrap_or(WAIT).min(MOST));
                // When the time is over, or the group is gone, it is answered with what there is.
                tokio::time::timeout(limit, values.changed()).await.ok();
            }
            values.borrow().clone()
        }
        None => Arc::default(),
    };
    match key {
        None => Some(whole(metadata, resident, &values)),
        Some(key) => one(metadata, resident, &values, key),
    }
}

/// The values of a server's group; a test server has its own.
fn watch(metadata: &Metadata, resident: &Resident) -> Option<watch::Receiver<Arc<LiveValues>>> {
    let live = metadata.control.live();
    match &resident.group {
        Some(group) => Some(live.watch(group)),
        None => live.watch_test(&resident.server),
    }
}

fn whole(metadata: &Metadata, resident: &Resident, values: &LiveValues) -> Answer {
    let seen = values.seen();
    seen.keys().for_each(|key| metadata.note_read(resident, key.as_str()));
    as_json(&json!({ "version": values.version, "config": seen }))
}

fn one(metadata: &Metadata, resident: &Resident, values: &LiveValues, key: &str) -> Option<Answer> {
    let key = key.parse().ok()?;
    let value = values.get(&key)?;
    metadata.note_read(resident, key.as_str());
    let mut answer = text(value.to_text());
    answer.headers_mut().insert(VERSION, values.version.into());
    Some(answer)
}

/// A number of the query; an error where it is none.
fn number(query: Option<&str>, name: &str) -> Result<Option<u64>, std::num::ParseIntError> {
    let mut parts = query.unwrap_or_default().split('&').filter_map(|part| part.split_once('='));
    parts.find(|(key, _)| *key == name).map(|(_, value)| value.parse()).transpose()
}
