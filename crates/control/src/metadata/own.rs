//! Kiln's own tree, `/kiln/v1/`: a server's configuration, release, group, peers and identity.

use hyper::StatusCode;
use serde_json::json;

use super::{
    Metadata,
    resident::{Home, Resident},
    respond::{Answer, json as as_json, now_ms, refused, text},
};

const NAMES: &str = "config/\ngroup\nidentity\njwks\nlive\npeers\nrelease\nserver";

/// What is at a path below `/kiln/v1`.
pub(super) async fn answer(metadata: &Metadata, home: &Home, path: &str, query: Option<&str>) -> Answer {
    let resident = &home.resident;
    let found = match path.trim_matches('/') {
        "" => Some(text(NAMES.to_owned())),
        "config" => all(metadata, resident),
        "group" => resident.group.as_ref().map(|group| text(group.to_string())),
        "identity" => identity(metadata, resident, query),
        "jwks" => Some(as_json(&metadata.identity.key_set())),
        "live" => super::live::answer(metadata, resident, None, query).await,
        "peers" => Some(peers(metadata, resident).await),
        "release" => Some(as_json(&json!({"id": resident.release, "image": resident.image}))),
        "server" => Some(as_json(&json!({
            "id": resident.server,
            "generation": resident.generation,
            "address": resident.address,
            "host": metadata.gateway,
        }))),
        path => match (path.strip_prefix("config/"), path.strip_prefix("live/")) {
            (Some(key), _) => one(metadata, resident, key),
            (None, Some(key)) => super::live::answer(metadata, resident, Some(key), query).await,
            (None, None) => None,
        },
    };
    found.unwrap_or_else(|| refused(StatusCode::NOT_FOUND))
}

/// Values whose secrets are not at hand are not given by halves.
fn all(metadata: &Metadata, resident: &Resident) -> Option<Answer> {
    let Some(values) = resident.all() else { return Some(refused(StatusCode::SERVICE_UNAVAILABLE)) };
    resident.config.values.keys().for_each(|key| metadata.note_read(resident, key.as_str()));
    Some(as_json(&values))
}

fn one(metadata: &Metadata, resident: &Resident, key: &str) -> Option<Answer> {
    let known = key.parse().ok().filter(|key| resident.config.values.contains_key(key))?;
    metadata.note_read(resident, kiln_model::config::ConfigKey::as_str(&known));
    Some(resident.value(key).map_or_else(|| refused(StatusCode::SERVICE_UNAVAILABLE), |value| text(value.to_text())))
}

/// `audience=…` is taken as it is: letters, digits and signs that need no escape.
fn identity(metadata: &Metadata, resident: &Resident, query: Option<&str>) -> Option<Answer> {
    let audience = query.and_then(|query| query.split('&').find_map(|part| part.strip_prefix("audience=")));
    let token = audience.filter(|audience| !audience.contains('%'));
    let token = token.and_then(|audience| metadata.identity.token(resident, audience, now_ms()));
    Some(token.map_or_else(|| refused(StatusCode::BAD_REQUEST), text))
}

/// The other servers of the group, for software that forms clusters. A test server has none.
async fn peers(metadata: &Metadata, resident: &Resident) -> Answer {
    let Some(group) = &resident.group else { return as_json(&json!({"peers": []})) };
    let Ok(status) = metadata.control.group_status(group).await else {
        return refused(StatusCode::SERVICE_UNAVAILABLE);
    };
    let others = status.servers.iter().filter(|server| server.id != resident.server.as_str());
    let peers = others.filter_map(|server| {
        let address = server.address.as_ref()?;
        Some(json!({
            "id": server.id,
            "address": address,
            "ready": server.state == "ready",
            "release": server.release,
        }))
    });
    as_json(&json!({"peers": peers.collect::<Vec<_>>()}))
}

impl Metadata {
    /// What test servers read is remembered: a key that nothing reads is said by `kiln config lint`.
    pub(super) fn note_read(&self, resident: &Resident, key: &str) {
        if resident.group.is_none() {
            (self.reads)(resident, key);
        }
    }
}
