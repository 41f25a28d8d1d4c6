//! Which distribution a tree is (`os-release(5)`).

use std::path::Path;

use super::package::word;
use crate::{store::StoreError, tree::ImageTree};

const LIMIT: u64 = 64 << 10;

/// A distribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Distro {
    /// `debian`.
    pub(crate) id: String,
    /// `12`.
    pub(crate) version: Option<String>,
    /// `bookworm`.
    pub(crate) codename: Option<String>,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub(crate) title: Option<String>,
}

impl Distro {
    pub(crate) fn of(tree: &ImageTree) -> Result<Option<Self>, StoreError> {
        for path in ["/etc/os-release", "/usr/lib/os-release"] {
            if let Some(bytes) = tree.read(Path::new(path), LIMIT)? {
                return Ok(Self::parse(&String::from_utf8_lossy(&bytes)));
            }
        }
        Ok(None)
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
            word(line.trim().trim_matches(['"', '\'']))
        };
        let is_id =
            |id: &String| id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
        let id = value("ID").filter(is_id)?;
        let (version, codename) = (value("VERSION_ID"), value("VERSION_CODENAME"));
        Some(Self { id, version, codename, title: value("PRETTY_NAME") })
    }

    /// `debian-12`.
    pub(crate) fn tag(&self) -> String {
        match &self.version {
            Some(version) => format!("{}-{version}", self.id),
            None => self.id.clone(),
        }
    }
}
