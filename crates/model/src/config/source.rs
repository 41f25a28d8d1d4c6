//! Where a value comes from, as a fleet says. A source is resolved once, before the configuration is frozen.

use serde::{Deserialize, Serialize};

use super::{ConfigValue, Registry};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum ConfigSource {
    /// The value itself, not yet checked against the schema.
    Literal(ConfigValue),
    /// A variable of the environment of whoever calls `kiln`; the program puts the value in its place before the daemon
    /// is asked.
    Env(String),
    /// A file, absolute or relative to the fleet's directory; one newline at its end is left out.
    File(String),
    /// What a program prints on standard output, run in the fleet's directory; one newline at its end is left out.
    Command(Vec<String>),
    /// A node of ZooKeeper.
    Zookeeper(Registry),
    /// A key of etcd, with its leading `/`.
    Etcd(Registry),
}
