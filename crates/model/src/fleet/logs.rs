//! `logs`: where a group's log lines go, and how long a server that ended waits until they are there.

use std::{fmt, path::Path, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::source;
use crate::{
    config::RegistryTls,
    text::{Keys, Table, Value},
};

/// The keys of `logs`.
pub(crate) const KEYS: Keys = Keys { of: "`logs`", valid: &["to", "ca", "certificate", "key", "receipt"] };

const EXAMPLE: &str = "{ to = \"relp://logs.example.org:2514\" }";
const LONGEST_RECEIPT: Duration = Duration::from_secs(86_400);

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogsPolicy {
    /// The collector.
    pub to: Collector,
    /// Files for an encrypted connection.
    #[serde(default)]
    pub tls: RegistryTls,
    /// A server that ended is removed when its collector has its last line, or after this time.
    #[serde(with = "crate::duration")]
    pub receipt: Duration,
}

impl LogsPolicy {
    /// With the usual receipt time.
    pub fn new(to: Collector) -> Self {
        Self { to, tls: RegistryTls::default(), receipt: Duration::from_secs(30) }
    }

    /// Makes the paths of files absolute.
    pub fn below(&mut self, directory: &Path) {
        let absolute = |path: &mut String| *path = directory.join(&*path).display().to_string();
        self.tls.ca.iter_mut().for_each(absolute);
        if let Some((certificate, key)) = &mut self.tls.identity {
            [certificate, key].into_iter().for_each(absolute);
        }
    }
}

/// How lines travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram for each line (RFC 5426). Nobody knows whether it arrives.
    Udp,
    /// Octet-counted over TCP (RFC 6587).
    Tcp,
    /// The same, encrypted (RFC 5425).
    Tls,
    /// RELP: the collector acknowledges each line.
    Relp,
}

const TRANSPORTS: [(&str, Transport); 4] =
    [("udp", Transport::Udp), ("tcp", Transport::Tcp), ("tls", Transport::Tls), ("relp", Transport::Relp)];

/// A collector: `relp://logs.example.org:2514`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Collector {
    /// How lines travel.
    pub transport: Transport,
    /// Name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// A text that names no collector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no collector: {reason}; write `udp://`, `tcp://`, `tls://` or `relp://`, a host, `:` and a port")]
pub struct InvalidCollector {
    text: String,
    reason: &'static str,
}

impl FromStr for Collector {
    type Err = InvalidCollector;

    fn from_str(text: &str) -> Result<Self, InvalidCollector> {
        let wrong = |reason| InvalidCollector { text: text.chars().take(160).collect(), reason };
        let (scheme, rest) = text.split_once("://").ok_or(wrong("it does not say how lines travel"))?;
        let found = TRANSPORTS.iter().find(|(name, _)| *name == scheme);
        let (_, transport) = found.ok_or(wrong("nobody knows this way"))?;
        let (host, port) = rest.rsplit_once(':').ok_or(wrong("it has no port"))?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(wrong("its port is none"))?;
        let bare = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok().then_some(address),
            None => is_host(host).then_some(host),
        };
        let host = bare.ok_or(wrong("its host is none"))?.to_owned();
        Ok(Self { transport: *transport, host, port })
    }
}

fn is_host(text: &str) -> bool {
    let good = |part: &str| {
        let inner = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        (1..=63).contains(&part.len()) && inner && !part.starts_with('-') && !part.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(good)
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = TRANSPORTS.iter().find(|(_, known)| *known == self.transport).map_or("", |(name, _)| name);
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl TryFrom<String> for Collector {
    type Error = InvalidCollector;
    fn try_from(text: String) -> Result<Self, InvalidCollector> {
        text.parse()
    }
}

impl From<Collector> for String {
    fn from(collector: Collector) -> Self {
        collector.to_string()
    }
}

/// Reads the policy. `to = "none"` is none: for a group whose fleet has one.
pub(super) fn read(value: &Value<'_>) -> Option<Option<LogsPolicy>> {
    let table = value.table(KEYS, EXAMPLE)?;
    let to = table.required("to", "to = \"relp://logs.example.org:2514\"")?;
    if to.as_text() == Some("none") {
        return nothing_else(&table, &to).then_some(None);
    }
    let collector = to.parsed::<Collector>("\"relp://logs.example.org:2514\"");
    let tls = source::tls_files(&table);
    let times = Duration::ZERO..=LONGEST_RECEIPT;
    let receipt = table.get("receipt").map_or(Some(None), |v| v.duration(times, "\"30s\"").map(Some));
    let policy = LogsPolicy::new(collector?);
    let (tls, receipt) = (tls?, receipt?.unwrap_or(policy.receipt));
    if policy.to.transport != Transport::Tls && !only_with_tls(&table, &to) {
        return None;
    }
    Some(Some(LogsPolicy { tls, receipt, ..policy }))
}

fn only_with_tls(table: &Table<'_>, to: &Value<'_>) -> bool {
    let message = "certificates go with `tls://`";
    contradicted(table, to, &["ca", "certificate", "key"], message, "write `tls://`, or remove it")
}

fn nothing_else(table: &Table<'_>, to: &Value<'_>) -> bool {
    contradicted(table, to, &["ca", "certificate", "key", "receipt"], "no lines leave this group", "remove it")
}

fn contradicted(table: &Table<'_>, to: &Value<'_>, keys: &[&'static str], message: &str, help: &str) -> bool {
    let mut good = true;
    for value in keys.iter().filter_map(|key| table.get(key)) {
        value.place.contradicts::<()>(to.place, message, "the collector is here", help);
        good = false;
    }
    good
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_collectors_are_read_and_written_as_they_are() {
        for text in ["udp://127.0.0.1:514", "tcp://[::1]:601", "tls://logs.example.org:6514", "relp://a-b:2514"] {
            assert_eq!(text.parse::<Collector>().unwrap().to_string(), text);
        }
        for text in
            ["", "a:1", "http://a:1", "tcp://a", "tcp://a:0", "tcp://a:x", "tcp://:1", "tcp://[a]:1", "tcp://a b:1"]
        {
            assert!(text.parse::<Collector>().is_err(), "{text}");
        }
        for text in ["tcp://-a:1", "tcp://a\n:1", "tcp://user@a:1", "tcp://a/b:1"] {
            assert!(text.parse::<Collector>().is_err(), "{text}");
        }
    }

    #[test]
    fn unit_a_group_has_the_logs_of_its_fleet_or_its_own_or_none() {
        let text = "[logs]\nto = \"tls://logs:6514\"\nca = \"ca.pem\"\n[group.a]\nimage = \"x\"\n[group.b]\nimage = \"x\"\n\
                    logs = { to = \"relp://here:2514\", receipt = \"5s\" }\n[group.c]\nimage = \"x\"\nlogs = { to = \"none\" }\n";
        let fleet = crate::Fleet::parse(text, "fleet.toml").unwrap();
        let of = |name: &str| fleet.groups[&name.parse::<crate::GroupName>().unwrap()].logs.clone();
        let mut usual = of("a").unwrap();
        assert_eq!((usual.to.to_string().as_str(), usual.receipt), ("tls://logs:6514", Duration::from_secs(30)));
        usual.below(Path::new("/fleet"));
        assert_eq!(usual.tls.ca.as_deref(), Some("/fleet/ca.pem"));
        let own = of("b").unwrap();
        assert_eq!((own.to.transport, own.receipt), (Transport::Relp, Duration::from_secs(5)));
        assert_eq!(of("c"), None);
    }
}
