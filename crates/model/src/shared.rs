//! Shared directories: files that servers of one or several groups see at the same time.
//!
//! A recipe says where one is needed (`{ shared = "uploads" }` in `[writable]`), a fleet what it is bound to: a directory of the
//! host, or an export of an NFS server. Kiln hands it in and never makes or removes what is there. What it is bound to is no
//! part of the release, as with volumes; servers that have another one than the fleet says are replaced.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    id::SharedName,
    manifest::{ImageManifest, WritableKind},
    recipe::check,
};

/// What a fleet binds a shared directory to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedDirectory {
    /// Where the files are.
    pub place: Place,
    /// Whether servers can only read them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Whether servers can execute them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub execute: bool,
}

/// Where the files of a shared directory are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A directory of the host.
    Directory(HostDirectory),
    /// On an NFS server.
    Nfs(Nfs),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(directory) => directory.fmt(f),
            Self::Nfs(nfs) => write!(f, "nfs {}", nfs.export),
        }
    }
}

/// What an NFS server exports, and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nfs {
    /// Which directory of which server.
    pub export: Export,
    /// Which NFS.
    pub version: NfsVersion,
    /// What the server does not answer for so long fails.
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
}

/// Without a word, what is not answered for so long fails.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// Versions of NFS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub enum NfsVersion {
    /// 4.2 (RFC 7862): one port, locks included.
    #[default]
    #[serde(rename = "4.2")]
    V4_2,
    /// 3 (RFC 1813): needs `rpcbind` there, and `rpc.statd` on both sides for locks.
    #[serde(rename = "3")]
    V3,
}

impl NfsVersion {
    /// As the kernel and people write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::V4_2 => "4.2",
            Self::V3 => "3",
        }
    }
}

/// A directory of the host: absolute, without `.` and `..`, and nothing that the host itself lives on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostDirectory(String);

/// Whoever writes there is the host's root, or the kernel's interfaces are there. So nothing below them is handed to a server.
const OF_THE_HOST: [&str; 12] =
    ["/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys", "/usr"];

/// A text that is not a directory or export that can be shared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPlace(String);

impl HostDirectory {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for HostDirectory {
    type Err = InvalidPlace;
    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        if text.bytes().all(|byte| byte == b'/') && !text.is_empty() {
            return Err(InvalidPlace("`/` cannot be shared: it is the whole host".to_owned()));
        }
        check::image_path(text, true).map_err(InvalidPlace)?;
        let path = text.trim_end_matches('/');
        match OF_THE_HOST.iter().find(|place| check::is_within(path, place)) {
            Some(place) => Err(InvalidPlace(format!(
                "`{path}` cannot be shared: `{place}` is the host's own, and a server could take the host over there"
            ))),
            None => Ok(Self(path.to_owned())),
        }
    }
}
impl TryFrom<String> for HostDirectory {
    type Error = InvalidPlace;
    fn try_from(text: String) -> Result<Self, InvalidPlace> {
        text.parse()
    }
}
impl From<HostDirectory> for String {
    fn from(directory: HostDirectory) -> String {
        directory.0
    }
}
impl fmt::Display for HostDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `server:/export`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Export {
    server: String,
    path: String,
}

impl Export {
    /// The server's name or address; one of IPv6 without brackets.
    pub fn server(&self) -> &str {
        &self.server
    }
    /// The directory there.
    pub fn path(&self) -> &str {
        &self.path
    }
}
impl FromStr for Export {
    type Err = InvalidPlace;
    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        let shown = crate::diagnostic::shown(text);
        let bad = |why: &str| InvalidPlace(format!("`{shown}` is not an NFS export: {why}"));
        let (server, path) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once("]:").ok_or_else(|| bad("write `[2001:db8::1]:/export`"))?,
            None => text.split_once(':').ok_or_else(|| bad("write `server:/export`"))?,
        };
        let name = !server.is_empty()
            && server.len() <= 253
            && server.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
            && !server.starts_with('-');
        let address = text.starts_with('[') && server.parse::<std::net::Ipv6Addr>().is_ok();
        if !(address || name && !text.starts_with('[')) {
            return Err(bad("its server is a host name or an address"));
        }
        check::image_path(path, true).map_err(|why| bad(&why))?;
        Ok(Self { server: server.to_owned(), path: path.to_owned() })
    }
}
impl TryFrom<String> for Export {
    type Error = InvalidPlace;
    fn try_from(text: String) -> Result<Self, InvalidPlace> {
        text.parse()
    }
}
impl From<Export> for String {
    fn from(export: Export) -> String {
        export.to_string()
    }
}
impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.server.contains(':') {
            true => write!(f, "[{}]:{}", self.server, self.path),
            false => write!(f, "{}:{}", self.server, self.path),
        }
    }
}

/// The names of the shared directories that servers of an image need, in the order of their paths.
pub fn needed(image: &ImageManifest) -> impl Iterator<Item = &SharedName> {
    image.writable.iter().filter_map(|writable| match &writable.kind {
        WritableKind::Shared { name } => Some(name),
        _ => None,
    })
}

/// A shared directory to give to a server when it is launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Which of the image's.
    pub name: SharedName,
    /// What it is given.
    pub source: Source,
}

/// What a server is given as a shared directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// What the fleet binds it to.
    Bound(SharedDirectory),
    /// An empty one of its own that is gone with it: for tests.
    Throwaway,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_paths_of_the_host_are_not_shared() {
        for text in [
            "",
            "/",
            "//",
            "srv",
            "./srv",
            "/srv/../etc",
            "/srv/./x",
            "/srv//x",
            "/srv/a\n",
            "/srv/a\0",
            "/proc",
            "/proc/1",
            "/sys",
            "/dev/shm",
            "/etc",
            "/etc/cron.d/",
            "/usr/local",
            "/run/kiln",
            "/boot",
        ] {
            assert!(text.parse::<HostDirectory>().is_err(), "{text:?}");
        }
        for (text, path) in
            [("/srv/uploads", "/srv/uploads"), ("/srv/uploads/", "/srv/uploads"), ("/etcetera", "/etcetera")]
        {
            assert_eq!(text.parse::<HostDirectory>().unwrap().as_str(), path);
        }
        let shown = "/a\u{1b}[31m".parse::<HostDirectory>().unwrap_err().to_string();
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }

    #[test]
    fn unit_exports_are_a_server_and_a_path() {
        for text in [
            "",
            ":",
            "server",
            "server:",
            ":/x",
            "server:x",
            "server:/../x",
            "ser ver:/x",
            "-o:/x",
            "a,b:/x",
            "server:/a\nb",
            "[::1]/x",
            "[zz]:/x",
            "[server]:/x",
            "::1:/x",
            "server:/a//b",
        ] {
            assert!(text.parse::<Export>().is_err(), "{text:?}");
        }
        for (text, server, path) in [
            ("nas:/srv/uploads", "nas", "/srv/uploads"),
            ("10.0.0.1:/", "10.0.0.1", "/"),
            ("[2001:db8::1]:/x", "2001:db8::1", "/x"),
        ] {
            let export: Export = text.parse().unwrap();
            assert_eq!((export.server(), export.path(), export.to_string()), (server, path, text.to_owned()));
        }
    }
}
