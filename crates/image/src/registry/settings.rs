//! What this host knows of registries: `registries.toml` of the state directory, and Docker's file of credentials.
//!
//! ```toml
//! [registry."docker.io"]
//! mirrors = ["https://mirror.example"]     # asked first, in this order, when reading
//!
//! [registry."registry.example:5000"]
//! ca = "/etc/ssl/our-ca.pem"               # trusted beside what the host trusts
//! http = false                             # true: without TLS; loopback addresses have none where nothing is said
//! ```

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use kiln_model::oci::DEFAULT_REGISTRY;
use serde::Deserialize;

use super::RegistryError;

/// A file of settings is at most this long, bytes.
const MAX_FILE: u64 = 1 << 20;

/// What this host knows of registries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registries {
    /// By the name that stands in references.
    #[serde(default)]
    pub registry: BTreeMap<String, RegistrySettings>,
    /// Docker's `config.json`, if there is one.
    #[serde(skip)]
    pub credentials: Option<PathBuf>,
}

/// What this host knows of one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistrySettings {
    /// Addresses that are asked first when reading.
    pub mirrors: Vec<String>,
    /// A PEM file of certificates that are trusted beside what the host trusts.
    pub ca: Option<PathBuf>,
    /// Whether it is spoken to without TLS.
    pub http: Option<bool>,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Scheme, host and port, without a trailing `/`.
    pub(super) origin: String,
    /// Under which name its credentials are kept.
    pub(super) account: String,
    pub(super) ca: Option<PathBuf>,
}

impl Registries {
    /// Reads `registries.toml`; a file that is not there says nothing.
    pub fn read(path: &Path, credentials: Option<PathBuf>) -> Result<Self, RegistryError> {
        let failed = |source| RegistryError::Settings { path: path.to_owned(), source };
        let Some(text) = read_small(path).map_err(failed)? else {
            return Ok(Self { credentials, ..Self::default() });
        };
        let parsed: Self = toml::from_str(&text).map_err(|e| failed(io::Error::other(e)))?;
        Ok(Self { credentials, ..parsed })
    }

    /// The registry itself.
    pub(super) fn endpoint(&self, registry: &str) -> Endpoint {
        let settings = self.registry.get(registry);
        let host = if registry == DEFAULT_REGISTRY { "registry-1.docker.io" } else { registry };
        let http = settings.and_then(|settings| settings.http);
        let scheme = if http.unwrap_or_else(|| is_loopback(host)) { "http" } else { "https" };
        let ca = settings.and_then(|settings| settings.ca.clone());
        Endpoint { origin: format!("{scheme}://{host}"), account: registry.to_owned(), ca }
    }

    /// Its mirrors, then the registry itself.
    pub(super) fn endpoints(&self, registry: &str) -> Vec<Endpoint> {
        let mirrors = self.registry.get(registry).into_iter().flat_map(|settings| &settings.mirrors);
        let mirrors = mirrors.map(|mirror| match mirror.split_once("://") {
            Some((_, host)) => {
                let (origin, host) = (mirror.trim_end_matches('/').to_owned(), host.trim_end_matches('/').to_owned());
                let ca = self.registry.get(&host).and_then(|settings| settings.ca.clone());
                Endpoint { origin, account: host, ca }
            }
            None => self.endpoint(mirror),
        });
        mirrors.chain([self.endpoint(registry)]).collect()
    }
}

/// Loopback is this host: there is nobody in between.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// A small text file, if it is there.
pub(super) fn read_small(path: &Path) -> io::Result<Option<String>> {
    let file = match fs::File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    match text.len() as u64 <= MAX_FILE {
        true => Ok(Some(text)),
        false => Err(io::Error::other(format!("it is longer than {MAX_FILE} bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_only_this_host_is_spoken_to_without_tls() {
        let registries = Registries::default();
        for (name, origin) in [
            ("localhost:5000", "http://localhost:5000"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("[::1]:5000", "http://[::1]:5000"),
            ("localhost.example", "https://localhost.example"),
            ("127.0.0.1.example", "https://127.0.0.1.example"),
            ("docker.io", "https://registry-1.docker.io"),
        ] {
            assert_eq!(registries.endpoint(name).origin, origin);
        }
    }

    #[test]
    fn unit_mirrors_come_first_with_accounts_of_their_own() {
        let text = "[registry.\"docker.io\"]\nmirrors = [\"https://mirror.example/\", \"127.0.0.1:1\"]\n";
        let registries: Registries = toml::from_str(text).expect("settings");
        let endpoints = registries.endpoints("docker.io");
        let shown: Vec<_> = endpoints.iter().map(|e| (e.origin.as_str(), e.account.as_str())).collect();
        let (mirror, here) = (("https://mirror.example", "mirror.example"), ("http://127.0.0.1:1", "127.0.0.1:1"));
        assert_eq!(shown, [mirror, here, ("https://registry-1.docker.io", "docker.io")]);
        assert!(toml::from_str::<Registries>("[registry.x]\nmirror = []\n").is_err());
    }
}
