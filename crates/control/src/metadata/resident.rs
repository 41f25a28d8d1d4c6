//! Who asks. A server is known by the address that its connection comes from.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};

use kiln_model::{
    FrozenConfig, GroupName, ImageDigest, ReleaseId, ServerId,
    config::{ConfigKey, ConfigValue, Secrets},
};
use kiln_runtime::{Runtime, values::Values};

use super::tree::Tree;

/// What is known of a server that asks.
#[derive(Debug, Clone)]
pub struct Resident {
    /// The server.
    pub server: ServerId,
    /// Which launch of it.
    pub generation: u64,
    /// Its group; none for a test server.
    pub group: Option<GroupName>,
    /// Its release.
    pub release: ReleaseId,
    /// Its image.
    pub image: ImageDigest,
    /// Its address.
    pub address: Ipv4Addr,
    /// Ethernet address of its interface.
    pub mac: [u8; 6],
    /// Unix milliseconds of its launch.
    pub started_at_ms: i64,
    /// Its configuration.
    pub config: FrozenConfig,
    /// The secrets of its configuration, as far as they are at hand.
    pub secrets: Arc<Secrets>,
}

impl Resident {
    fn values(&self) -> Values<'_> {
        Values { config: &self.config, secrets: &self.secrets }
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&ConfigValue> {
        let key: ConfigKey = key.parse().ok()?;
        self.values().get(&key).ok().flatten()
    }

    /// Every value and every binding that is at hand.
    pub fn all(&self) -> Option<serde_json::Value> {
        let values = self.values();
        Some(serde_json::json!({ "config": values.all().ok()?, "binding": values.bindings().ok()? }))
    }
}

/// Finds servers by their addresses.
pub trait Residents: Send + Sync + 'static {
    /// Server and generation at an address.
    fn who(&self, address: Ipv4Addr) -> Option<(ServerId, u64)>;
    /// All that is known of it.
    fn facts(&self, address: Ipv4Addr) -> Option<Resident>;
}

/// Finds secrets again that an earlier daemon launched a server with.
pub type FindSecrets = Arc<dyn Fn(&FrozenConfig) -> Option<Secrets> + Send + Sync>;

/// The servers of this host.
pub struct LocalResidents {
    runtime: Arc<Runtime>,
    secrets: FindSecrets,
}

impl LocalResidents {
    /// The servers of a runtime.
    pub fn new(runtime: Arc<Runtime>, secrets: FindSecrets) -> Self {
        Self { runtime, secrets }
    }
}

impl Residents for LocalResidents {
    fn who(&self, address: Ipv4Addr) -> Option<(ServerId, u64)> {
        self.runtime.who_is_at(address)
    }

    fn facts(&self, address: Ipv4Addr) -> Option<Resident> {
        let found = self.runtime.at(address)?;
        let record = found.record;
        let secrets = found.secrets.or_else(|| (self.secrets)(&record.config).map(Arc::new)).unwrap_or_default();
        Some(Resident {
            server: record.server,
            generation: record.generation,
            group: record.group,
            release: record.release,
            image: record.image,
            address,
            mac: kiln_runtime::network::Subnet::mac(address),
            started_at_ms: record.started_at_ms,
            config: record.config,
            secrets,
        })
    }
}

/// A server with its part of EC2's tree.
pub(super) struct Home {
    pub(super) resident: Resident,
    pub(super) tree: Tree,
}

/// Servers that have asked before.
pub(super) struct Known {
    residents: Arc<dyn Residents>,
    homes: Mutex<HashMap<Ipv4Addr, Arc<Home>>>,
}

/// A network has no more places for servers.
const MOST: usize = 1024;

impl Known {
    pub(super) fn new(residents: Arc<dyn Residents>) -> Self {
        Self { residents, homes: Mutex::default() }
    }

    /// The server at an address. What was known of an earlier one there is forgotten.
    pub(super) fn at(&self, address: Ipv4Addr) -> Option<Arc<Home>> {
        let (server, generation) = self.residents.who(address)?;
        let mut homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(home) = homes.get(&address)
            && home.resident.server == server
            && home.resident.generation == generation
        {
            return Some(Arc::clone(home));
        }
        let resident = self.residents.facts(address)?;
        let home = Arc::new(Home { tree: Tree::of(&resident), resident });
        if homes.len() >= MOST {
            homes.clear();
        }
        homes.insert(address, Arc::clone(&home));
        Some(home)
    }
}
