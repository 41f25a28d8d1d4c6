//! Kiln's own tree, `/kiln/v1/`: a server's configuration, release, group, peers and identity.

use std::collections::BTreeMap;

use hyper::StatusCode;
use kiln_api::status::ServerStatus;
use serde_json::json;

use super::{
    Metadata,
    resident::{Home, Resident},
    respond::{Answer, json as as_json, now_ms, refused, text},
};

/// In the words of `status`.
const READY: &str = "ready";
const NAMES: &str = "config/\ngroup\nidentity\njwks\nlive\npeers\nrelease\nserver\nslot\nslots/";

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
        "peers" => group(metadata, resident, |servers| Some(peers(resident, servers))).await,
        "release" => Some(as_json(&json!({"id": resident.release, "image": resident.image}))),
        "server" => Some(as_json(&json!({
            "id": resident.server,
            "generation": resident.generation,
            "address": resident.address,
            "host": metadata.gateway,
        }))),
        "slot" => group(metadata, resident, |servers| own_slot(resident, servers)).await,
        "slots" => group(metadata, resident, |servers| Some(slots(servers))).await,
        path => match path.split_once('/') {
            Some(("config", key)) => one(metadata, resident, key),
            Some(("live", key)) => super::live::answer(metadata, resident, Some(key), query).await,
            Some(("slots", slot)) => group(metadata, resident, |servers| in_slot(slot, servers)).await,
            _ => None,
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

/// What the servers of the group answer, of which a test server has none.
async fn group(
    metadata: &Metadata,
    resident: &Resident,
    show: impl FnOnce(Vec<ServerStatus>) -> Option<Answer>,
) -> Option<Answer> {
    let Some(group) = &resident.group else { return show(Vec::new()) };
    match metadata.control.group_status(group).await {
        Ok(status) => show(status.servers.into_iter().filter(|server| !server.spare).collect()),
        Err(_) => Some(refused(StatusCode::SERVICE_UNAVAILABLE)),
    }
}

/// The other servers of the group, for software that forms clusters.
fn peers(resident: &Resident, servers: Vec<ServerStatus>) -> Answer {
    let others = servers.iter().filter(|server| server.id != resident.server.as_str());
    let peers = others.filter_map(|server| {
        let address = server.address.as_ref()?;
        Some(json!({
            "id": server.id,
            "address": address,
            "ready": server.state == READY,
            "release": server.release,
            "slot": server.slot,
        }))
    });
    as_json(&json!({"peers": peers.collect::<Vec<_>>()}))
}

/// The slot of a server whose group has volumes.
fn own_slot(resident: &Resident, servers: Vec<ServerStatus>) -> Option<Answer> {
    let own = servers.iter().find(|server| server.id == resident.server.as_str())?;
    own.slot.map(|slot| text(slot.to_string()))
}

/// The servers that are ready, by slot.
fn by_slot(servers: Vec<ServerStatus>) -> BTreeMap<u32, String> {
    let ready = servers.into_iter().filter(|server| server.state == READY);
    ready.filter_map(|server| Some((server.slot?, server.address?))).collect()
}

fn slots(servers: Vec<ServerStatus>) -> Answer {
    text(by_slot(servers).keys().map(u32::to_string).collect::<Vec<_>>().join("\n"))
}

/// The address of the server in a slot while it is ready.
fn in_slot(slot: &str, servers: Vec<ServerStatus>) -> Option<Answer> {
    by_slot(servers).remove(&slot.parse().ok()?).map(text)
}

impl Metadata {
    /// What test servers read is remembered: a key that nothing reads is said by `kiln config lint`.
    pub(super) fn note_read(&self, resident: &Resident, key: &str) {
        if resident.group.is_none() {
            (self.reads)(resident, key);
        }
    }
}
