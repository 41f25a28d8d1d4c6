//! `publish`: ports of the host that lead to a group's servers, or to the one in a slot.
//!
//! Those that take any port of the host are told apart by the servers' port and the slot, so that the one that was chosen is
//! found again after the daemon was started anew.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    manifest::Protocol,
    recipe::PROTOCOLS,
    text::{Keys, Place, Table, Value},
};

/// The keys of an entry of `publish`.
pub(crate) const KEYS: Keys = Keys { of: "a published port", valid: &["listen", "port", "protocol", "slot"] };

const EXAMPLE: &str = "[{ listen = 8080, port = 80, protocol = \"http\" }]";

/// A port of the host that leads to a group's servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// Port of the host, on all its addresses; 0 takes a free one, kept for the life of the group.
    pub listen: u16,
    /// Port of the servers.
    pub port: u16,
    /// How the gateway treats it.
    pub protocol: Protocol,
    /// Leads only to the server in this slot; to all where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
}

impl Publish {
    /// Which of the group's published ports it is.
    pub fn name(&self) -> PublishName {
        PublishName { port: self.port, slot: self.slot }
    }
}

/// Which of a group's published ports: `5432`, or `5432/0` for the one that leads to slot 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublishName {
    /// Port of the servers.
    pub port: u16,
    /// The slot, where it leads to one.
    pub slot: Option<u32>,
}

/// A text that names no published port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no published port: write the servers' port, or port and slot as `5432/0`")]
pub struct InvalidPublishName(String);

impl FromStr for PublishName {
    type Err = InvalidPublishName;
    fn from_str(text: &str) -> Result<Self, InvalidPublishName> {
        let invalid = || InvalidPublishName(text.escape_debug().take(40).collect());
        let (port, slot) = text.split_once('/').map_or((text, None), |(port, slot)| (port, Some(slot)));
        let slot = slot.map(str::parse).transpose().map_err(|_| invalid())?;
        Ok(Self { port: port.parse().map_err(|_| invalid())?, slot })
    }
}

impl fmt::Display for PublishName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.port)?;
        self.slot.map_or(Ok(()), |slot| write!(f, "/{slot}"))
    }
}

impl TryFrom<String> for PublishName {
    type Error = InvalidPublishName;
    fn try_from(text: String) -> Result<Self, InvalidPublishName> {
        text.parse()
    }
}

impl From<PublishName> for String {
    fn from(name: PublishName) -> Self {
        name.to_string()
    }
}

/// A published port, where it stands.
pub(super) struct Placed<'d> {
    publish: Publish,
    listen: Place<'d>,
    whole: Place<'d>,
    slot: Option<Place<'d>>,
}

impl<'d> Placed<'d> {
    /// The port of the host, unless any will do, and where that is said.
    pub(super) fn listen(&self) -> Option<(u16, Place<'d>)> {
        Some((self.publish.listen, self.listen)).filter(|(listen, _)| *listen != 0)
    }
}

/// What is published, as far as it could be read, and all of it if nothing was wrong.
pub(super) fn read<'d>(value: &Value<'d>) -> (Option<Vec<Publish>>, Vec<Placed<'d>>) {
    let Some(items) = value.list(EXAMPLE) else { return (None, vec![]) };
    let read: Vec<_> = items.iter().map(published).collect();
    let all = read.iter().map(|placed| placed.as_ref().map(|placed| placed.publish.clone())).collect();
    let placed: Vec<_> = read.into_iter().flatten().collect();
    names_are_distinct(&placed);
    (all, placed)
}

fn published<'d>(value: &Value<'d>) -> Option<Placed<'d>> {
    let table = value.table(KEYS, EXAMPLE)?;
    let listen_value = table.required("listen", "listen = 8080");
    let listen = listen_value.as_ref().and_then(|v| v.integer::<u16>(0..=65_535, "8080"));
    let port = table.required("port", "port = 80").and_then(|v| v.integer(1..=65_535, "80"));
    let protocol = table.get("protocol").map_or(Some(Protocol::Tcp), |v| v.word(&PROTOCOLS));
    let slot_value = table.get("slot");
    let slot = slot_value.as_ref().map_or(Some(None), |v| v.integer(0..=i64::from(u32::MAX), "0").map(Some));
    let publish = Publish { listen: listen?, port: port?, protocol: protocol?, slot: slot? };
    Some(Placed { publish, listen: listen_value?.place, whole: value.place, slot: slot_value.map(|v| v.place) })
}

/// Of two that lead to the same servers' port and take any port of the host, nobody could say which is which.
fn names_are_distinct(placed: &[Placed<'_>]) {
    let mut seen: BTreeMap<PublishName, Place<'_>> = BTreeMap::new();
    for one in placed.iter().filter(|one| one.publish.listen == 0) {
        let name = one.publish.name();
        if let Some(first) = seen.get(&name) {
            one.whole.contradicts::<()>(
                *first,
                format!("the servers' port {name} is published twice at any port of the host"),
                "it is published here already",
                "leave one out, or say which port of the host it is: `listen = 8080`",
            );
        } else {
            seen.insert(name, one.whole);
        }
    }
}

/// Slots are of groups with volumes, and there are as many as servers.
pub(super) fn slots_are_there(table: &Table<'_>, placed: &[Placed<'_>], most: Option<u32>) {
    for one in placed {
        let (Some(slot), Some(place)) = (one.publish.slot, one.slot) else { continue };
        if table.get("volume").is_none() {
            place.report::<()>(
                "the servers of this group have no slots: its fleet has no volume",
                "leave `slot` out, or give the group a volume",
            );
        } else if most.is_some_and(|most| slot >= most) {
            place.report::<()>(
                format!("no server has the slot {slot}: they are counted from 0"),
                "choose a lower slot, or raise `count`",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for text in ["80", "5432/0", "5432/17"] {
            assert_eq!(text.parse::<PublishName>().unwrap().to_string(), text);
        }
        for text in ["", "/", "80/", "/0", "65536", "80/-1", "80/0/0", "eighty"] {
            assert!(text.parse::<PublishName>().is_err(), "{text}");
        }
    }
}
