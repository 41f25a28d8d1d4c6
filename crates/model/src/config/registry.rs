//! A key of a registry, as a fleet names it: which servers are asked, for what, as whom, and how they prove who they are.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A registry has at most this many servers.
const MAX_HOSTS: usize = 16;
/// A path is at most this many bytes long.
const MAX_PATH: usize = 1024;
const EXAMPLE: &str = "zk1.example:2181,zk2.example:2181/app/greeting";

/// A key of a registry (ZooKeeper, etcd).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Where it is.
    pub address: RegistryAddress,
    /// Who asks, where the registry wants to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
    /// How the connection is encrypted, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RegistryTls>,
}

impl Registry {
    /// A registry that asks for no login, over a plain connection.
    pub fn open(address: RegistryAddress) -> Self {
        Self { address, login: None, tls: None }
    }
}

/// `host:port[,host:port…]/path`. Every server of it has the same data; whichever answers is asked. A chroot is the front of the
/// path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegistryAddress {
    hosts: Vec<(String, u16)>,
    path: String,
}

/// A text that is not the address of a registry's key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a key of a registry: {reason}; write `host:port/path`, for example `{EXAMPLE}`")]
pub struct InvalidAddress {
    text: String,
    reason: &'static str,
}

impl RegistryAddress {
    /// Names (or addresses) and ports of the registry's servers; never empty.
    pub fn hosts(&self) -> &[(String, u16)] {
        &self.hosts
    }
    /// The key, with a leading `/`.
    pub fn path(&self) -> &str {
        &self.path
    }
    /// The servers as text: `zk1:2181,zk2:2181`.
    pub fn servers(&self) -> String {
        let shown = |(host, port): &(String, u16)| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        self.hosts.iter().map(shown).collect::<Vec<_>>().join(",")
    }
}

impl FromStr for RegistryAddress {
    type Err = InvalidAddress;
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let wrong = |reason| InvalidAddress { text: text.chars().take(160).collect(), reason };
        let (hosts, _) = text.split_once('/').ok_or_else(|| wrong("it has no path"))?;
        let path = &text[hosts.len()..];
        check_path(path).map_err(wrong)?;
        let hosts: Vec<_> = hosts.split(',').map(host).collect::<Result<_, _>>().map_err(wrong)?;
        if hosts.len() > MAX_HOSTS {
            return Err(wrong("it has more than 16 servers"));
        }
        Ok(Self { hosts, path: path.to_owned() })
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.len() > MAX_PATH {
        return Err("its path is longer than 1024 bytes");
    }
    if path.chars().any(char::is_control) {
        return Err("its path has a control character in it");
    }
    match path[1..].split('/').find(|part| matches!(*part, "" | "." | "..")) {
        None => Ok(()),
        Some(_) => Err("its path is empty, ends with `/`, or has an empty part, `.` or `..` in it"),
    }
}

fn host(text: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("a server has no port")?;
    let port = port.parse::<u16>().ok().filter(|port| *port != 0).ok_or("a port is a number from 1 to 65535")?;
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: std::net::Ipv6Addr =
            inner.parse().map_err(|_| "what stands in brackets is not an IPv6 address")?;
        return Ok((address.to_string(), port));
    }
    let label = |label: &str| {
        let letters = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (1..=63).contains(&label.len()) && letters && !label.starts_with('-') && !label.ends_with('-')
    };
    let good = host.len() <= 253 && host.split('.').all(label);
    if good { Ok((host.to_owned(), port)) } else { Err("a server is neither a host's name nor an address") }
}

impl TryFrom<String> for RegistryAddress {
    type Error = InvalidAddress;
    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}
impl From<RegistryAddress> for String {
    fn from(address: RegistryAddress) -> String {
        address.to_string()
    }
}
impl fmt::Display for RegistryAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.servers(), self.path)
    }
}

/// Who asks a registry: ZooKeeper's scheme `digest`, etcd's user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Password,
}

/// A password, or where it is. Never shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Password {
    /// The password itself.
    Text(String),
    /// A variable of the environment of whoever calls `kiln`, who puts the password in its place.
    Env(String),
    /// A file whose content, without a newline at its end, is the password. It is read each time.
    File(String),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::Env(name) => write!(f, "Env({name:?})"),
            Self::File(path) => write!(f, "File({path:?})"),
        }
    }
}

/// TLS to a registry. Its certificate must be good for the host's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryTls {
    /// A file with the certificates (PEM) of the authorities that are believed; the host's own where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Files with the certificate and the key (PEM) that the asker shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_addresses_are_read_and_written_as_they_are() {
        for text in ["127.0.0.1:2181/a", "zk1:2181,zk-2.example.org:2182/app/greeting", "[::1]:2379/a b/c"] {
            let address: RegistryAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        let address: RegistryAddress = "a:1,[::1]:2/x/y".parse().unwrap();
        assert_eq!((address.hosts().len(), address.path()), (2, "/x/y"));
    }

    #[test]
    fn unit_what_is_no_address_is_refused() {
        let long = format!("a:1/{}", "x".repeat(MAX_PATH));
        let many = format!("{}/x", vec!["a:1"; MAX_HOSTS + 1].join(","));
        let bad = [
            "",
            "a:1",
            "a/x",
            "a:0/x",
            "a:70000/x",
            ":1/x",
            "a:1/",
            "a:1/x/",
            "a:1//x",
            "a:1/../x",
            "[x]:1/x",
            "-a:1/x",
        ];
        for text in bad.into_iter().chain(["http://a:1/x", "a:1,/x", "a b:1/x", "a:1/x\n", &long, &many]) {
            assert!(text.parse::<RegistryAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn unit_a_password_is_not_shown() {
        let login = Login { user: "kiln".to_owned(), password: Password::Text("tops3cret".to_owned()) };
        assert!(!format!("{login:?}").contains("tops3cret"));
    }
}
